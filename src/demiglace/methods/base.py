"""A method is a row of weighted terms. A term declares the signals it needs and builds its loss."""

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
    """The progress of training; all randomness and all schedules of a method are pure functions of it."""

    seed: int
    epoch: int
    step: int
    phase: int = 0  # number of the method's phase
    phase_epoch: int = 0  # finished epochs of the phase
    phase_epochs: int = 1  # epochs of the phase
    fraction: float = 0.0  # share of the phase's steps that are done, below 1


class Augmentation(ABC):
    """Options of an augmentation that rewrites the text of rows for some loss terms (a frozen dataclass)."""

    name: str


@dataclass(frozen=True)
class SignalRequests:
    """The signals that a term needs from student and teacher."""

    student: SignalRequest
    teacher: SignalRequest

    def __or__(self, other: "SignalRequests") -> "SignalRequests":
        return SignalRequests(self.student | other.student, self.teacher | other.teacher)


class TermLoss(nn.Module, ABC):
    """A term built for two models: its trainable projections, if any, and its forward pass.

    `diagnostics` holds detached numbers of the last forward pass for the log.
    """

    needs_fit: bool = False  # weights are fitted to some training rows before the first step, by `observe` and `fit`

    def __init__(self) -> None:
        super().__init__()
        self.diagnostics: dict[str, Tensor] = {}

    @abstractmethod
    def forward(self, student: Signals, teacher: Signals, labels: Tensor, progress: TrainingProgress) -> Tensor:
        """Return the unweighted loss of each row [B]; any finite number for a row without a label."""

    def observe(self, student: Signals, teacher: Signals, progress: TrainingProgress) -> None:
        """Collect the signals of some rows for `fit`."""

    def fit(self) -> None:
        """Set weights from the collected signals."""

    def layer_pairs(self, progress: TrainingProgress) -> Sequence[tuple[int, int]]:
        """Return the (student layer, teacher layer) pairs that are compared now, for the log; empty for none."""
        return ()


class Term(ABC):
    """Options of one loss term of a method (a frozen dataclass)."""

    name: str
    needs_labels: bool = False
    needs_scores: bool = False  # it reads outputs as scores of classes or as numbers, not as an embedding
    needs_rows: bool = False  # it relates a row's logits to its hidden states; language models have logits per token

    @abstractmethod
    def requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Return the signals it needs. Raises `ModelError` for two models that the term cannot compare."""

    @abstractmethod
    def build(self, student: ModelShape, teacher: ModelShape, task: Task) -> TermLoss:
        """Return its loss for these models and this kind of problem; new weights use torch's global generator."""


@dataclass(frozen=True)
class WeightedTerm:
    """A term and its factor in the total loss."""

    weight: float
    term: Term
    phase: int | None = None  # the phase it belongs to; None for all
    input: Literal["text", "perturbed"] = "text"  # the rows' text, or the text that the method's augmentation made


@dataclass(frozen=True)
class Method:
    """Weighted terms: the total loss is Σ weight · (mean of the term over the rows it applies to).

    In each phase only its terms count, and optimizer and learning rate are reset, as in the separate runs of the
    papers. The best epoch is one of the last phase.
    """

    terms: tuple[WeightedTerm, ...]
    phases: tuple[float, ...] = (1.0,)  # shares of the epochs, one after another
    augmentation: Augmentation | None = None  # makes the perturbed text
    starts_from: Epoch = "last"  # the epoch of the previous phase whose weights the next phase starts from
    short_phases: bool = False  # allow phases of a single epoch on a task's rows

    def active(self, phase: int) -> tuple[bool, ...]:
        """Return which of the terms count in this phase."""
        return tuple(w.phase in (None, phase) for w in self.terms)

    def requests(self, student: ModelShape, teacher: ModelShape, phase: int | None = None) -> SignalRequests:
        """Return all signals that terms need of the rows' text, in one phase or in all."""
        return _union(
            w.term.requests(student, teacher)
            for w in self.terms
            if w.input == "text" and (phase is None or w.phase in (None, phase))
        )

    def perturbed_requests(self, student: ModelShape, teacher: ModelShape) -> SignalRequests:
        """Return all signals that terms need of the perturbed text."""
        return _union(w.term.requests(student, teacher) for w in self.terms if w.input == "perturbed")


def _union(requests: Iterable[SignalRequests]) -> SignalRequests:
    return reduce(or_, requests, SignalRequests(SignalRequest(), SignalRequest()))
