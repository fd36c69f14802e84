"""RAIL-balanced: a variant of RAIL-KD by demiglace, after Haidar et al. 2022, arXiv 2109.10164.

It differs from RAIL-KD in three ways. States of equal widths are compared without a projection. The mean over rows is
subtracted from the states. The weight of the layers falls to 0 in the first half of training, so that the second half
trains on the labels and the teacher's logits.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_mapping import RandomSorted, Sampling
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.methods.terms.projection import Projection
from demiglace.methods.terms.scheduled import ScheduledTerm
from demiglace.models.pooling import POOLING_HELP, PoolingOption


@dataclass(frozen=True)
class RailBalanced:
    """λ1·CE + λ2·KD + λ3·max(0, 1 − t/T)·mean_i ‖ĥ_i^T/‖ĥ_i^T‖ − ĥ_i^S/‖ĥ_i^S‖‖² with ĥ = h̄ − its mean.

    The mean is taken over the first training rows, before training, for each layer of each model. t is the share of
    training steps done, T the share at which the weight of the layers reaches 0.
    """

    task_weight: float = option("λ1, weight of the loss on the labels", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, weight of the loss on the teacher's logits", 1 / 3, at_least=0)
    layer_weight: float = option("λ3, weight of the loss on the hidden states at the first step", 1 / 3, at_least=0)
    layers_until: float = option(
        "T, share of the training steps after which layer_weight is 0, between 0 and 1", 0.5, above=0, at_most=1
    )
    temperature: float = option("τ, softmax temperature", 2.0, above=0)
    sampling: Sampling = option(
        "how often teacher layers are sampled; block: one layer of each block, every epoch", "epoch"
    )
    final_layer: bool = option("match the last layers as well", False)
    pooling: PoolingOption = option(POOLING_HELP, "auto")

    def method(self) -> Method:
        """Return the method with its three loss terms."""
        layers = LayerDistillation(
            RandomSorted(self.sampling, self.final_layer),
            self.pooling,
            "normalized-squared",
            Projection("auto"),
            centered=True,
        )
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, LogitDistillation(self.temperature)),
                WeightedTerm(self.layer_weight, ScheduledTerm(layers, "falling", self.layers_until)),
            )
        )
