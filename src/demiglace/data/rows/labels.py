"""Labels as they stand in files to class ids or numbers."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from demiglace.data.rows.schema import UNLABELLED, LabelSpace, Problem

_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")


def label_text(value: Any) -> str | None:
    """A label's name: 3, 3.0 and " 3 " are all "3"; none for a missing one (null, NaN, blank)."""
    if isinstance(value, str):
        return value.strip() or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def number(text: str) -> float | None:
    """The finite number that a label is, or none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def infer_problem(labels: Sequence[str], wanted: Literal["auto", "classification", "regression"] = "auto") -> Problem:
    """What the labels are: `wanted`, or regression where they are numbers and one has a fraction, else classes.

    A few that are no numbers ("n/a") do not turn numbers into classes; they are rows to mend.
    """
    if wanted != "auto":
        return wanted
    distinct = set(labels)
    numbers = [label for label in distinct if number(label) is not None]
    fraction = not all(map(_WHOLE.fullmatch, numbers))
    return "regression" if fraction and len(numbers) >= 0.9 * len(distinct) else "classification"


def plain_integers(labels: Sequence[str | None]) -> list[str | None]:
    """ "1.0" as "1", as files written from a column with gaps have it, where all labels are whole numbers."""
    if not all(_WHOLE.fullmatch(label) for label in set(labels) if label is not None):
        return list(labels)
    return [None if label is None else label.partition(".")[0] for label in labels]


def label_space(labels: Iterable[str], problem: Problem) -> LabelSpace:
    """Classes in the sorted order of their names; numerically where all are integers."""
    if problem == "regression":
        return LabelSpace("regression")
    names = set(labels)
    integers = all(re.fullmatch(r"[+-]?\d+", name) for name in names)
    return LabelSpace("classification", tuple(sorted(names, key=(lambda n: (int(n), n)) if integers else None)))


def encode(labels: Sequence[str | None], space: LabelSpace) -> np.ndarray:
    """int64 [N] class ids or float32 [N] numbers; `UNLABELLED` or NaN for a missing label. All must be in the space."""
    if space.problem == "regression":
        return np.array([math.nan if label is None else float(label) for label in labels], dtype=np.float32)
    ids: dict[str | None, int] = {name: i for i, name in enumerate(space.names)}
    ids[None] = UNLABELLED
    return np.array([ids[label] for label in labels], dtype=np.int64)
