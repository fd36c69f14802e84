"""The Ray executor: each job is a task of a Ray cluster, an existing one or a new one on this machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from demiglace.cluster import connect
from demiglace.compare.executors.base import Executor
from demiglace.compare.job_graph import Job
from demiglace.compare.jobs import JobResult, run_job

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class RayExecutor(Executor):
    """Runs the jobs on a Ray cluster whose machines see the same files under the same paths."""

    address: str | None  # `auto` or ray://HOST:PORT for an existing cluster; None starts one on this machine
    cpus: int  # of each job
    gpus: float = 0.0  # of each job

    def run(self) -> None:
        """Run every job that is not done. Raises `ConfigError` if Ray is missing or the cluster cannot be reached."""
        ray = _connect(self.address, self.cpus)
        remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(_remote_job)
        refs: dict[str, Any] = {}  # job key -> reference of its Ray task, in the order of submission
        try:
            while not self.schedule.finished:
                for job in self.schedule.ready():
                    if job.key not in refs:
                        refs[job.key] = remote.remote(job, str(self.root.absolute()), str(self.root), str(Path.cwd()))
                self._mark_running(refs, _max_concurrency(ray.cluster_resources(), self.cpus, self.gpus))
                done, _ = ray.wait(list(refs.values()), num_returns=1, timeout=_POLL_SECONDS)
                for job in [self.schedule.jobs[key] for key, ref in refs.items() if ref in done]:
                    self.end(job, _result_of(ray, refs.pop(job.key)))
        finally:
            for ref in refs.values():  # after an interrupt; the same command resumes the runs from their checkpoints
                ray.cancel(ref, force=True)
            ray.shutdown()

    def _mark_running(self, refs: Mapping[str, Any], workers: int) -> None:
        """Mark the first submitted tasks as running, as many as the cluster runs at once; the rest are queued."""
        self.schedule.workers = workers
        for job in (self.schedule.jobs[key] for key in islice(refs, workers)):
            if self.schedule.status[job.key] == "pending":
                self.start(job)


def _max_concurrency(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """Return how many jobs fit on a cluster with these resources at once, at least 1."""
    fits = [resources.get("CPU", 0.0) / cpus, *([resources.get("GPU", 0.0) / gpus] if gpus else [])]
    return max(1, int(min(fits)))


def _remote_job(job: Job, absolute: str, root: str, working_directory: str) -> JobResult:
    """Run a job in a Ray worker, in the command's working directory, so that relative paths mean the same."""
    if not Path(absolute).is_dir():
        return JobResult(
            0.0, f"this machine of the cluster has no {absolute}; the runs must be on a shared disk.", True
        )
    os.chdir(working_directory)
    result = run_job(job, Path(root))
    assert result is not None  # with wait=True it always returns a result
    return result


def _result_of(ray: Any, ref: Any) -> JobResult:
    """Return the result of a Ray task; if its worker died, a result with Ray's error."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        return JobResult(0.0, f"its worker ended: {type(error).__name__}: {first}")


def _connect(address: str | None, cpus: int) -> Any:
    # The machines of the cluster have their own environment; data sets must come from the same directory as here.
    variables = {"OMP_NUM_THREADS": str(cpus), "DEMIGLACE_DATA": os.environ.get("DEMIGLACE_DATA", "")}
    return connect(address or "local", variables)
