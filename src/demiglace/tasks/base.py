"""What a kind of problem is: one frozen object that data, methods, evaluation, export and reports all read.

A new kind is one file with a subclass of `Task` or `RowTask`, one row in `tasks.registry.TASK_KINDS` and one row in
`tests/tasks/test_task_battery.py`. A kind holds no state: a `LabelSpace` pairs it with the class names of a data set.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

if TYPE_CHECKING:  # the command line reads rows, and so their task, before it imports torch
    from torch import Tensor

Unit = Literal["row", "word", "token"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]  # of transformers
Divergence = Callable[["Tensor", "Tensor"], "Tensor"]
"""(student logits [..., C], teacher logits [..., C]) -> [...], of two categorical distributions."""


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are."""

    higher_is_better: bool
    title: str  # as tables on the terminal name it
    function: Callable[[np.ndarray, np.ndarray], float] | None = None
    """(labels [N], predictions [N]) -> number; None where the pass over a corpus computes it."""


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """One kind of problem: its data, its unit of logits, its losses, its metrics and its names.

    Subclasses give the methods, instances the fields. `eq=False`: a kind equals itself alone, and can be hashed.
    """

    name: str  # in manifests, in --problem and in messages
    reads: Literal["rows", "corpus"]  # what it trains on: rows of texts, or blocks of a corpus
    unit: Unit
    """What one vector of logits belongs to: a row; a word of a row, at its first token; or a token, where the loss runs
    token by token through the model's head."""
    metrics: Mapping[str, Metric]  # all that apply, by name
    default_metrics: tuple[str, ...]  # those of a user's data; the first selects the best epoch
    output_name: ClassVar[str] = "logits"  # of the output in an exported graph
    hub_library: ClassVar[str] = "transformers"  # that loads the model, for its card

    @abstractmethod
    def loss(self, logits: "Tensor", labels: "Tensor") -> "Tensor":
        """Return the supervised loss of each unit [B], from logits [B, C] and labels [B, ...].

        A unit without a label may give any finite number: it is weighted by 0.
        """

    def divergence(self, student: "Tensor", teacher: "Tensor", categorical: Divergence) -> "Tensor":
        """Return the distance of the student's logits [..., C] to the teacher's, [...].

        categorical: the divergence that the method names. It is right where one of C classes is predicted; a kind of
        other outputs replaces it (numbers) or applies it to other distributions (one per label).
        """
        return categorical(student, teacher)

    @abstractmethod
    def hub_task(self, *, masked: bool) -> str:
        """Return what the Hugging Face hub calls the task (`pipeline_tag`); masked: whether the head is a masked LM."""


@dataclass(frozen=True, eq=False)
class RowTask(Task):
    """A kind of problem on rows of texts: how labels are read and encoded, and what the model's head gives for them."""

    label_columns: tuple[str, ...]  # usual names of the label column, the most usual first
    label_dtype: type[np.generic]  # of encoded labels
    no_label: float  # the encoded label of a row without one
    has_classes: bool  # each unit has exactly one class: labels have names, and class maps and calibration apply
    labels_in_words: str  # what the labels are, where they have no names; for cards and lists
    auto_class: str  # the class of transformers that loads the model
    problem_type: ProblemType | None  # in the model's config
    agreement_metric: str  # of `metrics`: how well a student's predictions match its teacher's
    parity_tolerance: float  # exported predictions may differ by this share of the largest one
    readout: str  # Python on `logits` [1, C] that a card prints; empty: the name of the most likely class
    separate_texts: bool = False
    """Whether a model reads the two texts of a pair one at a time. A row of T texts then has T · D outputs, beginning
    with those of its first text."""

    @abstractmethod
    def head_width(self, names: Sequence[str]) -> int:
        """Return C, the number of outputs for these label names."""

    @abstractmethod
    def label_fault(self, label: str) -> str | None:
        """Return what is wrong with a label's text, or None."""

    @abstractmethod
    def label_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the labels that occur, in the order of their ids; empty where labels have none."""

    @abstractmethod
    def encode(self, labels: Sequence[str | None], names: Sequence[str]) -> np.ndarray:
        """Return labels as numbers, `label_dtype` [N, ...]; `no_label` for None. Every label must be a valid one."""

    @abstractmethod
    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return which of the encoded labels [N, ...] are not `no_label`, bool [N]."""

    @abstractmethod
    def decode(self, logits: np.ndarray) -> np.ndarray:
        """Return predictions [N, ...] in the form of encoded labels, from finite logits [N, C]."""

    def agreement(self, student: np.ndarray, teacher: np.ndarray) -> float:
        """Return how well a student matches its teacher by `agreement_metric`, from finite logits [N, C] of both."""
        function = self.metrics[self.agreement_metric].function
        assert function is not None  # of rows
        return function(self.decode(teacher), self.decode(student))

    def same_predictions(self, expected: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return which rows two models predict alike, bool [N], from finite logits [N, C] of both.

        Predictions may differ by `parity_tolerance` of the largest expected one.
        """
        reference = self.decode(expected)
        return np.abs(reference - self.decode(logits)) <= self.parity_tolerance * np.abs(reference).max()

    @abstractmethod
    def score_and_chance(self, labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
        """Return the name of a score, its value for these logits [N, C], and its value without a model."""
