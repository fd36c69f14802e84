"""The term that brings several teacher layers at once to each student layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from demiglace.losses.hidden import mean_squared
from demiglace.methods.base import Reduction, SignalRequests, Term, TermLoss, TrainingProgress, over_pairs
from demiglace.methods.poolings import resolve_pooling
from demiglace.methods.terms.layer_mapping import AllLayersMapping
from demiglace.methods.terms.projection import LinearMaps, Start
from demiglace.models.pooling import PoolingOption
from demiglace.models.shape import ModelShape
from demiglace.signals.request import Signals, hidden_request
from demiglace.tasks.base import Task


@dataclass(frozen=True)
class BucketDistillation(Term):
    """Mean over student layers of ‖h̄_i^S − W_i [h̄_j^T; j in bucket i]‖² / d_S; a bucket is a run of teacher layers.

    Every teacher layer that takes part is in a bucket; the last one takes part with final_layer=True. overlapping: each
    bucket also holds the first layer of the next one. reduction: `sum` adds the student layers up.

    The maps W_i are trained and not part of the student. start: `matched` makes W_i the average of its bucket's layers
    where widths are equal, and fits it by ridge regression on the first training rows where they are not; `random`
    draws it.
    """

    pooling: PoolingOption = "auto"
    overlapping: bool = False
    final_layer: bool = False
    reduction: Reduction = "mean"
    start: Start = "matched"
    name = "buckets"

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """The pooled hidden states of all layers that take part."""
        layers = AllLayersMapping(self.final_layer).layers(student, teacher)
        pooling = resolve_pooling(self.pooling, student, teacher)
        return SignalRequests(hidden_request(pooling, layers.student), hidden_request(pooling, layers.teacher))

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """The linear maps."""
        return _BucketDistillation(self, student, teacher)

    def buckets(self, student: ModelShape, teacher: ModelShape) -> list[tuple[int, ...]]:
        """The teacher layers of each student layer that takes part."""
        layers = AllLayersMapping(self.final_layer).layers(student, teacher)
        parts = [tuple(map(int, p)) for p in np.array_split(np.array(layers.teacher), len(layers.student))]
        if not self.overlapping:
            return parts
        return [part + after[:1] for part, after in zip(parts, [*parts[1:], ()], strict=True)]


class _BucketDistillation(TermLoss):
    def __init__(self, term: BucketDistillation, student: ModelShape, teacher: ModelShape):
        super().__init__()
        self._term = term
        self._pooling = resolve_pooling(term.pooling, student, teacher)
        self._layers = AllLayersMapping(term.final_layer).layers(student, teacher).student
        self._buckets = term.buckets(student, teacher)
        size = student.hidden_size
        self.maps = nn.ModuleList(LinearMaps(1, len(b) * teacher.hidden_size, size, True) for b in self._buckets)
        if term.start == "matched":
            self.needs_fit = size != teacher.hidden_size
            self._average()

    @torch.no_grad()
    def _average(self) -> None:
        for maps, bucket in zip(self._maps, self._buckets, strict=True):
            width, size = maps.weight.shape[1:]
            if width == len(bucket) * size:
                maps.weight[0] = torch.eye(size).repeat(len(bucket), 1) / len(bucket)

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        mapped = [maps(states, [0]) for maps, states in zip(self._maps, self._joined(teacher), strict=True)]
        distance = mean_squared(student.hidden(self._pooling, self._layers), torch.cat(mapped, dim=1))
        return over_pairs(distance, self._term.reduction)

    def observe(self, student: Signals, teacher: Signals, progress: TrainingProgress) -> None:
        states = student.hidden(self._pooling, self._layers)
        for i, (maps, joined) in enumerate(zip(self._maps, self._joined(teacher), strict=True)):
            maps.observe(joined, states[:, i : i + 1])

    def fit(self) -> None:
        for maps in self._maps:
            maps.fit()

    @property
    def _maps(self) -> list[LinearMaps]:
        return [maps for maps in self.maps if isinstance(maps, LinearMaps)]

    def _joined(self, teacher: Signals) -> list[Tensor]:
        """Return each bucket's states side by side, [B, 1, k · d_T]."""
        pooling = self._pooling
        return [teacher.hidden(pooling, bucket).flatten(1).unsqueeze(1) for bucket in self._buckets]

    def pairs(self, progress: TrainingProgress) -> Sequence[tuple[int, int]]:
        return [(s, t) for s, bucket in zip(self._layers, self._buckets, strict=True) for t in bucket]
