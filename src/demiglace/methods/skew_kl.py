"""Skew KL: Ko et al. 2024, *DistiLLM: Towards Streamlined Distillation for Large Language Models*, arXiv 2402.03898."""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method
from demiglace.methods.divergence import divergence_method


@dataclass(frozen=True)
class SkewKL:
    """α·CE + (1 − α)·τ²·KL(p ‖ λ·p + (1 − λ)·q); on regression the squared error of the outputs."""

    task_weight: float = option("α, the weight of the labels' loss", 0.5, at_least=0, at_most=1)
    skew: float = option("λ, the teacher's share of the mixture", 0.1, at_least=0, below=1)
    temperature: float = option("τ", 1.0, above=0)

    def method(self) -> Method:
        """The two terms."""
        return divergence_method(self.task_weight, self.temperature, "skew-kl", self.skew)
