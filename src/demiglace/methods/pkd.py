"""PKD: Sun et al. 2019, *Patient Knowledge Distillation for BERT Model Compression*, arXiv 1908.09355."""

from dataclasses import dataclass
from typing import Literal

from demiglace.config.options import option
from demiglace.methods.base import Method, Reduction, WeightedTerm
from demiglace.methods.terms.hidden_states import LayerDistillation
from demiglace.methods.terms.layer_mapping import Last, Skip
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss


@dataclass(frozen=True)
class PKD:
    """(1 − α)·CE + α·KD + β·mean_i ‖h_i^S/‖h_i^S‖ − h_I(i)^T/‖h_I(i)^T‖‖² on the first token ([CLS]), eq. 8.

    The authors' code averages the squared differences over layers and over the d numbers of a hidden state; here they
    are averaged over layers and summed over d. So β is the paper's divided by d: 100 / 768 ≈ 0.13. Their code also
    divides the KD term by the number of classes, which α does not here.
    """

    mapping: Literal["skip", "last"] = option("teacher layers: every (n/m)-th, or the last ones", "skip")
    alpha: float = option("α, the weight of the teacher's logits", 0.5, at_least=0, at_most=1)
    beta: float = option("β, the weight of the hidden states", 0.13, at_least=0)
    temperature: float = option("τ", 5.0, above=0)
    final_layer: bool = option("match the last layers too", False)
    reduction: Reduction = option("mean (the authors' code) or sum (the paper's equation) over pairs of layers", "mean")

    def method(self) -> Method:
        """The three terms."""
        mapping = Skip(self.final_layer) if self.mapping == "skip" else Last(self.final_layer)
        layers = LayerDistillation(mapping, "first", "normalised-squared", reduction=self.reduction)
        return Method(
            (
                WeightedTerm(1 - self.alpha, TaskLoss()),
                WeightedTerm(self.alpha, LogitDistillation(self.temperature)),
                WeightedTerm(self.beta, layers),
            )
        )
