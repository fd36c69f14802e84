"""RAIL-KD: Haidar et al. 2022, *RAndom Intermediate Layer Mapping for Knowledge Distillation*, arXiv 2109.10164.

In every epoch as many teacher layers as the student has are sampled and matched in order. There are two variants:

- `rail-kd-l` (RAIL-KD_l, layer-wise, sec. 3.1): each pair of layers is compared separately.
- `rail-kd-c` (RAIL-KD_c, concatenated, sec. 3.2): the layers of each model are concatenated and compared once.
"""

from dataclasses import dataclass, fields
from typing import Literal

from demiglace.config.options import group, option
from demiglace.errors import ConfigError
from demiglace.methods.base import Method, Reduction, WeightedTerm
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_mapping import RandomSorted, Sampling
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.methods.terms.projection import Kind, Projection, Start, TrainableSide
from demiglace.models.pooling import POOLING_HELP, StateOption

_OF_PROJECTIONS = ("size", "start", "trained", "project_teacher")


@dataclass(frozen=True)
class RailLayerOptions:
    """Options of the loss on hidden states: which layers are matched, and how they are compared."""

    sampling: Sampling = option(
        "how often teacher layers are sampled; block: one layer of each block, every epoch", "epoch"
    )
    final_layer: bool = option("include the last layers", False)
    count: int | None = option("number of student layers to match, evenly spaced; none: all", None, at_least=1)
    pooling: StateOption = option(f"{POOLING_HELP}; tokens: no pooling", "auto")
    layer_weights: tuple[float, ...] | None = option(
        "α_i, one weight for each matched student layer; none: 1 each", None
    )
    reduction: Reduction = option("mean over layer pairs, or sum as in the paper", "mean")
    squared: bool = option("use squared distances; false: use their square roots", True)
    size: int = option("u, width that hidden states are projected to; published runs use 8 to 128", 128, at_least=1)
    start: Start = option(
        "initial projections; matched: related states start close together; random: independent maps, as in other code",
        "matched",
    )
    trained: TrainableSide = option("model whose projections are trained; the others keep their initial values", "both")
    project_teacher: bool = option(
        "project both models to `size`; false: project the student to the teacher's width", True
    )

    def term(self, kind: Kind) -> LayerDistillation:
        """Return the loss term on hidden states with this kind of projection.

        `auto` becomes `per-layer` if an option of projections differs from its default. Raises `ConfigError` if such an
        option is given with `none`.
        """
        given = [f.name for f in fields(self) if f.name in _OF_PROJECTIONS and getattr(self, f.name) != f.default]
        if given and kind == "none":
            raise ConfigError(
                f"{', '.join(given)} was given with projection=none, which has no projections; leave it out, or "
                "give projection=per-layer."
            )
        if given and kind == "auto":
            kind = "per-layer"
        return LayerDistillation(
            mapping=RandomSorted(self.sampling, self.final_layer, self.count),
            pooling=self.pooling,
            distance="normalized-squared",
            projection=Projection(kind, self.size, self.trained, self.project_teacher, self.start),
            layer_weights=None if self.layer_weights is None else tuple(self.layer_weights),
            squared=self.squared,
            reduction=self.reduction,
        )


@dataclass(frozen=True)
class RailOptions:
    """Options of λ1·CE + λ2·KD + λ3·RAIL, shared by both variants."""

    task_weight: float = option("λ1, weight of the loss on the labels", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, weight of the loss on the teacher's logits", 1 / 3, at_least=0)
    layer_weight: float = option("λ3, weight of the loss on the hidden states", 1 / 3, at_least=0)
    temperature: float = option("τ, softmax temperature; published code uses 1 and 10", 2.0, above=0)
    layers: RailLayerOptions = group(RailLayerOptions)

    def method(self, kind: Kind) -> Method:
        """Return the method with its three loss terms, with this kind of projection."""
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, LogitDistillation(self.temperature)),
                WeightedTerm(self.layer_weight, self.layers.term(kind)),
            )
        )


@dataclass(frozen=True)
class RailKDLayerwise:
    """λ1·CE + λ2·KD + λ3·mean_i α_i ‖ĥ_i^T/‖ĥ_i^T‖ − ĥ_i^S/‖ĥ_i^S‖‖² with ĥ_i = W_i h̄_i."""

    projection: Literal["auto", "per-layer", "shared", "none"] = option(
        "one W for each layer, one for all layers, or none; auto: none for equal widths, else per-layer", "auto"
    )
    rail: RailOptions = group(RailOptions)

    def method(self) -> Method:
        """Return the method with its three loss terms."""
        return self.rail.method(self.projection)


@dataclass(frozen=True)
class RailKDConcatenated:
    """λ1·CE + λ2·KD + λ3·‖ĥ^T/‖ĥ^T‖ − ĥ^S/‖ĥ^S‖‖² with ĥ = W [h̄_1; …; h̄_m]."""

    rail: RailOptions = group(RailOptions)

    def method(self) -> Method:
        """Return the method with its three loss terms."""
        return self.rail.method("concatenated")
