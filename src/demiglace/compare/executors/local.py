"""The local executor: the jobs run in this process, one after another."""

import time

from demiglace.compare.executors.base import Executor
from demiglace.compare.job_graph import Job
from demiglace.compare.jobs import run_job

_POLL_SECONDS = 0.5


class LocalExecutor(Executor):
    """Runs the jobs in this process. Other processes may work on the same directory at the same time."""

    def run(self) -> None:
        """Run every job that is not done; wait for jobs of other processes only when nothing else is ready."""
        while not self.schedule.finished:
            # After each job the search starts again from the first one, so a run is evaluated before the next one
            # starts.
            if not any(self._run_if_free(job) for job in self.schedule.ready()):
                time.sleep(_POLL_SECONDS)

    def _run_if_free(self, job: Job) -> bool:
        """Run a job and return True, or return False if another process is running it."""
        self.start(job)
        result = run_job(job, self.root, wait=False)
        if result is None:
            self.schedule.requeue(job)
            return False
        self.end(job, result)
        return True
