"""Universal-KD: Wu et al. 2021, *Universal-KD: Attention-based Output-Grounded Intermediate Layer Knowledge
Distillation*, EMNLP 2021.

Deviation: the classifiers on the teacher's layers are trained on the teacher's logits during the run, so they also use
rows without labels. The paper trains them beforehand. The method is for classifiers (--data) only.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, Reduction, WeightedTerm
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.methods.terms.pseudo_classifiers import PseudoClassifierDistillation
from demiglace.models.pooling import POOLING_HELP, PoolingOption


@dataclass(frozen=True)
class UniversalKD:
    """(1 − γ)/2·(CE + KD) + γ·mean_i KL(C_i ‖ v_i^S).

    v are the outputs of linear classifiers on the layers. C_i is the attention-weighted mix of the teacher's outputs.
    """

    gamma: float = option("γ, weight of the loss on the layers, between 0 and 1", 0.5, at_least=0, at_most=1)
    temperature: float = option("τ, softmax temperature", 1.0, above=0)
    pooling: PoolingOption = option(POOLING_HELP, "auto")
    final_layer: bool = option("match the last layers as well", False)
    reduction: Reduction = option("mean or sum of the distances over the layers", "mean")

    def method(self) -> Method:
        """Return the method with its three loss terms."""
        layers = PseudoClassifierDistillation(self.pooling, self.temperature, self.final_layer, self.reduction)
        rest = (1 - self.gamma) / 2
        return Method(
            (
                WeightedTerm(rest, TaskLoss()),
                WeightedTerm(rest, LogitDistillation(self.temperature)),
                WeightedTerm(self.gamma, layers),
            )
        )
