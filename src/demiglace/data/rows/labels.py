"""Labels of files: their text, the kind of problem that they make, and their encoding."""

import ast
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from demiglace.data.rows.schema import LabelSpace
from demiglace.tasks.base import Label, RowTask
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.registry import row_task
from demiglace.tasks.regression import REGRESSION, number

_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")


def label_text(value: Any) -> str | None:
    """Return a label's text: "3" for 3, 3.0 and " 3 "; None for a missing one (null, NaN, blank)."""
    if isinstance(value, str):
        return value.strip() or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def label_of(value: Any) -> Label | None:
    """Return the label in a cell: a text, or the texts in a list, in its order; None for a missing one.

    Raises `TypeError` for a mapping, bytes, and a list of anything but texts and numbers.
    """
    if isinstance(value, (list, tuple)):
        texts = [None if isinstance(part, (list, tuple)) else label_of(part) for part in value]
        if None in texts:
            raise TypeError
        return tuple(text for text in texts if isinstance(text, str))
    if isinstance(value, (dict, bytes)):
        raise TypeError
    return label_text(value)


def split_labels(
    labels: Sequence[Label | None], separators: Sequence[str]
) -> tuple[list[tuple[str, ...] | None], str | None]:
    """Return labels as lists, and the separator that divides those that are text (None where none occurs).

    A text in brackets is a list as JSON or Python writes it, which is how tables of lists are saved as CSV. Other texts
    are divided by the first of the `separators` that occurs in one of them.
    """
    plain = [label for label in labels if isinstance(label, str) and _bracketed(label) is None]
    separator = next((s for s in separators if any(s in label for label in plain)), None)
    return [None if label is None else _divided(label, separator) for label in labels], separator


def _divided(label: Label, separator: str | None) -> tuple[str, ...]:
    if isinstance(label, tuple):
        return label
    listed = _bracketed(label)
    parts = listed if listed is not None else label.split(separator) if separator else [label]
    return tuple(part.strip() for part in parts if part.strip())


def _bracketed(label: str) -> tuple[str, ...] | None:
    """Return the texts of a list that is written out, or None where a text is no such list."""
    if not (label.startswith("[") and label.endswith("]")):
        return None
    try:
        found = label_of(ast.literal_eval(label))
    except (TypeError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, tuple) else None


def infer_task(labels: Sequence[Label], wanted: str = "auto") -> RowTask:
    """Return the kind of problem: the one named `wanted`; for "auto", regression if the labels are numbers and one has
    a fraction, else classification.

    Up to 10 % of the distinct labels may be no numbers ("n/a"): those rows are errors, and do not turn numbers into
    classes. Raises `ConfigError` for an unknown name.
    """
    if wanted != "auto":
        return row_task(wanted)
    distinct = {label for label in labels if isinstance(label, str)}
    numbers = [label for label in distinct if number(label) is not None]
    fraction = not all(map(_WHOLE.fullmatch, numbers))
    return REGRESSION if fraction and len(numbers) >= 0.9 * len(distinct) else CLASSIFICATION


def plain_integers(labels: Sequence[Label | None]) -> list[Label | None]:
    """Return "1.0" as "1" if all labels are integers: a column with gaps is often saved as floats."""
    if not all(isinstance(label, str) and _WHOLE.fullmatch(label) for label in set(labels) if label is not None):
        return list(labels)
    return [label.partition(".")[0] if isinstance(label, str) else None for label in labels]


def label_space(labels: Iterable[Label], task: RowTask) -> LabelSpace:
    """Return the label space of the labels that occur, the names in the order of their ids."""
    return LabelSpace(task, task.label_names(list(labels)))


def encode(labels: Sequence[Label | None], space: LabelSpace) -> np.ndarray:
    """Return labels [N, ...] as the kind encodes them, its `no_label` for None. All must be in the space."""
    return space.task.encode(labels, space.names)
