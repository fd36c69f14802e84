"""Terms on the models' outputs: the supervised loss, and the distillation of the logits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from demiglace.config.options import option
from demiglace.errors import ConfigError
from demiglace.losses.divergences import (
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    squared_error,
)
from demiglace.losses.sparse import sparse_kl_div
from demiglace.methods.base import SignalRequests, Term, TermLoss, TrainingProgress
from demiglace.models.shape import ModelShape
from demiglace.signals.request import SignalRequest, Signals, SparseLogits
from demiglace.tasks.base import Task

_LOGITS = SignalRequest(logits=True)
Divergence = Literal["forward-kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl", "squared", "hard"]
# (student logits, teacher logits, temperature, beta) -> [B]
DIVERGENCES: dict[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {
    "forward-kl": lambda student, teacher, temperature, _: forward_kl(student, teacher, temperature),
    "reverse-kl": lambda student, teacher, temperature, _: reverse_kl(student, teacher, temperature),
    "jsd": jensen_shannon,
    "skew-kl": skew_kl,
    "skew-reverse-kl": skew_reverse_kl,
    "squared": lambda student, teacher, _temperature, _: squared_error(student, teacher),
}


@dataclass(frozen=True)
class TaskLoss(Term):
    """The task's supervised loss: cross-entropy with the labels, or squared error on regression."""

    name = "task"
    needs_labels = True

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Return a request for the student's logits."""
        return SignalRequests(_LOGITS, SignalRequest())

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Return the loss, which has no weights."""
        return _TaskLoss(task)


class _TaskLoss(TermLoss):
    def __init__(self, task: Task):
        super().__init__()
        self._task = task

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        assert student.logits is not None
        return self._task.loss(student.logits, labels)


@dataclass(frozen=True)
class LogitDistillation(Term):
    """A divergence of the two outputs at temperature τ; by default τ²·KL(teacher ‖ student).

    "hard" is the task's loss with the teacher's prediction as the label, without τ. The task may replace the
    divergence: on regression it is the squared error of the outputs. With a cache of the teacher's most likely or
    sampled tokens it is `losses.sparse`, which estimates KL(teacher ‖ student) only.
    """

    temperature: float = option("τ", 1.0, above=0)
    divergence: Divergence = "forward-kl"
    beta: float = option("β of jsd, λ of the skewed ones", 0.5, at_least=0, below=1)
    name = "kd"

    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        """Return whether the teacher's most likely class is read."""
        return self.divergence == "hard"

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Return a request for both models' logits. Raises `ConfigError` for a `jsd` that is always 0."""
        if self.divergence == "jsd" and self.beta == 0:
            raise ConfigError("beta=0 was given, with which jsd is always 0; give a number above 0 and below 1.")
        return SignalRequests(_LOGITS, _LOGITS)

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Return the loss, which has no weights."""
        return _LogitDistillation(self, task)


class _LogitDistillation(TermLoss):
    def __init__(self, term: LogitDistillation, task: Task):
        super().__init__()
        self._term, self._task = term, task

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        if isinstance(sparse := teacher.head, SparseLogits):
            assert student.logits is not None and self._term.divergence == "forward-kl"
            return sparse_kl_div(student.logits, sparse.ids, sparse.weights, sparse.entropy, self._term.temperature)
        assert student.logits is not None and teacher.logits is not None
        if self._term.divergence == "hard":
            return self._task.pseudo_label_loss(student.logits, teacher.logits)
        return self._task.divergence(student.logits, teacher.logits, self._categorical)

    def _categorical(self, student: Tensor, teacher: Tensor) -> Tensor:
        return DIVERGENCES[self._term.divergence](student, teacher, self._term.temperature, self._term.beta)


@dataclass(frozen=True)
class AnnealedLogits(Term):
    """max(0, ‖z_S − φ·z_T‖² / C − m·φ), φ rising from 1/τ_max to 1 in steps from epoch to epoch of the phase.

    Annealing-KD (arXiv 2104.07163, eq. 4) with the margin m = 0, Continuation-KD with one; see `annealing`.
    """

    steps: int = option("τ_max, the number of steps in which φ rises to 1", at_least=1)
    margin: float = option("margin m: a squared distance up to m·φ costs nothing", 0.0, at_least=0)
    name = "annealed"
    needs_scores = True

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Return a request for both models' logits."""
        return SignalRequests(_LOGITS, _LOGITS)

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Return the loss, which has no weights."""
        return _AnnealedLogits(self)


class _AnnealedLogits(TermLoss):
    def __init__(self, term: AnnealedLogits):
        super().__init__()
        self._term = term

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        assert student.logits is not None and teacher.logits is not None
        phi = annealing(progress, self._term.steps)
        return (squared_error(student.logits, phi * teacher.logits) - self._term.margin * phi).clamp_min(0.0)


def annealing(progress: TrainingProgress, steps: int) -> float:
    """φ = k/τ_max in the k-th of τ_max equal parts of the phase's epochs; 1 in its last epoch.

    In a phase of fewer epochs than τ_max, φ skips values rather than not reach 1.
    """
    part = -(-(progress.phase_epoch + 1) * steps // progress.phase_epochs)
    return part / steps
