"""The term on hidden states: mapping, pooling, projection and distance are choices of their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from demiglace.errors import ConfigError
from demiglace.losses.hidden import (
    attention_weighted_teacher,
    cosine_distance,
    mean_over_tokens,
    mean_squared,
    normalised_squared,
)
from demiglace.methods.base import Reduction, SignalRequests, Term, TermLoss, TrainingProgress, over_pairs
from demiglace.methods.poolings import resolve_pooling
from demiglace.methods.terms.layer_mapping import LayerMapping, MatchedLayers
from demiglace.methods.terms.projection import Kind, Projection
from demiglace.models.pooling import StateOption
from demiglace.models.shape import ModelShape
from demiglace.signals.request import Signals, hidden_request
from demiglace.tasks.base import Task

Distance = Literal["normalised-squared", "mse", "cosine"]
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "normalised-squared": normalised_squared,
    "mse": mean_squared,
    "cosine": cosine_distance,
}


@dataclass(frozen=True)
class LayerDistillation(Term):
    """Mean over the mapped pairs of layers of α_i · distance(W_i^S h̄_i^S, W_j^T h̄_j^T).

    attention: the teacher's side of each pair is a mix of all chosen layers (ALP-KD). layer_weights: α_i, one for each
    student layer that takes part; none = 1 for all; concatenated layers have one distance and no weights of their own.
    squared: False takes the square root of each distance. reduction: `sum` adds the pairs up, as most papers do; the
    term's gradient then grows with the number of layers. centered: subtract from each layer's states, of either model,
    their mean over the first training rows before training, so that what distinguishes rows counts; a mean over the
    batch would depend on how a step is split into forward passes. With the pooling `tokens` every token's
    state is compared with that of the same token, and the mean over real tokens is taken.
    """

    mapping: LayerMapping
    pooling: StateOption
    distance: Distance
    projection: Projection = Projection()
    attention: bool = False
    layer_weights: tuple[float, ...] | None = None
    squared: bool = True
    reduction: Reduction = "mean"
    centered: bool = False
    name = "layers"

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """The pooled hidden states of all layers that may meet. Raises `ConfigError` for choices that do not suit."""
        layers = self.mapping.layers(student, teacher)
        projection = self.projection.resolved(student.hidden_size, teacher.hidden_size)
        projection.check(student.hidden_size, teacher.hidden_size)
        if self.pooling == "tokens" and (self.attention or projection.kind == "concatenated"):
            raise ConfigError("pooling=tokens goes neither with attention over layers nor with concatenated layers.")
        if self.pooling == "tokens" and self.centered:
            raise ConfigError("pooling=tokens does not go with centered=true; take pooling=mean, first or last.")
        if self.layer_weights is not None and len(self.layer_weights) != len(layers.student):
            raise ConfigError(
                f"layer_weights has {len(self.layer_weights)} numbers; {len(layers.student)} student layers take part."
            )
        if len(set(self.layer_weights or ())) > 1 and projection.kind == "concatenated":
            raise ConfigError(
                "layer_weights was given, and concatenated layers are compared as one, with one weight; leave it out, "
                "or take projection=per-layer (rail-kd-l)."
            )
        if not self.mapping.is_paired(layers):
            self._check_unpaired(projection.kind)
        pooling = resolve_pooling(self.pooling, student, teacher)
        return SignalRequests(hidden_request(pooling, layers.student), hidden_request(pooling, layers.teacher))

    def _check_unpaired(self, kind: Kind) -> None:
        """Raise `ConfigError` where layers have to come in pairs."""
        if not self.attention:
            raise ConfigError("mapping=all makes no pairs of layers; add attention=true, or take another mapping.")
        if kind in ("per-layer", "concatenated"):
            raise ConfigError(
                f"attention over all layers was given with projection={kind}, which needs pairs of layers; take "
                "projection=shared or none, or another mapping."
            )

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Its projections, with new weights."""
        return _LayerDistillation(self, student, teacher)


class _LayerDistillation(TermLoss):
    weights: Tensor
    student_mean: Tensor
    teacher_mean: Tensor

    def __init__(self, term: LayerDistillation, student: ModelShape, teacher: ModelShape):
        super().__init__()
        self._term = term
        self._pooling = resolve_pooling(term.pooling, student, teacher)
        self._layers: MatchedLayers = term.mapping.layers(student, teacher)
        self._distance = DISTANCES[term.distance]
        count, candidates = len(self._layers.student), len(self._layers.teacher)
        self.projections = term.projection.build(count, candidates, student.hidden_size, teacher.hidden_size)
        self.needs_fit = self.projections.needs_fit or term.centered
        for name, size in (("student", (count, student.hidden_size)), ("teacher", (candidates, teacher.hidden_size))):
            self.register_buffer(f"{name}_mean", torch.zeros(size), persistent=term.centered)
        self._rows = 0  # observed so far
        weights = torch.tensor(term.layer_weights or (1.0,) * count)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        chosen = self._term.mapping.choose(self._layers, progress)
        positions = self._positions(chosen)
        states, others = self._states(student, teacher, chosen)
        if self._term.centered:
            states, others = states - self.student_mean, others - self.teacher_mean[positions]
        own, other = self.projections(states, others, positions)
        if self._term.attention:
            other = attention_weighted_teacher(own, other)
        if len(own) > 2:  # two rows less their mean are always opposites
            self.diagnostics = _agreement(*(self._by_row(states.detach(), student) for states in (own, other)))
        distance = self._distance(own, other)  # [B, m], [B, m, L] for tokens, or [B, 1] for concatenated layers
        if not self._term.squared:
            distance = distance.clamp_min(1e-12).sqrt()
        distance = self._by_row(distance.unsqueeze(-1), student).squeeze(-1)
        return over_pairs(distance * self.weights[: distance.shape[1]], self._term.reduction)

    def observe(self, student: Signals, teacher: Signals, progress: TrainingProgress) -> None:
        chosen = self._term.mapping.choose(self._layers, progress)
        count = len(self._layers.student)
        if len(chosen) != count:  # attention over all layers: fit each student layer to the one at its relative depth
            chosen = tuple(chosen[i * len(chosen) // count - 1] for i in range(1, count + 1))
        own, other = self._states(student, teacher, chosen)
        if self._pooling == "tokens":
            assert student.mask is not None
            padding = student.mask[:, None, :, None] == 0
            own, other = own.masked_fill(padding, 0.0), other.masked_fill(padding, 0.0)  # rows of zeros add nothing
        if self.projections.needs_fit:
            self.projections.observe(own, other, self._positions(chosen))
        if self._term.centered:
            self._rows += len(own)
            self.student_mean += own.sum(0)
            self.teacher_mean += teacher.hidden(self._pooling, self._layers.teacher).sum(0)

    def fit(self) -> None:
        if self.projections.needs_fit:
            self.projections.fit(self._term.centered)
        if self._term.centered:
            self.student_mean /= self._rows
            self.teacher_mean /= self._rows

    def pairs(self, progress: TrainingProgress) -> Sequence[tuple[int, int]]:
        chosen = self._term.mapping.choose(self._layers, progress)
        if self._term.attention:
            return [(s, t) for s in self._layers.student for t in chosen]
        return list(zip(self._layers.student, chosen, strict=True))

    def _states(self, student: Signals, teacher: Signals, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        pooling = self._pooling
        return student.hidden(pooling, self._layers.student), teacher.hidden(pooling, chosen)

    def _positions(self, chosen: Sequence[int]) -> list[int]:
        return [self._layers.teacher.index(layer) for layer in chosen]

    def _by_row(self, values: Tensor, student: Signals) -> Tensor:
        """Average [B, m, L, u] over a row's real tokens to [B, m, u]; pooled values are returned as they are."""
        if self._pooling != "tokens":
            return values
        assert student.mask is not None
        return mean_over_tokens(values, student.mask[:, None, :, None])


def _agreement(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Compute how far features [B, m, u] distinguish rows, and how far the two models agree on that.

    feature_variance: of the student's unit-length features over the rows, summed over u; 0 means that all rows are
    alike, 1 is the most. centered_cosine: mean cosine of the two models' features once their means over the rows are
    subtracted; 0 for unrelated features, 1 the most.
    """
    student, teacher = (F.normalize(features, dim=-1) for features in (student, teacher))
    own, other = student - student.mean(0), teacher - teacher.mean(0)
    return {
        "feature_variance": own.square().sum(-1).mean(),
        "centered_cosine": F.cosine_similarity(own, other, dim=-1).mean(),
    }
