"""RAIL-KD: Haidar et al. 2022, *RAndom Intermediate Layer Mapping for Knowledge Distillation*, arXiv 2109.10164.

Both variants take their options from here; each has its own file with its own choice of projection.
"""

from dataclasses import dataclass

from demiglace.config import option
from demiglace.methods.base import Method, Weighted
from demiglace.methods.layers import LayerDistillation
from demiglace.methods.mapping import RandomSorted, Sampling
from demiglace.methods.outputs import LogitDistillation, TaskLoss
from demiglace.methods.projection import Projection, Trained
from demiglace.models.pooling import Pooling


@dataclass(frozen=True)
class RailOptions:
    """λ1·CE + λ2·KD + λ3·RAIL, the weights and the random mapping."""

    task_weight: float = option("λ1, the weight of the labels' loss", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, the weight of the teacher's logits", 1 / 3, at_least=0)
    layer_weight: float = option("λ3, the weight of the hidden states", 1 / 3, at_least=0)
    temperature: float = option("τ; implementations use 1 and 10", 2.0, above=0)
    sampling: Sampling = option("when teacher layers are drawn anew; block: one of each block every epoch", "epoch")
    final_layer: bool = option("let the last layers take part", False)
    pooling: Pooling = option("mean over real tokens, the first or the last of them", "mean")
    layer_weights: tuple[float, ...] | None = option("α_i of the student layers that take part; none: 1 each", None)
    squared: bool = option("squared distances; false: their roots", True)
    size: int = option("u, the size that hidden states are projected to; 8 to 128 seen", 128, at_least=1)
    trained: Trained = option("whose projections are trained; the others keep their random start", "both")
    project_teacher: bool = option("false: the student is projected to the teacher's width instead", True)


def rail_method(options: RailOptions, projection: Projection) -> Method:
    """The three terms of both variants."""
    layers = LayerDistillation(
        mapping=RandomSorted(options.sampling, options.final_layer),
        pooling=options.pooling,
        distance="normalised-squared",
        projection=projection,
        layer_weights=None if options.layer_weights is None else tuple(options.layer_weights),
        squared=options.squared,
    )
    return Method(
        (
            Weighted(options.task_weight, TaskLoss()),
            Weighted(options.kd_weight, LogitDistillation(options.temperature)),
            Weighted(options.layer_weight, layers),
        )
    )
