"""Terms whose weight changes in the course of training."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from demiglace.methods.base import SignalRequests, Term, TermLoss, TrainingProgress
from demiglace.models.shape import ModelShape
from demiglace.signals.request import Signals
from demiglace.tasks.base import Task

Course = Literal["rising", "falling"]


@dataclass(frozen=True)
class ScheduledTerm(Term):
    """Another term times ψ (rising) or 1 − ψ (falling).

    ψ grows linearly from 0 at the phase's start to 1 where the share `until` of its steps is done, and stays 1.
    """

    term: Term
    course: Course
    until: float = 1.0

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the other term."""
        return self.term.name

    @property
    def needs_labels(self) -> bool:  # type: ignore[override]
        """As the other term."""
        return self.term.needs_labels

    @property
    def needs_rows(self) -> bool:  # type: ignore[override]
        """As the other term."""
        return self.term.needs_rows

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Those of the other term."""
        return self.term.requests(student, teacher)

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """The other term's loss, weighted."""
        return _Scheduled(self.term.build(student, teacher, task), self.course, self.until)


class _Scheduled(TermLoss):
    def __init__(self, loss: TermLoss, course: Course, until: float):
        super().__init__()
        self.loss, self._course, self._until = loss, course, until
        self.needs_fit = loss.needs_fit

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        done = min(1.0, progress.fraction / self._until)
        factor = done if self._course == "rising" else 1 - done
        value = self.loss(student, teacher, labels, progress)
        self.diagnostics = self.loss.diagnostics if factor else {}
        return factor * value

    def observe(self, student: Signals, teacher: Signals, progress: TrainingProgress) -> None:
        self.loss.observe(student, teacher, progress)

    def fit(self) -> None:
        self.loss.fit()

    def pairs(self, progress: TrainingProgress) -> list[tuple[int, int]]:  # type: ignore[override]
        return list(self.loss.pairs(progress))
