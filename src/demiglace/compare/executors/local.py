"""The steps in this process, one after another; other processes may work on the same directory."""

import time

from demiglace.compare.job_graph import Job, JobGraph
from demiglace.compare.jobs import run_step
from demiglace.compare.progress import ProgressListener
from demiglace.compare.scheduler import Schedule

_POLL_SECONDS = 0.5


def run_local(plan: JobGraph, schedule: Schedule, watcher: ProgressListener) -> None:
    """Run all steps. What another process is at is left for later, and waited for when nothing else is left."""
    while not schedule.finished:
        # the first that is free, then look anew: its evaluation comes before the next student
        if not any(_attempt(plan, step, schedule, watcher) for step in schedule.ready()):
            time.sleep(_POLL_SECONDS)


def _attempt(plan: JobGraph, step: Job, schedule: Schedule, watcher: ProgressListener) -> bool:
    schedule.begin(step)
    watcher.began(step)
    ending = run_step(step, plan.home, wait=False)
    if ending is None:
        schedule.put_back(step)
        return False
    schedule.end(step, ending)
    watcher.ended(step, ending)
    return True
