"""The term on hidden states: mapping, pooling, projection and distance are choices of their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from demiglace.errors import ConfigError
from demiglace.losses.hidden import attend, cosine_distance, mean_over_tokens, mean_squared, normalised_squared
from demiglace.methods.base import Problem, Progress, Requests, Term, TermLoss
from demiglace.methods.mapping import LayerMapping, Layers
from demiglace.methods.poolings import resolve_pooling
from demiglace.methods.projection import Projection
from demiglace.models.pooling import StateOption
from demiglace.models.shape import ModelShape
from demiglace.signals.request import Signals, hidden_request

Distance = Literal["normalised-squared", "mse", "cosine"]
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "normalised-squared": normalised_squared,
    "mse": mean_squared,
    "cosine": cosine_distance,
}


@dataclass(frozen=True)
class LayerDistillation(Term):
    """Σ_i α_i · distance(W_i^S h̄_i^S, W_i^T h̄_i^T) over the pairs of layers that the mapping makes.

    attention: the teacher's part of each pair is a mix of all chosen layers (ALP). layer_weights: α_i, one for each
    student layer that takes part; none = 1 for all; concatenated layers have one distance and no weights of their own.
    squared: false takes the square root of each distance. With the pooling `tokens` every token's state is compared
    with its own, and the mean over real tokens is taken.
    """

    mapping: LayerMapping
    pooling: StateOption
    distance: Distance
    projection: Projection = Projection()
    attention: bool = False
    layer_weights: tuple[float, ...] | None = None
    squared: bool = True
    name = "layers"

    def requests(self, student: ModelShape, teacher: ModelShape) -> Requests:
        """The pooled hidden states of all layers that may meet. Raises `ConfigError` for choices that do not suit."""
        layers = self.mapping.layers(student, teacher)
        self.projection.check(student.hidden_size, teacher.hidden_size)
        if self.pooling == "tokens" and (self.attention or self.projection.kind == "concatenated"):
            raise ConfigError("pooling=tokens goes neither with attention over layers nor with concatenated layers.")
        if self.layer_weights is not None and len(self.layer_weights) != len(layers.student):
            raise ConfigError(
                f"layer_weights has {len(self.layer_weights)} numbers; {len(layers.student)} student layers take part."
            )
        if len(set(self.layer_weights or ())) > 1 and self.projection.kind == "concatenated":
            raise ConfigError(
                "layer_weights was given, and concatenated layers are compared as one, with one weight; leave it out, "
                "or take projection=per-layer (rail-kd-l)."
            )
        if not self.mapping.is_paired(layers):
            self._check_unpaired()
        pooling = resolve_pooling(self.pooling, student, teacher)
        return Requests(hidden_request(pooling, layers.student), hidden_request(pooling, layers.teacher))

    def _check_unpaired(self) -> None:
        """Raise `ConfigError` where layers have to come in pairs."""
        if not self.attention:
            raise ConfigError("mapping=all makes no pairs of layers; add attention=true, or take another mapping.")
        if self.projection.kind in ("per-layer", "concatenated"):
            raise ConfigError(
                f"attention over all layers was given with projection={self.projection.kind}, which needs pairs of "
                "layers; take projection=shared or none, or another mapping."
            )

    def build(self, student: ModelShape, teacher: ModelShape, problem: Problem) -> TermLoss:
        """Its projections, with new weights."""
        return _LayerDistillation(self, student, teacher)


class _LayerDistillation(TermLoss):
    weights: Tensor

    def __init__(self, term: LayerDistillation, student: ModelShape, teacher: ModelShape):
        super().__init__()
        self._term = term
        self._pooling = resolve_pooling(term.pooling, student, teacher)
        self._layers: Layers = term.mapping.layers(student, teacher)
        self._distance = DISTANCES[term.distance]
        count = len(self._layers.student)
        self.projections = term.projection.build(count, student.hidden_size, teacher.hidden_size)
        weights = torch.tensor(term.layer_weights or (1.0,) * count)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: Progress) -> Tensor:
        chosen = self._term.mapping.choose(self._layers, progress)
        own, other = self.projections(
            student.hidden(self._pooling, self._layers.student),
            teacher.hidden(self._pooling, chosen),
        )
        if self._term.attention:
            other = attend(own, other)
        distance = self._distance(own, other)  # [B, m], [B, m, L] for tokens, or [B, 1] for concatenated layers
        if not self._term.squared:
            distance = distance.clamp_min(1e-12).sqrt()
        if len(own) > 1:
            self.diagnostics = {"feature_variance": _variance(own.detach())}
        if self._term.pooling == "tokens":
            assert student.mask is not None
            own_mask = student.mask[:, None].expand(distance.shape).flatten(0, 1)
            distance = mean_over_tokens(distance.flatten(0, 1), own_mask).view(distance.shape[:2])
        return (distance * self.weights[: distance.shape[1]]).sum(dim=1)

    def pairs(self, progress: Progress) -> Sequence[tuple[int, int]]:
        chosen = self._term.mapping.choose(self._layers, progress)
        if self._term.attention:
            return [(s, t) for s in self._layers.student for t in chosen]
        return list(zip(self._layers.student, chosen, strict=True))


def _variance(features: Tensor) -> Tensor:
    """Variance of the unit-length features over the rows, summed over their size: 0 is collapse, 1 the most."""
    return F.normalize(features, dim=-1).var(dim=0, unbiased=False).sum(-1).mean()
