"""PKD: Sun et al. 2019, *Patient Knowledge Distillation for BERT Model Compression*, arXiv 1908.09355."""

from dataclasses import dataclass
from typing import Literal

from demiglace.config.options import option
from demiglace.methods.base import Method, Reduction, WeightedTerm
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_mapping import Last, Skip
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.methods.terms.projection import Projection


@dataclass(frozen=True)
class PKD:
    """(1 − α)·CE + α·KD + β·mean_i ‖h_i^S/‖h_i^S‖ − h_I(i)^T/‖h_I(i)^T‖‖² on the first token ([CLS]), eq. 8.

    The squared differences are averaged over layers and summed over the d dimensions of a hidden state. The authors'
    code averages over both, so β here is the β of that code divided by d: 100 / 768 ≈ 0.13. That code also divides the
    KD term by the number of classes; here it is not divided. The paper compares models of one width; a narrower
    student's states are mapped to the teacher's width by a trained linear map for each layer.
    """

    mapping: Literal["skip", "last"] = option(
        "teacher layers to match: every (n/m)-th layer, or the last layers", "skip"
    )
    alpha: float = option("α, weight of the loss on the teacher's logits", 0.5, at_least=0, at_most=1)
    beta: float = option("β, weight of the loss on the hidden states", 0.13, at_least=0)
    temperature: float = option("τ, softmax temperature", 5.0, above=0)
    final_layer: bool = option("match the last layers as well", False)
    reduction: Reduction = option("mean (as in the authors' code) or sum (as in the paper) over layer pairs", "mean")

    def method(self) -> Method:
        """Return the method with its three loss terms."""
        mapping = Skip(self.final_layer) if self.mapping == "skip" else Last(self.final_layer)
        to_teacher = Projection("auto", teacher=False)
        layers = LayerDistillation(mapping, "first", "normalized-squared", to_teacher, reduction=self.reduction)
        return Method(
            (
                WeightedTerm(1 - self.alpha, TaskLoss()),
                WeightedTerm(self.alpha, LogitDistillation(self.temperature)),
                WeightedTerm(self.beta, layers),
            )
        )
