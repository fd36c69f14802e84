"""The steps as tasks of a Ray cluster: an existing one, or one of this machine."""

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from demiglace.cluster import connect
from demiglace.compare.job_graph import Job, JobGraph
from demiglace.compare.jobs import JobResult, run_step
from demiglace.compare.progress import ProgressListener
from demiglace.compare.scheduler import Schedule

_POLL_SECONDS = 1.0


def run_ray(
    plan: JobGraph, schedule: Schedule, watcher: ProgressListener, *, address: str | None, cpus: int, gpus: float = 0.0
) -> None:
    """Run all steps on a cluster, which must see the same files under the same paths.

    address: `auto` or ray://HOST:PORT for an existing cluster, none for one on this machine; cpus, gpus: of each run.
    Raises `ConfigError` where Ray is not installed or the cluster cannot be reached.
    """
    ray = _connect(address, cpus)
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus)(_remote_job)
    refs: dict[str, Any] = {}  # by step key, in the order in which they were handed over
    try:
        while not schedule.finished:
            for step in schedule.ready():
                if step.key not in refs:
                    refs[step.key] = remote.remote(step, str(plan.home.absolute()), str(plan.home), str(Path.cwd()))
            schedule.workers = _max_concurrency(ray.cluster_resources(), cpus, gpus)
            for step in (schedule.steps[key] for key in islice(refs, schedule.workers)):  # the others wait in a queue
                if schedule.status[step.key] == "pending":
                    schedule.begin(step)
                    watcher.began(step)
            done, _ = ray.wait(list(refs.values()), num_returns=1, timeout=_POLL_SECONDS)
            for step in [schedule.steps[key] for key, ref in refs.items() if ref in done]:
                ending = _ending(ray, refs.pop(step.key))
                schedule.end(step, ending)
                watcher.ended(step, ending)
    finally:
        for ref in refs.values():  # an interrupt: a run goes on from its checkpoint when the command is repeated
            ray.cancel(ref, force=True)
        ray.shutdown()


def _max_concurrency(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many runs a cluster of these resources has room for at once; at least one."""
    rooms = [resources.get("CPU", 0.0) / cpus, *([resources.get("GPU", 0.0) / gpus] if gpus else [])]
    return max(1, int(min(rooms)))


def _remote_job(step: Job, absolute: str, home: str, folder: str) -> JobResult:
    """In a worker: run a step in the directory where the command was given, so that its paths mean the same."""
    if not Path(absolute).is_dir():
        return JobResult(
            0.0, f"this machine of the cluster has no {absolute}; the runs must be on a shared disk.", True
        )
    os.chdir(folder)
    ending = run_step(step, Path(home))
    assert ending is not None  # it waits
    return ending


def _ending(ray: Any, ref: Any) -> JobResult:
    """What a task said; a worker that died has said nothing."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        return JobResult(0.0, f"its worker ended: {type(error).__name__}: {first}")


def _connect(address: str | None, cpus: int) -> Any:
    # the cluster's machines have an environment of their own; data sets are to come from where they do here
    variables = {"OMP_NUM_THREADS": str(cpus), "DEMIGLACE_DATA": os.environ.get("DEMIGLACE_DATA", "")}
    return connect(address or "local", variables)
