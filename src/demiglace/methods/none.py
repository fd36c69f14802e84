"""No teacher: the baseline of every method."""

from dataclasses import dataclass

from demiglace.methods.base import Method, WeightedTerm
from demiglace.methods.terms.logits import TaskLoss


@dataclass(frozen=True)
class NoDistillation:
    """The labels' own loss, from the same initialisation."""

    def method(self) -> Method:
        """CE."""
        return Method((WeightedTerm(1.0, TaskLoss()),))
