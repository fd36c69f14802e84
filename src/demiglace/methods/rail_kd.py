"""RAIL-KD: Haidar et al. 2022, *RAndom Intermediate Layer Mapping for Knowledge Distillation*, arXiv 2109.10164.

Both variants take their options from here; each has its own file with its own choice of projection.
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
    """RAIL's own part: which layers meet, and how they are compared."""

    sampling: Sampling = option("when teacher layers are drawn; block: one of each block every epoch", "epoch")
    final_layer: bool = option("let the last layers take part", False)
    count: int | None = option("how many student layers take part; none: all", None, at_least=1)
    pooling: StateOption = option(f"{POOLING_HELP}; tokens: no pooling", "auto")
    layer_weights: tuple[float, ...] | None = option("α_i of the student layers that take part; none: 1 each", None)
    reduction: Reduction = option("mean over the pairs of layers, or their sum as in the paper", "mean")
    squared: bool = option("squared distances; false: their roots", True)
    size: int = option("u, the size that hidden states are projected to; 8 to 128 seen", 128, at_least=1)
    start: Start = option(
        "projections at the start; matched: related states are near; random: unrelated (as implementations have it)",
        "matched",
    )
    trained: TrainableSide = option("whose projections are trained; the others keep their start", "both")
    project_teacher: bool = option("false: the student is projected to the teacher's width instead", True)

    def term(self, kind: Kind) -> LayerDistillation:
        """Return the term on hidden states with this kind of projection; `auto` projects if an option of it is given.

        Raises `ConfigError` for options of projections where there are none.
        """
        given = [f.name for f in fields(self) if f.name in _OF_PROJECTIONS and getattr(self, f.name) != f.default]
        if given and kind == "none":
            raise ConfigError(
                f"{', '.join(given)} was given with projection=none, which has no maps; leave that out, or take "
                "projection=per-layer."
            )
        if given and kind == "auto":
            kind = "per-layer"
        return LayerDistillation(
            mapping=RandomSorted(self.sampling, self.final_layer, self.count),
            pooling=self.pooling,
            distance="normalised-squared",
            projection=Projection(kind, self.size, self.trained, self.project_teacher, self.start),
            layer_weights=None if self.layer_weights is None else tuple(self.layer_weights),
            squared=self.squared,
            reduction=self.reduction,
        )


@dataclass(frozen=True)
class RailOptions:
    """λ1·CE + λ2·KD + λ3·RAIL."""

    task_weight: float = option("λ1, the weight of the labels' loss", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, the weight of the teacher's logits", 1 / 3, at_least=0)
    layer_weight: float = option("λ3, the weight of the hidden states", 1 / 3, at_least=0)
    temperature: float = option("τ; implementations use 1 and 10", 2.0, above=0)
    layers: RailLayerOptions = group(RailLayerOptions)

    def method(self, kind: Kind) -> Method:
        """The three terms, with this kind of projection."""
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
        "one W for each layer, one for all, or none; auto: none at equal widths, else per-layer", "auto"
    )
    rail: RailOptions = group(RailOptions)

    def method(self) -> Method:
        """The three terms."""
        return self.rail.method(self.projection)


@dataclass(frozen=True)
class RailKDConcatenated:
    """λ1·CE + λ2·KD + λ3·‖ĥ^T/‖ĥ^T‖ − ĥ^S/‖ĥ^S‖‖² with ĥ = W [h̄_1; …; h̄_m]."""

    rail: RailOptions = group(RailOptions)

    def method(self) -> Method:
        """The three terms."""
        return self.rail.method("concatenated")
