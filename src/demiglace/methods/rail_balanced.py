"""RAIL-KD without the parts that held it back, demiglace's own variant.

States are compared without a projection where widths are equal, less their mean over rows, and averaged over the pairs
of layers. The term guides the first half of training and leaves the second half to the labels and the teacher's logits.
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

    The mean is that of each model's layer over the first training rows, before training. t is the share of the steps
    done, T the share at which the layers' weight has fallen to 0.
    """

    task_weight: float = option("λ1, the weight of the labels' loss", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, the weight of the teacher's logits", 1 / 3, at_least=0)
    layer_weight: float = option("λ3, the weight of the hidden states at the start", 1 / 3, at_least=0)
    layers_until: float = option("T, the share of the steps at which that weight is 0", 0.5, above=0, at_most=1)
    temperature: float = option("τ", 2.0, above=0)
    sampling: Sampling = option("when teacher layers are drawn; block: one of each block every epoch", "epoch")
    final_layer: bool = option("match the last layers too", False)
    pooling: PoolingOption = option(POOLING_HELP, "auto")

    def method(self) -> Method:
        """Return the three terms."""
        layers = LayerDistillation(
            RandomSorted(self.sampling, self.final_layer),
            self.pooling,
            "normalised-squared",
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
