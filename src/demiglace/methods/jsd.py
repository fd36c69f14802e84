"""Generalised JSD: Agarwal et al. 2024, *On-Policy Distillation of Language Models* (GKD), arXiv 2306.13649."""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method
from demiglace.methods.divergence import divergence_method


@dataclass(frozen=True)
class JensenShannon:
    """λ·CE + (1 − λ)·τ²·(β·KL(p ‖ m) + (1 − β)·KL(q ‖ m)), m = β·p + (1 − β)·q; on regression the squared error."""

    task_weight: float = option("λ, the weight of the labels' loss", 0.5, at_least=0, at_most=1)
    beta: float = option("β, the teacher's share of the mixture", 0.5, above=0, below=1)
    temperature: float = option("τ", 1.0, above=0)

    def method(self) -> Method:
        """The two terms."""
        return divergence_method(self.task_weight, self.temperature, "jsd", self.beta)
