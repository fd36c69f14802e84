"""CKD: Wu et al. 2020, *Why Skip If You Can Combine: A Simple Knowledge Distillation Technique for Intermediate
Layers*, arXiv 2010.03034.

The paper describes translation models and compares the states of tokens. Here the pooled states of a row are compared.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, Reduction, WeightedTerm
from demiglace.methods.terms.layer_buckets import BucketDistillation
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.models.pooling import POOLING_HELP, PoolingOption


@dataclass(frozen=True)
class CombinationKD:
    """λ1·CE + λ2·KD + λ3·mean_i MSE(h_i^S, W_i [h_j^T; j in bucket i]).

    The buckets contain all teacher layers but the last; final_layer=True adds the last one.
    """

    task_weight: float = option("λ1, weight of the loss on the labels", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, weight of the loss on the teacher's logits", 1 / 3, at_least=0)
    layer_weight: float = option("λ3, weight of the loss on the hidden states", 1 / 3, at_least=0)
    temperature: float = option("τ, softmax temperature", 2.0, above=0)
    pooling: PoolingOption = option(POOLING_HELP, "auto")
    overlapping: bool = option("let each bucket include the first layer of the next bucket", False)
    final_layer: bool = option("match the last layers as well", False)
    reduction: Reduction = option("mean or sum of the distances over the student's layers", "mean")

    def method(self) -> Method:
        """Return the method with its three loss terms."""
        layers = BucketDistillation(self.pooling, self.overlapping, self.final_layer, self.reduction)
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, LogitDistillation(self.temperature)),
                WeightedTerm(self.layer_weight, layers),
            )
        )
