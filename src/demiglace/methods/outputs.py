"""Terms on the models' outputs: the labels' own loss, and the distillation of the logits."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from demiglace.losses.divergences import forward_kl, squared_error
from demiglace.methods.base import Problem, Progress, Requests, Term, TermLoss
from demiglace.models.shape import ModelShape
from demiglace.signals.request import SignalRequest, Signals

_LOGITS = SignalRequest(logits=True)


@dataclass(frozen=True)
class TaskLoss(Term):
    """Cross-entropy with the labels, or squared error on regression."""

    name = "task"
    needs_labels = True

    def requests(self, student: ModelShape, teacher: ModelShape) -> Requests:
        """The student's logits."""
        return Requests(_LOGITS, SignalRequest())

    def build(self, student: ModelShape, teacher: ModelShape, problem: Problem) -> TermLoss:
        """No weights of its own."""
        return _TaskLoss(problem)


class _TaskLoss(TermLoss):
    def __init__(self, problem: Problem):
        super().__init__()
        self._regression = problem == "regression"

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: Progress) -> Tensor:
        assert student.logits is not None
        if self._regression:  # a missing label is NaN, and NaN times the row's weight 0 would stay NaN
            return (student.logits.squeeze(-1) - labels.nan_to_num()).square()
        return F.cross_entropy(student.logits, labels, reduction="none", ignore_index=-100)


@dataclass(frozen=True)
class LogitDistillation(Term):
    """τ²·KL(teacher ‖ student) at temperature τ; squared error of the outputs on regression."""

    temperature: float
    name = "kd"

    def requests(self, student: ModelShape, teacher: ModelShape) -> Requests:
        """Both models' logits."""
        return Requests(_LOGITS, _LOGITS)

    def build(self, student: ModelShape, teacher: ModelShape, problem: Problem) -> TermLoss:
        """No weights of its own."""
        return _LogitDistillation(self.temperature, problem)


class _LogitDistillation(TermLoss):
    def __init__(self, temperature: float, problem: Problem):
        super().__init__()
        self._temperature, self._regression = temperature, problem == "regression"

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: Progress) -> Tensor:
        assert student.logits is not None and teacher.logits is not None
        if self._regression:
            return squared_error(student.logits, teacher.logits)
        return forward_kl(student.logits, teacher.logits, self._temperature)
