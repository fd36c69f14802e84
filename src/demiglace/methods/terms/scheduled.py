"""Loss terms whose weight changes during training."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from demiglace.methods.base import SignalRequests, Term, TermLoss, TrainingProgress
from demiglace.models.shape import ModelShape
from demiglace.signals.request import Signals
from demiglace.tasks.base import Task

Schedule = Literal["rising", "falling"]


@dataclass(frozen=True)
class ScheduledTerm(Term):
    """Multiply another term by ψ ("rising") or 1 − ψ ("falling").

    ψ rises linearly from 0 at the start of the phase to 1 at the share `until` of its steps; then it stays 1.
    """

    term: Term
    schedule: Schedule
    until: float = 1.0  # share of the phase's steps, above 0 and at most 1

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return the name of the other term."""
        return self.term.name

    @property
    def needs_labels(self) -> bool:  # type: ignore[override]
        """Return whether the other term needs labels."""
        return self.term.needs_labels

    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        """Return whether the other term needs scores."""
        return self.term.needs_scores

    @property
    def needs_rows(self) -> bool:  # type: ignore[override]
        """Return whether the other term needs the logits of rows."""
        return self.term.needs_rows

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Return the requests of the other term."""
        return self.term.requests(student, teacher)

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Return the loss of the other term, multiplied by the schedule."""
        return _Scheduled(self.term.build(student, teacher, task), self.schedule, self.until)


class _Scheduled(TermLoss):
    def __init__(self, loss: TermLoss, schedule: Schedule, until: float):
        super().__init__()
        self.loss, self._schedule, self._until = loss, schedule, until
        self.needs_fit = loss.needs_fit

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        done = min(1.0, progress.fraction / self._until)
        factor = done if self._schedule == "rising" else 1 - done
        value = self.loss(student, teacher, labels, progress)
        self.diagnostics = self.loss.diagnostics if factor else {}
        return factor * value

    def observe(self, student: Signals, teacher: Signals, progress: TrainingProgress) -> None:
        self.loss.observe(student, teacher, progress)

    def fit(self) -> None:
        self.loss.fit()

    def layer_pairs(self, progress: TrainingProgress) -> list[tuple[int, int]]:  # type: ignore[override]
        return list(self.loss.layer_pairs(progress))
