"""What a method is: a row of weighted terms. A term says which signals it needs and builds its loss."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from demiglace.models.shape import ModelShape
from demiglace.signals.request import SignalRequest, Signals

Problem = Literal["classification", "regression"]


@dataclass(frozen=True)
class Progress:
    """Where training stands; all randomness of a method is a pure function of it."""

    seed: int
    epoch: int
    step: int


@dataclass(frozen=True)
class Requests:
    """The signals that a term needs from the two models."""

    student: SignalRequest
    teacher: SignalRequest

    def __or__(self, other: "Requests") -> "Requests":
        return Requests(self.student | other.student, self.teacher | other.teacher)


class TermLoss(nn.Module, ABC):
    """A term built for two models: its trainable projections, if any, and its forward pass.

    `diagnostics` holds numbers of the last forward pass that are worth logging, detached.
    """

    def __init__(self) -> None:
        super().__init__()
        self.diagnostics: dict[str, Tensor] = {}

    @abstractmethod
    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: Progress) -> Tensor:
        """The loss of each row [B], unweighted; rows without a label may hold any finite number."""

    def pairs(self, progress: Progress) -> Sequence[tuple[int, int]]:
        """The (student layer, teacher layer) pairs that meet at this point, for the log; empty where none do."""
        return ()


class Term(ABC):
    """One loss term of a method, as a choice of options; frozen."""

    name: str
    needs_labels: bool = False

    @abstractmethod
    def requests(self, student: ModelShape, teacher: ModelShape) -> Requests:
        """The signals it needs. Raises `ModelError` where the two models do not suit the term."""

    @abstractmethod
    def build(self, student: ModelShape, teacher: ModelShape, problem: Problem) -> TermLoss:
        """Its loss for these models; new weights are drawn from torch's global generator."""


@dataclass(frozen=True)
class Weighted:
    """A term and its factor in the total loss."""

    weight: float
    term: Term


@dataclass(frozen=True)
class Method:
    """Weighted terms: the total loss is Σ weight · (mean of the term over the rows it applies to)."""

    terms: tuple[Weighted, ...]

    @property
    def needs_teacher(self) -> bool:
        """Whether any term listens to the teacher."""
        return any(not w.term.needs_labels for w in self.terms)

    def requests(self, student: ModelShape, teacher: ModelShape) -> Requests:
        """All signals that the terms need."""
        total = Requests(SignalRequest(), SignalRequest())
        for w in self.terms:
            total |= w.term.requests(student, teacher)
        return total
