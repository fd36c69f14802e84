"""Training without a teacher: the baseline that every method is compared with."""

from dataclasses import dataclass

from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.logits import TaskLoss


@dataclass(frozen=True)
class NoDistillation:
    """CE on the labels, from the same initialisation as a distilled student."""

    def method(self) -> Method:
        """Return the method with the loss on the labels alone."""
        return Method((WeightedTerm(1.0, TaskLoss()),))
