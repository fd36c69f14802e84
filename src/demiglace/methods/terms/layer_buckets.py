"""Loss term that matches each student layer with a bucket of several teacher layers (CKD, arXiv 2010.03034)."""

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
    """Compare buckets: mean over student layers of ‖h̄_i^S − W_i [h̄_j^T; j in bucket i]‖² / d_S.

    The buckets partition the teacher's layers into consecutive groups. The maps W_i are trained; they are not part of
    the student.
    """

    pooling: PoolingOption = "auto"
    overlapping: bool = False  # let each bucket include the first layer of the next one
    final_layer: bool = False  # include the last layers of both models
    reduction: Reduction = "mean"  # over student layers
    # "matched": W_i starts as the average of its bucket's layers if widths are equal, else it is fitted by ridge
    # regression on the first training rows; "random": W_i is drawn at random
    start: Start = "matched"
    name = "buckets"

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Return requests for the pooled hidden states of all matched layers."""
        layers = AllLayersMapping(self.final_layer).layers(student, teacher)
        pooling = resolve_pooling(self.pooling, student, teacher)
        return SignalRequests(hidden_request(pooling, layers.student), hidden_request(pooling, layers.teacher))

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Return the loss for these models, with new linear maps."""
        return _BucketDistillation(self, student, teacher)

    def buckets(self, student: ModelShape, teacher: ModelShape) -> list[tuple[int, ...]]:
        """Return the teacher layers, from 1, of the bucket of each matched student layer."""
        layers = AllLayersMapping(self.final_layer).layers(student, teacher)
        buckets = [tuple(map(int, b)) for b in np.array_split(np.array(layers.teacher), len(layers.student))]
        if not self.overlapping:
            return buckets
        return [bucket + following[:1] for bucket, following in zip(buckets, [*buckets[1:], ()], strict=True)]


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
            self._init_average()

    @torch.no_grad()
    def _init_average(self) -> None:
        for maps, bucket in zip(self._maps, self._buckets, strict=True):
            width, size = maps.weight.shape[1:]
            if width == len(bucket) * size:
                maps.weight[0] = torch.eye(size).repeat(len(bucket), 1) / len(bucket)

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        mapped = [maps(states, [0]) for maps, states in zip(self._maps, self._concatenated(teacher), strict=True)]
        distance = mean_squared(student.hidden(self._pooling, self._layers), torch.cat(mapped, dim=1))
        return over_pairs(distance, self._term.reduction)

    def observe(self, student: Signals, teacher: Signals, progress: TrainingProgress) -> None:
        states = student.hidden(self._pooling, self._layers)
        for i, (maps, inputs) in enumerate(zip(self._maps, self._concatenated(teacher), strict=True)):
            maps.observe(inputs, states[:, i : i + 1])

    def fit(self) -> None:
        for maps in self._maps:
            maps.fit()

    @property
    def _maps(self) -> list[LinearMaps]:
        return [maps for maps in self.maps if isinstance(maps, LinearMaps)]

    def _concatenated(self, teacher: Signals) -> list[Tensor]:
        """Return the concatenated states of each bucket, [B, 1, k · d_T]."""
        pooling = self._pooling
        return [teacher.hidden(pooling, bucket).flatten(1).unsqueeze(1) for bucket in self._buckets]

    def layer_pairs(self, progress: TrainingProgress) -> Sequence[tuple[int, int]]:
        return [(s, t) for s, bucket in zip(self._layers, self._buckets, strict=True) for t in bucket]
