"""The base class of executors, which run jobs."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from demiglace.compare.job_graph import Job
from demiglace.compare.jobs import JobResult
from demiglace.compare.progress import ProgressListener
from demiglace.compare.scheduler import Schedule


@dataclass(frozen=True)
class Executor(ABC):
    """Runs all jobs of a schedule. A subclass decides where and how many at once; the schedule decides the order."""

    root: Path  # the directory that the keys of jobs are relative to
    schedule: Schedule
    listener: ProgressListener

    @abstractmethod
    def run(self) -> None:
        """Run every job that is not done. A job that fails does not end the others that do not depend on it."""

    def start(self, job: Job) -> None:
        """Mark a job as running."""
        self.schedule.begin(job)
        self.listener.on_job_start(job)

    def end(self, job: Job, result: JobResult) -> None:
        """Record the result of a job."""
        self.schedule.end(job, result)
        self.listener.on_job_end(job, result)
