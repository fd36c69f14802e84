"""Universal-KD: Wu et al. 2021, *Universal-KD: Attention-based Output-Grounded Intermediate Layer Knowledge
Distillation*, EMNLP 2021.

Deviation: the teacher's classifiers learn from the teacher's own logits, beside the student and in the same run, so
that rows without labels serve them too; the paper trains them beforehand. It is for classifiers (--data) only.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, Reduction, WeightedTerm
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss
from demiglace.methods.terms.pseudo_classifiers import PseudoClassifierDistillation
from demiglace.models.pooling import POOLING_HELP, PoolingOption


@dataclass(frozen=True)
class UniversalKD:
    """(1 − γ)/2·(CE + KD) + γ·mean_i KL(C_i ‖ v_i^S), v the outputs of classifiers on layers.

    C_i is the mix of the teacher's by attention.
    """

    gamma: float = option("γ, the weight of the layers", 0.5, at_least=0, at_most=1)
    temperature: float = option("τ", 1.0, above=0)
    pooling: PoolingOption = option(POOLING_HELP, "auto")
    final_layer: bool = option("match the last layers too", False)
    reduction: Reduction = option("mean or sum over the layers", "mean")

    def method(self) -> Method:
        """The three terms."""
        layers = PseudoClassifierDistillation(self.pooling, self.temperature, self.final_layer, self.reduction)
        rest = (1 - self.gamma) / 2
        return Method(
            (
                WeightedTerm(rest, TaskLoss()),
                WeightedTerm(rest, LogitDistillation(self.temperature)),
                WeightedTerm(self.gamma, layers),
            )
        )
