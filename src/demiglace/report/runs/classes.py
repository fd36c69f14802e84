"""Results by class or label of one evaluation: a confusion matrix, the largest confusions, precision and recall."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demiglace.report import format
from demiglace.report.tables import Cell, Column, Table, from_columns, numbers

_MOST_COLUMNS = 12  # classes of a matrix that a page can show
_MOST_PAIRS = 20


@dataclass(frozen=True, eq=False)
class ClassResults:
    """Rows by true and predicted class, or by label."""

    names: tuple[str, ...]
    right: np.ndarray  # int [C]: rows that have the label and are predicted to have it
    true: np.ndarray  # int [C]: rows that have the label
    predicted: np.ndarray  # int [C]: rows that are predicted to have the label
    confusion: np.ndarray | None = None  # int [C, C]: rows by true (first axis) and predicted class, of one class each

    @classmethod
    def of_classes(cls, names: Sequence[str], confusion: np.ndarray) -> "ClassResults":
        """Return the results of rows with one class each."""
        return cls(tuple(names), np.diag(confusion), confusion.sum(1), confusion.sum(0), confusion)


def read_classes(stem: Path, names: Sequence[str]) -> ClassResults | None:
    """Return the results by class or label of an evaluated set; None without predictions, or for numbers.

    stem: the path of the set's files without their endings; names: of the classes, which may be unknown.
    """
    files = [stem.with_name(f"{stem.name}.{kind}.npy") for kind in ("labels", "predictions")]
    if not all(file.exists() for file in files):
        return None
    labels, predictions = (np.load(file) for file in files)
    if labels.ndim == 2 and labels.shape == predictions.shape == (len(labels), len(names)):
        return _of_label_sets(labels, predictions, names)
    integers = all(np.issubdtype(a.dtype, np.integer) and a.ndim == 1 for a in (labels, predictions))
    if not integers or len(labels) != len(predictions) or not len(labels):
        return None
    known = (labels >= 0) & (predictions >= 0)  # rows without a label count nowhere
    labels, predictions = labels[known], predictions[known]
    size = int(max(labels.max(initial=0), predictions.max(initial=0))) + 1
    shown = list(names) if len(names) >= size else [str(i) for i in range(size)]
    confusion = np.zeros((len(shown), len(shown)), dtype=np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    return ClassResults.of_classes([*map(str, shown)], confusion)


def _of_label_sets(labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]) -> ClassResults | None:
    """Return the results of rows with any number of labels, [N, C] of 0 and 1; None for other arrays."""
    if not (np.isin(labels, (0, 1)) & np.isin(predictions, (0, 1))).all():
        return None
    true, predicted = labels.astype(np.int64), predictions.astype(np.int64)
    return ClassResults(tuple(names), (true * predicted).sum(axis=0), true.sum(axis=0), predicted.sum(axis=0))


def class_table(found: ClassResults) -> Table:
    """Return one row for each class: rows, precision, recall and F1, in points of 100."""
    right, true, predicted = found.right, found.true, found.predicted

    def column(title: str, part: np.ndarray, total: np.ndarray) -> tuple[Column, list[Cell]]:
        values = [float(p / t) if t else None for p, t in zip(part, total, strict=True)]
        return numbers(title, values, lambda v: format.score(v, "f1"))

    return from_columns(
        [
            (Column("Class", text=True), [Cell(format.shorten(name, 40)) for name in found.names]),
            numbers("Rows", [float(n) for n in true], format.count),
            column("Precision", right, predicted),
            column("Recall", right, true),
            column("F1", 2 * right, true + predicted),
        ],
        ("",) * len(found.names),
    )


def confusion_table(found: ClassResults) -> Table | None:
    """Return the confusion matrix; of many classes, the pairs of classes that are confused most often.

    None for rows with any number of labels, in which no label is taken for another.
    """
    if found.confusion is None:
        return None
    if len(found.names) > _MOST_COLUMNS:
        return _pairs(found.names, found.confusion)
    names = [format.shorten(name, 20) for name in found.names]
    columns = (Column("True class", text=True), *(Column(f"→ {name}") for name in names))
    rows = tuple(
        (Cell(name), *(Cell(format.count(n), float(n), best=i == j) for j, n in enumerate(row)))
        for i, (name, row) in enumerate(zip(names, found.confusion.tolist(), strict=True))
    )
    return Table(columns, rows, ("",) * len(rows))


def _pairs(names: Sequence[str], confusion: np.ndarray) -> Table:
    wrong = confusion * (1 - np.eye(len(names), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = [divmod(int(i), len(names)) for i in order if wrong.flat[i]]
    rows = tuple(
        (
            Cell(format.shorten(names[true], 40)),
            Cell(format.shorten(names[predicted], 40)),
            Cell(format.count(wrong[true, predicted]), float(wrong[true, predicted])),
        )
        for true, predicted in pairs
    )
    columns = (Column("True class", text=True), Column("Predicted class", text=True), Column("Rows"))
    return Table(columns, rows, ("",) * len(rows))
