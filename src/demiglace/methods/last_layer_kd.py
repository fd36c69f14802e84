"""Last-layer KD: Ko et al. 2023, *Revisiting Intermediate Layer Distillation for Compressing Language Models: An
Overfitting Perspective*, arXiv 2302.01530: matching the last layers alone overfits less than matching all of them.

Deviation: pooled states by their normalised distance, as in the other methods here, where the paper compares every
token's state and the attention maps; its consistency regularisation is left out.
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
    """λ1·CE + λ2·KD + λ3·‖h̄_m^S/‖h̄_m^S‖ − h̄_n^T/‖h̄_n^T‖‖², the last layers' states."""

    task_weight: float = option("λ1, the weight of the labels' loss", 1 / 3, at_least=0)
    kd_weight: float = option("λ2, the weight of the teacher's logits", 1 / 3, at_least=0)
    layer_weight: float = option("λ3, the weight of the hidden states", 1 / 3, at_least=0)
    temperature: float = option("τ", 2.0, above=0)
    pooling: StateOption = option(f"{POOLING_HELP}; tokens: no pooling", "auto")

    def method(self) -> Method:
        """Return the three terms."""
        layers = LayerDistillation(Final(), self.pooling, "normalised-squared", Projection("auto"))
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, LogitDistillation(self.temperature)),
                WeightedTerm(self.layer_weight, layers),
            )
        )
