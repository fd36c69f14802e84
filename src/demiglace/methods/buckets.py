"""The term that brings several teacher layers at once to each student layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from demiglace.losses.hidden import mean_squared
from demiglace.methods.base import Problem, Progress, Requests, Term, TermLoss
from demiglace.methods.mapping import All
from demiglace.methods.poolings import resolve_pooling
from demiglace.models.pooling import PoolingOption
from demiglace.models.shape import ModelShape
from demiglace.signals.request import Signals, hidden_request


@dataclass(frozen=True)
class BucketDistillation(Term):
    """Σ_i ‖h̄_i^S − W_i [h̄_j^T; j in bucket i]‖² / d_S: every teacher layer is in one bucket of neighbours.

    overlapping: each bucket also holds the first layer of the next one. W_i are trained and live in the run.
    """

    pooling: PoolingOption = "auto"
    overlapping: bool = False
    final_layer: bool = False
    name = "buckets"

    def requests(self, student: ModelShape, teacher: ModelShape) -> Requests:
        """The pooled hidden states of all layers that take part."""
        layers = All(self.final_layer).layers(student, teacher)
        pooling = resolve_pooling(self.pooling, student, teacher)
        return Requests(hidden_request(pooling, layers.student), hidden_request(pooling, layers.teacher))

    def build(self, student: ModelShape, teacher: ModelShape, problem: Problem) -> TermLoss:
        """The linear maps."""
        return _BucketDistillation(self, student, teacher)

    def buckets(self, student: ModelShape, teacher: ModelShape) -> list[tuple[int, ...]]:
        """The teacher layers of each student layer that takes part."""
        layers = All(self.final_layer).layers(student, teacher)
        parts = [tuple(map(int, p)) for p in np.array_split(np.array(layers.teacher), len(layers.student))]
        if not self.overlapping:
            return parts
        return [part + after[:1] for part, after in zip(parts, [*parts[1:], ()], strict=True)]


class _BucketDistillation(TermLoss):
    def __init__(self, term: BucketDistillation, student: ModelShape, teacher: ModelShape):
        super().__init__()
        self._pooling = resolve_pooling(term.pooling, student, teacher)
        self._layers = All(term.final_layer).layers(student, teacher).student
        self._buckets = term.buckets(student, teacher)
        self.maps = nn.ModuleList(
            nn.Linear(len(b) * teacher.hidden_size, student.hidden_size, bias=False) for b in self._buckets
        )

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: Progress) -> Tensor:
        own = student.hidden(self._pooling, self._layers)
        other = [
            linear(teacher.hidden(self._pooling, bucket).flatten(1))
            for linear, bucket in zip(self.maps, self._buckets, strict=True)
        ]
        return mean_squared(own, torch.stack(other, dim=1)).sum(dim=1)

    def pairs(self, progress: Progress) -> Sequence[tuple[int, int]]:
        return [(s, t) for s, bucket in zip(self._layers, self._buckets, strict=True) for t in bucket]
