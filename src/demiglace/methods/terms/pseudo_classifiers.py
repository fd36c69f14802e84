"""The term that compares layers by what a small classifier on each of them says."""

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
    """Mean over i of KL(C_i ‖ v_i^S) + mean over j of KL(z_T ‖ v_j^T), C_i = Σ_j softmax_j(v_i^S · v_j^T) v_j^T.

    v = V h̄ is the output of a linear classifier on a layer, one for each layer of both models; they live in the run.
    The second mean trains the teacher's; C_i is held fixed, so that they do not move towards the student. reduction:
    `sum` adds the layers up.
    """

    pooling: PoolingOption = "auto"
    temperature: float = option("τ", 1.0, above=0)
    final_layer: bool = False
    reduction: Reduction = "mean"
    name = "pseudo"
    needs_rows = True

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """The pooled hidden states of all layers, and the teacher's logits."""
        layers, logits = AllLayersMapping(self.final_layer).layers(student, teacher), SignalRequest(logits=True)
        pooling = resolve_pooling(self.pooling, student, teacher)
        other = hidden_request(pooling, layers.teacher) | logits
        return SignalRequests(hidden_request(pooling, layers.student), other)

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """The classifiers."""
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
        own = self.student(student.hidden(self._pooling, self._layers.student))
        other = self.teacher(teacher.hidden(self._pooling, self._layers.teacher))
        combined = attention_weighted_teacher(own, other).detach()
        learnt = self._distance(other, teacher.logits[:, None].expand_as(other))
        reduction = self._term.reduction
        return over_pairs(self._distance(own, combined), reduction) + over_pairs(learnt, reduction)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """[B, m, C] and [B, m, C] to [B, m]."""
        return self._task.divergence(student, teacher, lambda s, t: forward_kl(s, t, self._term.temperature))

    def pairs(self, progress: TrainingProgress) -> Sequence[tuple[int, int]]:
        return [(s, t) for s in self._layers.student for t in self._layers.teacher]


class _Classifiers(nn.Module):
    """A linear classifier for each of `count` layers, [B, count, d] to [B, count, C]."""

    def __init__(self, count: int, width: int, classes: int):
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(count, width, classes).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, classes))

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.einsum("bmd,mdc->bmc", hidden, self.weight) + self.bias
