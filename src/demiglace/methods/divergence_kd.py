"""Logit distillation with other divergences than KL(teacher ‖ student).

- `reverse-kl`: Gu et al. 2024, *MiniLLM: Knowledge Distillation of Large Language Models*, arXiv 2306.08543.
- `jsd`: Agarwal et al. 2024, *On-Policy Distillation of Language Models* (GKD), arXiv 2306.13649.
- `skew-kl` and `skew-reverse-kl`: Ko et al. 2024, *DistiLLM*, arXiv 2402.03898.

The papers also train on text that the student generates. Here all terms are computed on the training examples: a
classifier generates no text. p is the teacher's distribution σ(z_T/τ), q the student's σ(z_S/τ). Regression uses the
squared error of the outputs instead.
"""

from dataclasses import dataclass

from demiglace.config.options import option
from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.logits import Divergence, LogitDistillation, TaskLoss


def divergence_method(task_weight: float, temperature: float, divergence: Divergence, beta: float = 0.5) -> Method:
    """Return the method λ·CE + (1 − λ)·divergence, λ = task_weight; beta: β of `jsd`, λ of the skewed divergences."""
    return Method(
        (
            WeightedTerm(task_weight, TaskLoss()),
            WeightedTerm(1 - task_weight, LogitDistillation(temperature, divergence, beta)),
        )
    )


@dataclass(frozen=True)
class ReverseKL:
    """λ·CE + (1 − λ)·τ²·KL(q ‖ p) (MiniLLM, arXiv 2306.08543)."""

    task_weight: float = option("λ, weight of the loss on the labels", 0.5, at_least=0, at_most=1)
    temperature: float = option("τ, softmax temperature", 1.0, above=0)

    def method(self) -> Method:
        """Return the method with its two loss terms."""
        return divergence_method(self.task_weight, self.temperature, "reverse-kl")


@dataclass(frozen=True)
class JensenShannon:
    """λ·CE + (1 − λ)·τ²·(β·KL(p ‖ m) + (1 − β)·KL(q ‖ m)), m = β·p + (1 − β)·q (GKD, arXiv 2306.13649, eq. 1)."""

    task_weight: float = option("λ, weight of the loss on the labels", 0.5, at_least=0, at_most=1)
    beta: float = option("β, share of the teacher's distribution in the mixture m", 0.5, above=0, below=1)
    temperature: float = option("τ, softmax temperature", 1.0, above=0)

    def method(self) -> Method:
        """Return the method with its two loss terms."""
        return divergence_method(self.task_weight, self.temperature, "jsd", self.beta)


@dataclass(frozen=True)
class SkewKL:
    """α·CE + (1 − α)·τ²·KL(p ‖ λ·p + (1 − λ)·q) (DistiLLM, arXiv 2402.03898, eq. 2)."""

    task_weight: float = option("α, weight of the loss on the labels", 0.5, at_least=0, at_most=1)
    skew: float = option("λ, share of the teacher's distribution in the mixture", 0.1, at_least=0, below=1)
    temperature: float = option("τ, softmax temperature", 1.0, above=0)

    def method(self) -> Method:
        """Return the method with its two loss terms."""
        return divergence_method(self.task_weight, self.temperature, "skew-kl", self.skew)


@dataclass(frozen=True)
class SkewReverseKL:
    """α·CE + (1 − α)·τ²·KL(q ‖ (1 − λ)·p + λ·q) (DistiLLM, arXiv 2402.03898)."""

    task_weight: float = option("α, weight of the loss on the labels", 0.5, at_least=0, at_most=1)
    skew: float = option("λ, share of the student's distribution in the mixture", 0.1, at_least=0, below=1)
    temperature: float = option("τ, softmax temperature", 1.0, above=0)

    def method(self) -> Method:
        """Return the method with its two loss terms."""
        return divergence_method(self.task_weight, self.temperature, "skew-reverse-kl", self.skew)
