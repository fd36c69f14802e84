"""Labels of files: their text, the kind of problem that they make, and their encoding."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from demiglace.data.rows.schema import LabelSpace
from demiglace.tasks.base import RowTask
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


def infer_task(labels: Sequence[str], wanted: str = "auto") -> RowTask:
    """Return the kind of problem: the one named `wanted`; for "auto", regression if the labels are numbers and one has
    a fraction, else classification.

    Up to 10 % of the distinct labels may be no numbers ("n/a"): those rows are errors, and do not turn numbers into
    classes. Raises `ConfigError` for an unknown name.
    """
    if wanted != "auto":
        return row_task(wanted)
    distinct = set(labels)
    numbers = [label for label in distinct if number(label) is not None]
    fraction = not all(map(_WHOLE.fullmatch, numbers))
    return REGRESSION if fraction and len(numbers) >= 0.9 * len(distinct) else CLASSIFICATION


def plain_integers(labels: Sequence[str | None]) -> list[str | None]:
    """Return "1.0" as "1" if all labels are integers: a column with gaps is often saved as floats."""
    if not all(_WHOLE.fullmatch(label) for label in set(labels) if label is not None):
        return list(labels)
    return [None if label is None else label.partition(".")[0] for label in labels]


def label_space(labels: Iterable[str], task: RowTask) -> LabelSpace:
    """Return the label space of the labels that occur, the names in the order of their ids."""
    return LabelSpace(task, task.label_names(list(labels)))


def encode(labels: Sequence[str | None], space: LabelSpace) -> np.ndarray:
    """Return labels [N, ...] as the kind encodes them, its `no_label` for None. All must be in the space."""
    return space.task.encode(labels, space.names)
