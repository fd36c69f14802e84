"""Terms whose weight changes in the course of training."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from demiglace.methods.base import Problem, Progress, Requests, Term, TermLoss
from demiglace.models.shape import ModelShape
from demiglace.signals.request import Signals

Course = Literal["rising", "falling"]


@dataclass(frozen=True)
class Scheduled(Term):
    """Another term times ψ (rising) or 1 − ψ (falling), ψ the share of the phase's steps that are done."""

    term: Term
    course: Course

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

    def requests(self, student: ModelShape, teacher: ModelShape) -> Requests:
        """Those of the other term."""
        return self.term.requests(student, teacher)

    def build(self, student: ModelShape, teacher: ModelShape, problem: Problem) -> TermLoss:
        """The other term's loss, weighted."""
        return _Scheduled(self.term.build(student, teacher, problem), self.course)


class _Scheduled(TermLoss):
    def __init__(self, loss: TermLoss, course: Course):
        super().__init__()
        self.loss, self._course = loss, course

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: Progress) -> Tensor:
        factor = progress.fraction if self._course == "rising" else 1 - progress.fraction
        value = self.loss(student, teacher, labels, progress)
        self.diagnostics = self.loss.diagnostics
        return factor * value

    def pairs(self, progress: Progress) -> list[tuple[int, int]]:  # type: ignore[override]
        return list(self.loss.pairs(progress))
