"""The schedule of a comparison: which jobs can run, which are done, and which a failure skips. It runs nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from demiglace.compare.job_graph import Job
from demiglace.compare.jobs import JobResult
from demiglace.errors import FailedRunsError, RunError

Status = Literal["pending", "running", "done", "failed", "skipped"]


class Schedule:
    """The status of every job of a graph; executors read and update it.

    Attributes:
        jobs: key -> job, in the graph's order.
        status: key -> status.
        errors: key -> result of each job that failed.
        seconds: key -> wall time of each job that ended.
        workers: number of jobs that run at once.
    """

    def __init__(self, jobs: Sequence[Job], done: set[str]):
        """Start with the jobs of these keys done and the others pending."""
        self.jobs = {job.key: job for job in jobs}
        self.status: dict[str, Status] = {key: "done" if key in done else "pending" for key in self.jobs}
        self.errors: dict[str, JobResult] = {}
        self.seconds: dict[str, float] = {}
        self.workers = 1

    @property
    def finished(self) -> bool:
        """Return whether no job is pending or running."""
        return not any(status in ("pending", "running") for status in self.status.values())

    def ready(self) -> list[Job]:
        """Return the pending jobs whose dependencies are done, in the graph's order."""
        return [job for job in self.jobs.values() if self.status[job.key] == "pending" and self._is_ready(job)]

    def _is_ready(self, job: Job) -> bool:
        return all(self.status[dependency] == "done" for dependency in job.depends_on)

    def begin(self, job: Job) -> None:
        """Mark a job as running."""
        self.status[job.key] = "running"

    def requeue(self, job: Job) -> None:
        """Mark a job as pending again, because another process is running it."""
        self.status[job.key] = "pending"

    def end(self, job: Job, result: JobResult) -> None:
        """Record the result of a job. If it failed, skip every job that depends on it."""
        self.seconds[job.key] = result.seconds
        self.status[job.key] = "done" if result.error is None else "failed"
        if result.error is not None:
            self.errors[job.key] = result
            self._skip_dependents(job.key)

    def _skip_dependents(self, key: str) -> None:
        for job in self.jobs.values():
            if key in job.depends_on and self.status[job.key] == "pending":
                self.status[job.key] = "skipped"
                self._skip_dependents(job.key)

    def count(self, status: Status) -> int:
        """Count the jobs with a status."""
        return sum(s == status for s in self.status.values())

    def failure(self, root: Path) -> Exception:
        """Return the error that names the jobs that failed: `RunError` if the user can correct all of them.

        root: the directory that the keys of the jobs are relative to.
        """
        count = len(self.errors)
        lines = [f"{count} run{'s' if count > 1 else ''} failed, {self.count('skipped')} skipped that depend on them:"]
        lines += [f"  {key}: {result.error}" for key, result in self.errors.items()]
        lines.append(f"{root / 'failed'} has each error; repeat the same command to try them again.")
        kind = RunError if all(result.is_user for result in self.errors.values()) else FailedRunsError
        return kind("\n".join(lines))

    def seconds_left(self) -> float | None:
        """Estimate the seconds until all jobs have ended, or return None if a remaining job cannot be estimated.

        A job is estimated by the mean time of the jobs of its command and task, or of its command if no such job ended.
        """
        remaining = [self.jobs[key] for key, status in self.status.items() if status in ("pending", "running")]
        estimates = [self._estimate(job) for job in remaining]
        return None if None in estimates else sum(e for e in estimates if e is not None) / self.workers

    def _estimate(self, job: Job) -> float | None:
        measured = {key: s for key, s in self.seconds.items() if self.jobs[key].stage == job.stage}
        similar = [s for key, s in measured.items() if self.jobs[key].task == job.task] or list(measured.values())
        return sum(similar) / len(similar) if similar else None
