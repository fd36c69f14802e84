"""What the methods that differ from vanilla KD by their divergence alone have in common."""

from demiglace.methods.base import Method, Weighted
from demiglace.methods.terms.logits import Divergence, LogitDistillation, TaskLoss


def divergence_method(task_weight: float, temperature: float, divergence: Divergence, mix: float = 0.5) -> Method:
    """λ·CE + (1 − λ)·divergence."""
    return Method(
        (
            Weighted(task_weight, TaskLoss()),
            Weighted(1 - task_weight, LogitDistillation(temperature, divergence, mix)),
        )
    )
