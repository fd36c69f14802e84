"""What a method is: a row of weighted terms. A term says which signals it needs and builds its loss."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Literal

from torch import Tensor, nn

from demiglace.models.shape import ModelShape
from demiglace.signals.request import SignalRequest, Signals
from demiglace.tasks.base import Task

Reduction = Literal["mean", "sum"]  # over the pairs of layers of a term
Epoch = Literal["best", "last"]


def over_pairs(values: Tensor, reduction: Reduction) -> Tensor:
    """Return the mean or the sum over the pairs of layers, from [B, m] to [B]."""
    return values.mean(dim=1) if reduction == "mean" else values.sum(dim=1)


@dataclass(frozen=True)
class TrainingProgress:
    """Where training stands; all randomness and every schedule of a method is a pure function of it.

    phase: the number of the method's phase, from 0; phase_epoch: the epochs of that phase done, of phase_epochs;
    fraction: the share of that phase's steps done, from 0 to below 1.
    """

    seed: int
    epoch: int
    step: int
    phase: int = 0
    phase_epoch: int = 0
    phase_epochs: int = 1
    fraction: float = 0.0


class Augmentation(ABC):
    """What makes other text of the rows for some of a method's terms, as a choice of options; frozen."""

    name: str


@dataclass(frozen=True)
class SignalRequests:
    """The signals that a term needs from the two models."""

    student: SignalRequest
    teacher: SignalRequest

    def __or__(self, other: "SignalRequests") -> "SignalRequests":
        return SignalRequests(self.student | other.student, self.teacher | other.teacher)


class TermLoss(nn.Module, ABC):
    """A term built for two models: its trainable projections, if any, and its forward pass.

    `diagnostics` holds numbers of the last forward pass that are worth logging, detached. `needs_fit` is True where
    weights are to be fitted to the states of some training rows before the first step, by `observe` and `fit`.
    """

    needs_fit: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.diagnostics: dict[str, Tensor] = {}

    @abstractmethod
    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        """The loss of each row [B], unweighted; rows without a label may hold any finite number."""

    def observe(self, student: Signals, teacher: Signals, progress: TrainingProgress) -> None:
        """Take in the signals of some rows for `fit`."""

    def fit(self) -> None:
        """Set weights from the signals that were observed."""

    def pairs(self, progress: TrainingProgress) -> Sequence[tuple[int, int]]:
        """The (student layer, teacher layer) pairs that meet at this point, for the log; empty where none do."""
        return ()


class Term(ABC):
    """One loss term of a method, as a choice of options; frozen.

    needs_rows: whether it sets a row's logits beside the row's hidden states, so that it is of no use to language
    models, which have logits for every token.
    """

    name: str
    needs_labels: bool = False
    needs_rows: bool = False

    @abstractmethod
    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """The signals it needs. Raises `ModelError` where the two models do not suit the term."""

    @abstractmethod
    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Its loss for these models; new weights are drawn from torch's global generator."""


@dataclass(frozen=True)
class WeightedTerm:
    """A term and its factor in the total loss; `phase` is the one phase it belongs to, or none for all of them.

    on: the rows' own text, or the text that the method's augmentation made of it.
    """

    weight: float
    term: Term
    phase: int | None = None
    on: Literal["text", "perturbed"] = "text"


@dataclass(frozen=True)
class Method:
    """Weighted terms: the total loss is Σ weight · (mean of the term over the rows it applies to).

    In each phase only its own terms count, and optimizer and learning rate start afresh, as in the separate runs of the
    papers. The best epoch is one of the last phase.
    """

    terms: tuple[WeightedTerm, ...]
    phases: tuple[float, ...] = (1.0,)  # shares of the epochs, one after another
    augmentation: Augmentation | None = None  # makes the perturbed text
    starts_from: Epoch = "last"  # the epoch of the phase before whose weights the student has at a later phase's start
    short_phases: bool = False  # allow phases of a single epoch on a task's rows

    def active(self, phase: int) -> tuple[bool, ...]:
        """Which of the terms count in this phase."""
        return tuple(w.phase in (None, phase) for w in self.terms)

    def requests(self, student: ModelShape, teacher: ModelShape, phase: int | None = None) -> SignalRequests:
        """All signals that the terms need of the rows' text, or those that count in one phase."""
        return _union(
            w.term.requests(student, teacher)
            for w in self.terms
            if w.on == "text" and (phase is None or w.phase in (None, phase))
        )

    def perturbed_requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """All signals that the terms need of the perturbed text."""
        return _union(w.term.requests(student, teacher) for w in self.terms if w.on == "perturbed")


def _union(requests: Iterable[SignalRequests]) -> SignalRequests:
    return reduce(or_, requests, SignalRequests(SignalRequest(), SignalRequest()))
