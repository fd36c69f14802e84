"""Pseudo-labels: Lee 2013, *Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural
Networks*. The teacher's most likely class is the label: a baseline for what its full distribution adds.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss


@dataclass(frozen=True)
class PseudoLabels:
    """λ·CE(y) + (1 − λ)·CE(argmax z_T); squared errors on regression."""

    task_weight: float = option("λ, the weight of the labels' loss", 0.5, at_least=0, at_most=1)

    def method(self) -> Method:
        """Return the two terms."""
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(1 - self.task_weight, LogitDistillation(divergence="hard")),
            )
        )
