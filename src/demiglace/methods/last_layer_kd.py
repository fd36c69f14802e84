"""Last-layer KD: Ko et al. 2023, *Revisiting Intermediate Layer Distillation for Compressing Language Models: An
Overfitting Perspective*, arXiv 2302.01530.

The paper finds that matching only the last layers overfits less than matching all layers.

Deviations: pooled states are compared by their normalized distance, as in the other methods here; the paper compares
the state of every token and the attention maps. The paper's consistency regularisation is not implemented.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_mapping import Final
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.methods.terms.projection import Projection
from demiglace.models.pooling import POOLING_HELP, StateOption


@dataclass(frozen=True)
class LastLayerKD:
    """λ1·CE + λ2·KD + λ3·‖h̄_m^S/‖h̄_m^S‖ − h̄_n^T/‖h̄_n^T‖‖² with the states of the last layers m and n."""

    task_weight: float = option("λ1, weight of the loss on the labels", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, weight of the loss on the teacher's logits", 1 / 3, at_least=0)
    layer_weight: float = option("λ3, weight of the loss on the hidden states", 1 / 3, at_least=0)
    temperature: float = option("τ, softmax temperature", 2.0, above=0)
    pooling: StateOption = option(f"{POOLING_HELP}; tokens: no pooling", "auto")

    def method(self) -> Method:
        """Return the method with its three loss terms."""
        layers = LayerDistillation(Final(), self.pooling, "normalized-squared", Projection("auto"))
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, LogitDistillation(self.temperature)),
                WeightedTerm(self.layer_weight, layers),
            )
        )
