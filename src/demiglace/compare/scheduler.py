"""Which steps can run, which are done, and what a failure takes with it. Engines ask it; it runs nothing itself."""

from collections.abc import Sequence
from typing import Literal

from demiglace.compare.job_graph import Job
from demiglace.compare.jobs import JobResult

Status = Literal["pending", "running", "done", "failed", "skipped"]


class Schedule:
    """The state of all steps of a plan. `errors`: key -> how it failed; `workers`: steps that can run at once."""

    def __init__(self, steps: Sequence[Job], done: set[str]):
        self.steps = {step.key: step for step in steps}
        self.status: dict[str, Status] = {key: "done" if key in done else "pending" for key in self.steps}
        self.errors: dict[str, JobResult] = {}
        self.seconds: dict[str, float] = {}
        self.workers = 1

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        return not any(status in ("pending", "running") for status in self.status.values())

    def ready(self) -> list[Job]:
        """The steps that could begin now, in the plan's order."""
        return [s for k, s in self.steps.items() if self.status[k] == "pending" and self._has_all(s)]

    def _has_all(self, step: Job) -> bool:
        return all(self.status[need] == "done" for need in step.needs)

    def begin(self, step: Job) -> None:
        """A step runs now."""
        self.status[step.key] = "running"

    def put_back(self, step: Job) -> None:
        """A step is held by another process; try it again later."""
        self.status[step.key] = "pending"

    def end(self, step: Job, ending: JobResult) -> None:
        """A step ended; if it failed, all that needs it is skipped."""
        self.seconds[step.key] = ending.seconds
        self.status[step.key] = "done" if ending.error is None else "failed"
        if ending.error is not None:
            self.errors[step.key] = ending
            self._skip_after(step.key)

    def _skip_after(self, key: str) -> None:
        for step in self.steps.values():
            if key in step.needs and self.status[step.key] == "pending":
                self.status[step.key] = "skipped"
                self._skip_after(step.key)

    def count(self, status: Status) -> int:
        """How many steps have a status."""
        return sum(s == status for s in self.status.values())

    def seconds_left(self) -> float | None:
        """Seconds that the remaining steps will take, from those of the same stage and task, else of the same stage.

        None while a stage that remains has never been measured.
        """
        left = [self.steps[k] for k, status in self.status.items() if status in ("pending", "running")]
        guesses = [self._guess(step) for step in left]
        return None if None in guesses else sum(g for g in guesses if g is not None) / self.workers

    def _guess(self, step: Job) -> float | None:
        measured = {k: s for k, s in self.seconds.items() if self.steps[k].stage == step.stage}
        alike = [s for k, s in measured.items() if self.steps[k].task == step.task] or list(measured.values())
        return sum(alike) / len(alike) if alike else None
