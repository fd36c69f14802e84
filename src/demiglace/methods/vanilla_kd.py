"""Vanilla KD: Hinton, Vinyals, Dean 2015, *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531."""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.logits import LogitDistillation, TaskLoss


@dataclass(frozen=True)
class VanillaKD:
    """λ·CE + (1 − λ)·τ²·KL(σ(z_T/τ) ‖ σ(z_S/τ))."""

    task_weight: float = option("λ, weight of the loss on the labels", 0.5, at_least=0, at_most=1)
    temperature: float = option("τ, softmax temperature; papers use 1 to 20", 2.0, above=0)

    def method(self) -> Method:
        """Return the method with its two loss terms."""
        return Method(
            (
                WeightedTerm(self.task_weight, TaskLoss()),
                WeightedTerm(1 - self.task_weight, LogitDistillation(self.temperature)),
            )
        )
