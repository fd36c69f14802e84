"""CKD: Wu et al. 2020, *Why Skip If You Can Combine: A Simple Knowledge Distillation Technique for Intermediate
Layers*, arXiv 2010.03034.

Stated for translation models; for classifiers the pooled states of a row stand for those of its tokens.
"""

from dataclasses import dataclass

from demiglace.config import option
from demiglace.methods.base import Method, Weighted
from demiglace.methods.buckets import BucketDistillation
from demiglace.methods.outputs import LogitDistillation, TaskLoss
from demiglace.models.pooling import POOLING_HELP, PoolingOption


@dataclass(frozen=True)
class CombinationKD:
    """λ1·CE + λ2·KD + λ3·Σ_i MSE(h_i^S, W_i [h_j^T; j in bucket i]): no teacher layer is left out."""

    task_weight: float = option("λ1, the weight of the labels' loss", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, the weight of the teacher's logits", 1 / 3, at_least=0)
    layer_weight: float = option("λ3, the weight of the hidden states", 1 / 3, at_least=0)
    temperature: float = option("τ", 2.0, above=0)
    pooling: PoolingOption = option(POOLING_HELP, "auto")
    overlapping: bool = option("each bucket also holds the first layer of the next", False)
    final_layer: bool = option("let the last layers take part", False)

    def method(self) -> Method:
        """The three terms."""
        return Method(
            (
                Weighted(self.task_weight, TaskLoss()),
                Weighted(self.kd_weight, LogitDistillation(self.temperature)),
                Weighted(self.layer_weight, BucketDistillation(self.pooling, self.overlapping, self.final_layer)),
            )
        )
