"""Results by class of one evaluation: a confusion matrix, the largest confusions, precision and recall."""

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
    """Rows by true and predicted class."""

    names: tuple[str, ...]
    confusion: np.ndarray  # int [C, C]: rows by true class (first axis) and predicted class


def read_classes(stem: Path, names: Sequence[str]) -> ClassResults | None:
    """Return the results by class of an evaluated set; None without predictions, or for numbers.

    stem: the path of the set's files without their endings; names: of the classes, which may be unknown.
    """
    files = [stem.with_name(f"{stem.name}.{kind}.npy") for kind in ("labels", "predictions")]
    if not all(file.exists() for file in files):
        return None
    labels, predictions = (np.load(file) for file in files)
    integers = all(np.issubdtype(a.dtype, np.integer) and a.ndim == 1 for a in (labels, predictions))
    if not integers or len(labels) != len(predictions) or not len(labels):
        return None
    known = (labels >= 0) & (predictions >= 0)  # rows without a label count nowhere
    labels, predictions = labels[known], predictions[known]
    size = int(max(labels.max(initial=0), predictions.max(initial=0))) + 1
    shown = list(names) if len(names) >= size else [str(i) for i in range(size)]
    confusion = np.zeros((len(shown), len(shown)), dtype=np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    return ClassResults(tuple(map(str, shown)), confusion)


def class_table(found: ClassResults) -> Table:
    """Return one row for each class: rows, precision, recall and F1, in points of 100."""
    right, true, predicted = np.diag(found.confusion), found.confusion.sum(1), found.confusion.sum(0)

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


def confusion_table(found: ClassResults) -> Table:
    """Return the confusion matrix; of many classes, the pairs of classes that are confused most often."""
    if len(found.names) > _MOST_COLUMNS:
        return _pairs(found)
    names = [format.shorten(name, 20) for name in found.names]
    columns = (Column("True class", text=True), *(Column(f"→ {name}") for name in names))
    rows = tuple(
        (Cell(name), *(Cell(format.count(n), float(n), best=i == j) for j, n in enumerate(row)))
        for i, (name, row) in enumerate(zip(names, found.confusion.tolist(), strict=True))
    )
    return Table(columns, rows, ("",) * len(rows))


def _pairs(found: ClassResults) -> Table:
    wrong = found.confusion * (1 - np.eye(len(found.names), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = [divmod(int(i), len(found.names)) for i in order if wrong.flat[i]]
    rows = tuple(
        (
            Cell(format.shorten(found.names[true], 40)),
            Cell(format.shorten(found.names[predicted], 40)),
            Cell(format.count(wrong[true, predicted]), float(wrong[true, predicted])),
        )
        for true, predicted in pairs
    )
    columns = (Column("True class", text=True), Column("Predicted class", text=True), Column("Rows"))
    return Table(columns, rows, ("",) * len(rows))
