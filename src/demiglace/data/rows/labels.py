"""Labels of files: their text, the kind of problem that they make, and their encoding."""

import ast
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from demiglace.console import say
from demiglace.data.rows.schema import LabelSpace
from demiglace.errors import DataError
from demiglace.tasks.base import Label, RowTask
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.label_kinds import number
from demiglace.tasks.multi_label import MULTI_LABEL
from demiglace.tasks.registry import row_task
from demiglace.tasks.regression import REGRESSION

_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
_GROUPED = r"\d{{1,3}}(?:[{}]\d{{3}})+"  # digits in groups of three
_SPACES = " \u00a0\u202f'’"
_WITH_POINT = re.compile(rf"[+-]?{_GROUPED.format(',' + _SPACES)}(?:\.\d+)?")  # 1,234.5
_WITH_COMMA = re.compile(rf"[+-]?(?:\d+|{_GROUPED.format('.' + _SPACES)}),\d+")  # 1.234,5
_DIGITS = re.compile(rf"[+-]?\d[\d.,{_SPACES}]*\d")
_POINT_AS_GROUP = re.compile(rf"[+-]?{_GROUPED.format('.')}")
_MOST_TEXTS = 0.5  # share of texts in a column of lists
_FEW = 20  # with fewer labels, a single fraction is no oddity


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
    are divided by the one of the `separators` that occurs in most of them.
    """
    plain = [label for label in labels if isinstance(label, str) and bracketed(label) is None]
    found = {separator: sum(separator in label for label in plain) for separator in separators}
    best = max(separators, key=lambda separator: found[separator])
    separator = best if found[best] else None
    return [None if label is None else _divided(label, separator) for label in labels], separator


def _divided(label: Label, separator: str | None) -> tuple[str, ...]:
    if isinstance(label, tuple):
        return label
    listed = bracketed(label)
    parts = listed if listed is not None else label.split(separator) if separator else [label]
    return tuple(part.strip() for part in parts if part.strip())


def bracketed(label: str) -> tuple[str, ...] | None:
    """Return the texts of a list that is written out, or None where a text is no such list."""
    if not (label.startswith("[") and label.endswith("]")):
        return None
    try:
        found = label_of(ast.literal_eval(label))
    except (TypeError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, tuple) else None


def infer_task(labels: Sequence[Label], wanted: str = "auto") -> RowTask:
    """Return the kind of problem: the one named `wanted`; for "auto", regression if the labels are numbers and some
    have a fraction, else classification.

    Up to 10 % of the labels may be no numbers ("n/a"): those rows are errors, and do not turn numbers into classes.
    Raises `ConfigError` for an unknown name, and `DataError` where one label decides over all, or where commas leave
    open what the labels are.
    """
    if wanted != "auto":
        return row_task(wanted)
    texts = [label for label in labels if isinstance(label, str)]
    if len(texts) < _MOST_TEXTS * len(labels):
        say("the labels are lists: multi-label classification.")
        return MULTI_LABEL
    _check_separators(texts)
    if not _mostly_numbers(texts):
        return CLASSIFICATION
    fractions = [label for label in texts if number(label) is not None and not _WHOLE.fullmatch(label)]
    if len(fractions) == 1 and len(texts) >= _FEW:
        raise DataError(
            f"of {len(texts):,} labels, {fractions[0]!r} alone is a number with a fraction; correct it, or give "
            "--problem regression for numbers, or --problem classification for classes."
        )
    return REGRESSION if fractions else CLASSIFICATION


def _mostly_numbers(labels: Sequence[str], others: int = 0) -> bool:
    """Return whether all labels but 10 % are numbers, or are among the `others` that were found to be numbers."""
    rest = sum(number(label) is None for label in labels) - others
    return rest < len(labels) and rest <= (len(labels) + 5) // 10


def _separated(labels: Iterable[str]) -> list[str]:
    """Return the labels that are numbers but for commas, spaces or apostrophes between their digits."""
    return [label for label in labels if number(label) is None and _DIGITS.fullmatch(label)]


def _check_separators(labels: Sequence[str]) -> None:
    found = _separated(labels)
    if found and _mostly_numbers(labels, len(found)):
        raise DataError(
            f"{len(found):,} of {len(labels):,} labels are numbers with a separator, such as {found[0]!r}. Give "
            "--problem regression to read them as numbers with decimal commas or thousands separators, or --problem "
            "classification to take them as the names of classes."
        )


def plain_numbers(labels: Sequence[str | None]) -> list[str | None]:
    """Return numbers without thousands separators, and with a decimal point: "1.234,5" and "1,234.5" as "1234.5".

    Labels that are no numbers stay as they are. Raises `DataError` where a comma could be either.
    """
    present = [label for label in labels if label is not None]
    found = _separated(present)
    if not found:
        return list(labels)
    points = [label for label in present if "." in label and number(label) is not None]
    comma = all(map(_WITH_COMMA.fullmatch, found)) and all(map(_POINT_AS_GROUP.fullmatch, points))
    point = all(map(_WITH_POINT.fullmatch, found))
    if comma == point:
        raise DataError(
            f"{len(found):,} labels have commas or points between their digits, such as {found[0]!r}, and it is open "
            "which of them is the decimal one; write them as 1234.5."
        )
    say(f"{len(found):,} labels are read as numbers with {'decimal commas' if comma else 'thousands separators'}.")
    groups = re.compile(rf"[{'.' if comma else ','}{_SPACES}]")
    return [None if label is None else _plain(label, groups) for label in labels]


def _plain(label: str, groups: re.Pattern[str]) -> str:
    return groups.sub("", label).replace(",", ".") if _DIGITS.fullmatch(label) else label


def plain_labels(labels: Sequence[Label | None], problem: str) -> list[Label | None]:
    """Return labels with numbers written alike, for a kind of problem or "auto"; lists stay as they are."""
    texts = [label for label in labels if not isinstance(label, tuple)]
    if len(texts) < len(labels):
        return list(labels)
    return [*(plain_numbers(texts) if problem == REGRESSION.name else plain_integers(texts))]


def plain_integers(labels: Sequence[str | None]) -> list[str | None]:
    """Return "1.0" as "1" if all numbers are integers: a column with gaps is often saved as floats."""
    present = [label for label in labels if label is not None]
    if not _mostly_numbers(present) or not all(_WHOLE.fullmatch(x) for x in {*present} if number(x) is not None):
        return list(labels)
    return [label if label is None or number(label) is None else label.partition(".")[0] for label in labels]


def label_space(labels: Iterable[Label], task: RowTask) -> LabelSpace:
    """Return the label space of the labels that occur, the names in the order of their ids."""
    return LabelSpace(task, task.label_names(list(labels)))


def encode(labels: Sequence[Label | None], space: LabelSpace) -> np.ndarray:
    """Return labels [N, ...] as the kind encodes them, its `no_label` for None. All must be in the space."""
    return space.task.encode(labels, space.names)
