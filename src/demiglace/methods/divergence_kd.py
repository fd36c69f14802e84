"""Reverse KL: Gu et al. 2024, *MiniLLM: Knowledge Distillation of Large Language Models*, arXiv 2306.08543.

Here on the rows' own labels and outputs: for classifiers there is nothing to sample from the student.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.logits import Divergence, LogitDistillation, TaskLoss


def divergence_method(task_weight: float, temperature: float, divergence: Divergence, mix: float = 0.5) -> Method:
    """λ·CE + (1 − λ)·divergence."""
    return Method(
        (
            WeightedTerm(task_weight, TaskLoss()),
            WeightedTerm(1 - task_weight, LogitDistillation(temperature, divergence, mix)),
        )
    )


@dataclass(frozen=True)
class ReverseKL:
    """λ·CE + (1 − λ)·τ²·KL(σ(z_S/τ) ‖ σ(z_T/τ)); on regression the squared error of the outputs."""

    task_weight: float = option("λ, the weight of the labels' loss", 0.5, at_least=0, at_most=1)
    temperature: float = option("τ", 1.0, above=0)

    def method(self) -> Method:
        """The two terms."""
        return divergence_method(self.task_weight, self.temperature, "reverse-kl")


@dataclass(frozen=True)
class JensenShannon:
    """λ·CE + (1 − λ)·τ²·(β·KL(p ‖ m) + (1 − β)·KL(q ‖ m)), m = β·p + (1 − β)·q; on regression the squared error."""

    task_weight: float = option("λ, the weight of the labels' loss", 0.5, at_least=0, at_most=1)
    beta: float = option("β, the teacher's share of the mixture", 0.5, above=0, below=1)
    temperature: float = option("τ", 1.0, above=0)

    def method(self) -> Method:
        """The two terms."""
        return divergence_method(self.task_weight, self.temperature, "jsd", self.beta)


@dataclass(frozen=True)
class SkewKL:
    """α·CE + (1 − α)·τ²·KL(p ‖ λ·p + (1 − λ)·q); on regression the squared error of the outputs."""

    task_weight: float = option("α, the weight of the labels' loss", 0.5, at_least=0, at_most=1)
    skew: float = option("λ, the teacher's share of the mixture", 0.1, at_least=0, below=1)
    temperature: float = option("τ", 1.0, above=0)

    def method(self) -> Method:
        """The two terms."""
        return divergence_method(self.task_weight, self.temperature, "skew-kl", self.skew)


@dataclass(frozen=True)
class SkewReverseKL:
    """α·CE + (1 − α)·τ²·KL(q ‖ (1 − λ)·p + λ·q); on regression the squared error of the outputs."""

    task_weight: float = option("α, the weight of the labels' loss", 0.5, at_least=0, at_most=1)
    skew: float = option("λ, the student's share of the mixture", 0.1, at_least=0, below=1)
    temperature: float = option("τ", 1.0, above=0)

    def method(self) -> Method:
        """The two terms."""
        return divergence_method(self.task_weight, self.temperature, "skew-reverse-kl", self.skew)
