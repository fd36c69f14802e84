"""Loss term on hidden states, composed of a layer mapping, a pooling, a projection and a distance."""

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
    normalized_squared,
)
from demiglace.methods.base import Reduction, SignalRequests, Term, TermLoss, TrainingProgress, over_pairs
from demiglace.methods.poolings import resolve_pooling
from demiglace.methods.terms.layer_mapping import LayerMapping, MatchedLayers
from demiglace.methods.terms.projection import Kind, Projection
from demiglace.models.pooling import StateOption
from demiglace.models.shape import ModelShape
from demiglace.signals.request import Signals, hidden_request
from demiglace.tasks.base import Task

Distance = Literal["normalized-squared", "mse", "cosine"]
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "normalized-squared": normalized_squared,
    "mse": mean_squared,
    "cosine": cosine_distance,
}


@dataclass(frozen=True)
class LayerDistillation(Term):
    """Compare hidden states: mean over the mapped layer pairs of α_i · distance(W_i^S h̄_i^S, W_j^T h̄_j^T)."""

    mapping: LayerMapping
    pooling: StateOption  # "tokens": compare the states of each token and take the mean over real tokens
    distance: Distance
    projection: Projection = Projection()
    attention: bool = False  # compare with an attention-weighted mix of all the teacher's layers (ALP-KD)
    layer_weights: tuple[float, ...] | None = (
        None  # α_i of each matched student layer, None: all 1; not if concatenated
    )
    squared: bool = True  # False: take the square root of each distance
    reduction: Reduction = "mean"  # "sum", as in most papers: the gradient then grows with the number of layers
    # Subtract from the states of each layer their mean over the first training rows, taken before training, so that the
    # differences between rows count. A mean over the batch would depend on how a step is split into forward passes.
    centered: bool = False
    name = "layers"

    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Return requests for the pooled hidden states of all layers that may be matched.

        Raises `ConfigError` for options that exclude each other, `ModelError` for models that cannot be compared.
        """
        layers = self.mapping.layers(student, teacher)
        projection = self.projection.resolved(student.hidden_size, teacher.hidden_size)
        projection.check(student.hidden_size, teacher.hidden_size)
        if self.pooling == "tokens" and (self.attention or projection.kind == "concatenated"):
            raise ConfigError(
                "pooling=tokens does not work with attention over layers or concatenated layers; give pooling=mean."
            )
        if self.pooling == "tokens" and self.centered:
            raise ConfigError("pooling=tokens cannot be combined with centered=true; give pooling=mean, first or last.")
        if self.layer_weights is not None and len(self.layer_weights) != len(layers.student):
            raise ConfigError(
                f"layer_weights has {len(self.layer_weights)} numbers for {len(layers.student)} matched student layers;"
                " give one weight for each."
            )
        if len(set(self.layer_weights or ())) > 1 and projection.kind == "concatenated":
            raise ConfigError(
                "layer_weights was given for concatenated layers, which have one distance and one weight; leave it "
                "out, or give projection=per-layer (rail-kd-l)."
            )
        if not self.mapping.is_paired(layers):
            self._check_unpaired(projection.kind)
        pooling = resolve_pooling(self.pooling, student, teacher)
        return SignalRequests(hidden_request(pooling, layers.student), hidden_request(pooling, layers.teacher))

    def _check_unpaired(self, kind: Kind) -> None:
        """Raise `ConfigError` if these options need layer pairs."""
        if not self.attention:
            raise ConfigError("mapping=all makes no pairs of layers; add attention=true, or give another mapping.")
        if kind in ("per-layer", "concatenated"):
            raise ConfigError(
                f"attention over all layers was given with projection={kind}, which needs pairs of layers; give "
                "projection=shared or none, or another mapping."
            )

    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Return the loss for these models, with newly initialised projections."""
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
        self._rows = 0  # number of rows observed so far
        weights = torch.tensor(term.layer_weights or (1.0,) * count)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        teacher_layers = self._term.mapping.teacher_layers_at(self._layers, progress)
        positions = self._positions(teacher_layers)
        student_states, teacher_states = self._states(student, teacher, teacher_layers)
        if self._term.centered:
            student_states = student_states - self.student_mean
            teacher_states = teacher_states - self.teacher_mean[positions]
        student_states, teacher_states = self.projections(student_states, teacher_states, positions)
        if self._term.attention:
            teacher_states = attention_weighted_teacher(student_states, teacher_states)
        if len(student_states) > 2:  # two rows minus their mean always point in opposite directions
            self.diagnostics = _agreement(
                self._mean_over_tokens(student_states.detach(), student),
                self._mean_over_tokens(teacher_states.detach(), student),
            )
        # [B, m], [B, m, L] for tokens, or [B, 1] for concatenated layers
        distance = self._distance(student_states, teacher_states)
        if not self._term.squared:
            distance = distance.clamp_min(1e-12).sqrt()
        distance = self._mean_over_tokens(distance.unsqueeze(-1), student).squeeze(-1)
        return over_pairs(distance * self.weights[: distance.shape[1]], self._term.reduction)

    def observe(self, student: Signals, teacher: Signals, progress: TrainingProgress) -> None:
        layers = self._term.mapping.teacher_layers_at(self._layers, progress)
        count = len(self._layers.student)
        if len(layers) != count:  # attention over all layers: fit each student layer to the one at its relative depth
            layers = tuple(layers[i * len(layers) // count - 1] for i in range(1, count + 1))
        student_states, teacher_states = self._states(student, teacher, layers)
        if self._pooling == "tokens":
            assert student.mask is not None
            padding = student.mask[:, None, :, None] == 0
            # zeros add nothing to the sums of the regression
            student_states = student_states.masked_fill(padding, 0.0)
            teacher_states = teacher_states.masked_fill(padding, 0.0)
        if self.projections.needs_fit:
            self.projections.observe(student_states, teacher_states, self._positions(layers))
        if self._term.centered:
            self._rows += len(student_states)
            self.student_mean += student_states.sum(0)
            self.teacher_mean += teacher.hidden(self._pooling, self._layers.teacher).sum(0)

    def fit(self) -> None:
        if self.projections.needs_fit:
            self.projections.fit(self._term.centered)
        if self._term.centered:
            self.student_mean /= self._rows
            self.teacher_mean /= self._rows

    def layer_pairs(self, progress: TrainingProgress) -> Sequence[tuple[int, int]]:
        teacher_layers = self._term.mapping.teacher_layers_at(self._layers, progress)
        if self._term.attention:
            return [(s, t) for s in self._layers.student for t in teacher_layers]
        return list(zip(self._layers.student, teacher_layers, strict=True))

    def _states(self, student: Signals, teacher: Signals, teacher_layers: Sequence[int]) -> tuple[Tensor, Tensor]:
        pooling = self._pooling
        return student.hidden(pooling, self._layers.student), teacher.hidden(pooling, teacher_layers)

    def _positions(self, teacher_layers: Sequence[int]) -> list[int]:
        """Return the index of each layer among the candidates, from 0."""
        return [self._layers.teacher.index(layer) for layer in teacher_layers]

    def _mean_over_tokens(self, values: Tensor, student: Signals) -> Tensor:
        """Average [B, m, L, u] over a row's real tokens to [B, m, u]; return pooled values unchanged."""
        if self._pooling != "tokens":
            return values
        assert student.mask is not None
        return mean_over_tokens(values, student.mask[:, None, :, None])


def _agreement(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Compute how much features [B, m, u] differ between rows, and how well the two models agree on the differences.

    feature_variance: variance over rows of the student's unit-length features, summed over u, from 0 (all rows equal)
    to 1. centered_cosine: mean cosine between the features of the two models after subtracting their means over rows; 0
    for unrelated features, at most 1.
    """
    student, teacher = (F.normalize(features, dim=-1) for features in (student, teacher))
    student_centered, teacher_centered = student - student.mean(0), teacher - teacher.mean(0)
    return {
        "feature_variance": student_centered.square().sum(-1).mean(),
        "centered_cosine": F.cosine_similarity(student_centered, teacher_centered, dim=-1).mean(),
    }
