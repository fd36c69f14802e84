"""ALP-KD: Passban et al. 2021, *Attention-Based Layer Projection for Knowledge Distillation*, arXiv 2012.14022."""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, Reduction, WeightedTerm
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_mapping import AllLayersMapping
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss


@dataclass(frozen=True)
class AlpKD:
    """Match each student layer, by MSE on the first token, with an attention-weighted mix of all teacher layers.

    The loss is task_weight·CE + kd_weight·τ²·KL + layer_weight·mean_i MSE(h_i^S, C_i) with
    C_i = Σ_j softmax_j(h_i^S · h_j^T) h_j^T.
    """

    task_weight: float = option("weight of the loss on the labels", 0.1, at_least=0)
    kd_weight: float = option("weight of the loss on the teacher's logits", 0.7, at_least=0)
    layer_weight: float = option("weight of the loss on the hidden states", 0.2, at_least=0)
    temperature: float = option("τ, softmax temperature", 20.0, above=0)
    final_layer: bool = option("match the last layers as well", False)
    reduction: Reduction = option("mean or sum of the distances over the student's layers", "mean")

    def method(self) -> Method:
        """Return the method with its three loss terms."""
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
