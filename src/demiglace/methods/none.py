"""No teacher: the control that every method is held against."""

from dataclasses import dataclass

from demiglace.methods.base import Method, Weighted
from demiglace.methods.terms.logits import TaskLoss


@dataclass(frozen=True)
class NoDistillation:
    """The labels' own loss, from the same initialisation."""

    def method(self) -> Method:
        """CE."""
        return Method((Weighted(1.0, TaskLoss()),))
