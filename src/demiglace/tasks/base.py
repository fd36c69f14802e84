"""What a kind of problem is: one frozen object that data, methods, evaluation, export and reports all read.

A new kind is one file with a subclass of `Task` or `RowTask`, one row in `tasks.registry.TASK_KINDS` and one row in
`tests/tasks/test_task_battery.py`. A kind holds no state: a `LabelSpace` pairs it with the class names of a data set.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from demiglace.errors import UserError, install_command

if TYPE_CHECKING:  # the command line reads rows, and so their task, before it imports torch
    from torch import Tensor

Unit = Literal["row", "word", "token"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]  # of transformers
Label = str | tuple[str, ...]
"""The label of a row as text: one, or several for kinds whose label is a list."""
Divergence = Callable[["Tensor", "Tensor"], "Tensor"]
"""(student logits [..., C], teacher logits [..., C]) -> [...], of two categorical distributions."""


@dataclass(frozen=True)
class Metric:
    """A number that says how good a model is: how it is computed and written, and which direction is better."""

    title: str  # heading of a column
    phrase: str  # inside a sentence, and in tables on the terminal
    function: Callable[[np.ndarray, np.ndarray], float] | None = None
    """(labels [N, ...], predictions [N, ...]) -> number; None for metrics that are computed elsewhere."""
    of: Literal["predictions", "logits"] = "predictions"  # what the function compares with the labels
    higher_is_better: bool = True
    unit: Literal["points", "plain"] = "points"  # points: 100 times the value, as GLUE reports accuracies
    decimals: int = 1
    hub: str = ""  # the Hub's name for it, where that is another one

    @property
    def sign(self) -> int:
        """Return 1 where higher is better, else −1."""
        return 1 if self.higher_is_better else -1

    @property
    def scale(self) -> int:
        """Return the factor from the stored value to the written one."""
        return 100 if self.unit == "points" else 1


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

    def pseudo_label_loss(self, student: "Tensor", teacher: "Tensor") -> "Tensor":
        """Return the loss of the student's logits [..., C] with the teacher's prediction as the label, [...]."""
        from demiglace.losses.divergences import hard_label

        return self.divergence(student, teacher, hard_label)

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
    readout: str
    """Python on `logits` [1, C], and on `names` of the outputs, that a card prints; empty: the most likely class."""
    label_separators: tuple[str, ...] = ()
    """Given where a label is a list: what may divide it in a cell of text; the most frequent in the column is used."""

    fits_decision_rule: bool = False  # whether `fitted` does something
    separate_texts: bool = False
    """Whether a model reads the two texts of a pair one at a time. A row of T texts then has T · D outputs, beginning
    with those of its first text."""
    text_columns: tuple[str, ...] = ()  # usual names of the text column; empty: those of `data.rows.columns`
    packages: tuple[str, ...] = ()  # modules that its metrics import and demiglace does not require
    install: str = ""  # the extra of demiglace, or the arguments of `pip install`, that brings them

    @property
    def takes_lists(self) -> bool:
        """Return whether the label of a row is a list."""
        return bool(self.label_separators)

    @property
    def has_label_sets(self) -> bool:
        """Return whether a row has any number of the labels, which are encoded as [N, C] of 0 and 1."""
        return self.takes_lists and self.unit == "row"

    @abstractmethod
    def head_width(self, names: Sequence[str]) -> int:
        """Return C, the number of outputs for these label names."""

    @abstractmethod
    def label_fault(self, label: Label) -> str | None:
        """Return what is wrong with a label, or None."""

    @abstractmethod
    def label_names(self, labels: Sequence[Label]) -> tuple[str, ...]:
        """Return the names of the labels that occur, in the order of their ids; empty where labels have none."""

    @abstractmethod
    def encode(self, labels: Sequence[Label | None], names: Sequence[str]) -> np.ndarray:
        """Return labels as numbers, `label_dtype` [N, ...]; `no_label` for None. Every label must be a valid one."""

    @abstractmethod
    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return which of the encoded labels [N, ...] are not `no_label`, bool [N]."""

    @abstractmethod
    def decode(self, logits: np.ndarray) -> np.ndarray:
        """Return predictions [N, ...] in the form of encoded labels, from finite logits [N, C]."""

    def agreement(self, student: np.ndarray, teacher: np.ndarray, teacher_task: Self) -> float:
        """Return how well a student matches its teacher by `agreement_metric`, from finite logits [N, C] of both.

        teacher_task: the kind with the teacher's decision rule.
        """
        function = self.metrics[self.agreement_metric].function
        assert function is not None  # of rows
        return function(self.readable(teacher_task.decode(teacher)), self.readable(self.decode(student)))

    def same_predictions(self, expected: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return which rows or words two models predict alike, bool [U], from finite logits [N, C] of both.

        Predictions may differ by `parity_tolerance` of the largest expected one.
        """
        reference = self.decode(expected)
        same = np.abs(reference - self.decode(logits)) <= self.parity_tolerance * np.abs(reference).max()
        return same.reshape(len(same), -1).all(axis=1) if self.unit == "row" else same[reference >= 0]

    @abstractmethod
    def score_and_chance(self, labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
        """Return the name of a score, its value for these logits [N, C], and its value without a model."""

    def require_packages(self) -> None:
        """Raise `UserError` with the command to run if a package is missing."""
        for package in self.packages:
            if find_spec(package) is None:
                raise UserError(
                    f"{self.name} needs {package}, which is not installed; run: {install_command(self.install)}"
                )

    def recognizes(self, columns: Mapping[str, Sequence[Any]]) -> bool:
        """Return whether a table with these columns can only be of this kind, for --problem auto."""
        return False

    def with_names(self, names: Sequence[str]) -> Self:
        """Return the kind with the names of its labels by id, where `readable` and `parts` need them."""
        return self

    def readable(self, encoded: np.ndarray) -> np.ndarray:
        """Return encoded labels or predictions [N, ...] as metrics take them, and files of predictions have them."""
        return encoded

    def parts(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, dict[str, Any]]:
        """Return part -> {metrics, rows} where a kind divides what it counts, from arrays of `readable`."""
        return {}

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return the stratum of each row, int64 [N], from encoded labels; a validation split has its share of each."""
        return np.zeros(len(labels), dtype=np.int64)

    def rows_by_name(self, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return how many rows have each of the named labels, int64 [C], from encoded labels; empty without names."""
        return np.zeros(0, dtype=np.int64)

    def fitted(self, labels: np.ndarray, logits: np.ndarray) -> Self:
        """Return the kind with the decision rule that is best on these validation rows.

        Training calls it with `fits_decision_rule` alone, at the end of each epoch.
        """
        return self

    def decision_rule(self) -> dict[str, Any]:
        """Return what `fitted` chose, for a model's config and a run's manifest; empty for a fixed rule."""
        return {}

    def with_decision_rule(self, rule: Mapping[str, Any]) -> Self:
        """Return the kind with a rule that `decision_rule` returned."""
        return self


def names_in(label: Label) -> tuple[str, ...]:
    """Return the names that a label consists of."""
    return label if isinstance(label, tuple) else (label,)
