"""CKD: Wu et al. 2020, *Why Skip If You Can Combine: A Simple Knowledge Distillation Technique for Intermediate
Layers*, arXiv 2010.03034.

Stated for translation models; for classifiers the pooled states of a row replace those of its tokens.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, Reduction, WeightedTerm
from demiglace.methods.terms.layer_buckets import BucketDistillation
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.models.pooling import POOLING_HELP, PoolingOption


@dataclass(frozen=True)
class CombinationKD:
    """λ1·CE + λ2·KD + λ3·mean_i MSE(h_i^S, W_i [h_j^T; j in bucket i]); all teacher layers but the last are in buckets.

    The last one takes part with final_layer=True.
    """

    task_weight: float = option("λ1, the weight of the labels' loss", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, the weight of the teacher's logits", 1 / 3, at_least=0)
    layer_weight: float = option("λ3, the weight of the hidden states", 1 / 3, at_least=0)
    temperature: float = option("τ", 2.0, above=0)
    pooling: PoolingOption = option(POOLING_HELP, "auto")
    overlapping: bool = option("each bucket also holds the first layer of the next", False)
    final_layer: bool = option("match the last layers too", False)
    reduction: Reduction = option("mean or sum over the student's layers", "mean")

    def method(self) -> Method:
        """Return the three terms."""
        layers = BucketDistillation(self.pooling, self.overlapping, self.final_layer, self.reduction)
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, LogitDistillation(self.temperature)),
                WeightedTerm(self.layer_weight, layers),
            )
        )
