"""Loss term that compares layers by the outputs of a linear classifier on each of them (Universal-KD)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from demiglace.config.options import option
from demiglace.losses.divergences import forward_kl
from demiglace.losses.hidden import attention_weighted_teacher
from demiglace.methods.base import Reduction, SignalRequests, Term, TermLoss, TrainingProgress, over_pairs
from demiglace.methods.poolings import resolve_pooling
from demiglace.methods.terms.layer_mapping import AllLayersMapping, MatchedLayers
from demiglace.models.pooling import PoolingOption
from demiglace.models.shape import ModelShape
from demiglace.signals.request import SignalRequest, Signals, hidden_request
from demiglace.tasks.base import Task


@dataclass(frozen=True)
class PseudoClassifierDistillation(Term):
    """Compute mean_i KL(C_i ‖ v_i^S) + mean_j KL(z_T ‖ v_j^T) with C_i = Σ_j softmax_j(v_i^S · v_j^T) v_j^T.

    v = V h̄ is the output of a linear classifier on a layer, one for each layer of both models. They are trained in the
    run and not part of the student. The second mean trains those of the teacher. C_i gets no gradient, so that they do
    not move towards the student.
    """

    pooling: PoolingOption = "auto"
    temperature: float = option("τ, softmax temperature", 1.0, above=0)
    final_layer: bool = False  # include the last layers of both models
    reduction: Reduction = "mean"  # over layers
    name = "pseudo"
    needs_rows = True
    needs_scores = True

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Return requests for the pooled hidden states of all layers, and the teacher's logits."""
        layers, logits = AllLayersMapping(self.final_layer).layers(student, teacher), SignalRequest(logits=True)
        pooling = resolve_pooling(self.pooling, student, teacher)
        return SignalRequests(hidden_request(pooling, layers.student), hidden_request(pooling, layers.teacher) | logits)

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Return the loss for these models, with new classifiers."""
        return _PseudoClassifierDistillation(self, student, teacher, task)


class _PseudoClassifierDistillation(TermLoss):
    def __init__(self, term: PseudoClassifierDistillation, student: ModelShape, teacher: ModelShape, task: Task):
        super().__init__()
        self._term, self._task = term, task
        self._pooling = resolve_pooling(term.pooling, student, teacher)
        self._layers: MatchedLayers = AllLayersMapping(term.final_layer).layers(student, teacher)
        size = teacher.num_labels
        self.student = _Classifiers(len(self._layers.student), student.hidden_size, size)
        self.teacher = _Classifiers(len(self._layers.teacher), teacher.hidden_size, size)

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        assert teacher.logits is not None
        student_outputs = self.student(student.hidden(self._pooling, self._layers.student))
        teacher_outputs = self.teacher(teacher.hidden(self._pooling, self._layers.teacher))
        combined = attention_weighted_teacher(student_outputs, teacher_outputs).detach()
        teacher_loss = self._distance(teacher_outputs, teacher.logits[:, None].expand_as(teacher_outputs))
        reduction = self._term.reduction
        return over_pairs(self._distance(student_outputs, combined), reduction) + over_pairs(teacher_loss, reduction)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare outputs [B, m, C] and [B, m, C]; return [B, m]."""
        return self._task.divergence(student, teacher, lambda s, t: forward_kl(s, t, self._term.temperature))

    def layer_pairs(self, progress: TrainingProgress) -> Sequence[tuple[int, int]]:
        return [(s, t) for s in self._layers.student for t in self._layers.teacher]


class _Classifiers(nn.Module):
    """One linear classifier for each of `count` layers: [B, count, d] to [B, count, C]."""

    def __init__(self, count: int, width: int, classes: int):
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(count, width, classes).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, classes))

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.einsum("bmd,mdc->bmc", hidden, self.weight) + self.bias
