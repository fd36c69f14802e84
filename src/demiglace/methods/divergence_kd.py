"""Reverse KL: Gu et al. 2024, *MiniLLM: Knowledge Distillation of Large Language Models*, arXiv 2306.08543.

Here on the rows' own labels and outputs: for classifiers there is nothing to sample from the student.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method
from demiglace.methods.divergence import divergence_method


@dataclass(frozen=True)
class ReverseKL:
    """λ·CE + (1 − λ)·τ²·KL(σ(z_S/τ) ‖ σ(z_T/τ)); on regression the squared error of the outputs."""

    task_weight: float = option("λ, the weight of the labels' loss", 0.5, at_least=0, at_most=1)
    temperature: float = option("τ", 1.0, above=0)

    def method(self) -> Method:
        """The two terms."""
        return divergence_method(self.task_weight, self.temperature, "reverse-kl")
