"""ALP-KD: Passban et al. 2021, *Attention-Based Layer Projection for Knowledge Distillation*, arXiv 2012.14022."""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, Reduction, WeightedTerm
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_mapping import AllLayersMapping
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss


@dataclass(frozen=True)
class AlpKD:
    """Every student layer meets a mix of all teacher layers, weighted by attention, by MSE on the first token."""

    task_weight: float = option("weight of the labels' loss", 0.1, at_least=0)
    kd_weight: float = option("weight of the teacher's logits", 0.7, at_least=0)
    layer_weight: float = option("weight of the hidden states", 0.2, at_least=0)
    temperature: float = option("τ", 20.0, above=0)
    final_layer: bool = option("match the last layers too", False)
    reduction: Reduction = option("mean or sum over the student's layers", "mean")

    def method(self) -> Method:
        """The three terms."""
        layers = LayerDistillation(
            AllLayersMapping(self.final_layer), "first", "mse", attention=True, reduction=self.reduction
        )
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(self.kd_weight, LogitDistillation(self.temperature)),
                WeightedTerm(self.layer_weight, layers),
            )
        )
