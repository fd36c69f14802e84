"""What tasks on rows share: labels with names, and labels that are numbers."""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from demiglace.tasks.base import Label, RowTask, names_in

LABEL_COLUMNS = (
    *("label", "labels", "category", "class", "intent", "target", "score", "stars", "rating", "sentiment", "topic"),
    *("emotion", "gold_label", "similarity"),
)


def sorted_names(labels: Iterable[Label]) -> tuple[str, ...]:
    """Return the distinct names of labels sorted, numerically where all are integers."""
    names = {name for label in labels for name in names_in(label)}
    integers = all(re.fullmatch(r"[+-]?\d+", name) for name in names)
    return tuple(sorted(names, key=(lambda n: (int(n), n)) if integers else None))


def number(label: Label) -> float | None:
    """Return the finite number that a label is, or None."""
    try:
        value = float(label)  # type: ignore[arg-type] # a tuple raises TypeError
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


class NamedLabels(RowTask):
    """Any text names a label; the head has one output for each name."""

    def head_width(self, names: Sequence[str]) -> int:
        """Return the number of names."""
        return len(names)

    def label_fault(self, label: Label) -> str | None:
        """Return None: any text names a label."""
        return None

    def label_names(self, labels: Sequence[Label]) -> tuple[str, ...]:
        """Return the distinct labels in order, see `sorted_names`."""
        return sorted_names(labels)

    def hub_task(self, *, masked: bool) -> str:
        """Return the Hub's text-classification, whose pipeline reads the problem type in the config."""
        return "text-classification"


class NumberLabels(RowTask):
    """Labels are finite numbers, float32 [N]; NaN is a missing one."""

    def label_fault(self, label: Label) -> str | None:
        """Return what is wrong with a label that is not a finite number."""
        return "label is no number" if number(label) is None else None

    def label_names(self, labels: Sequence[Label]) -> tuple[str, ...]:
        """Return nothing: numbers have no names."""
        return ()

    def encode(self, labels: Sequence[Label | None], names: Sequence[str]) -> np.ndarray:
        """Return the numbers, float32 [N]; NaN for a missing label."""
        return np.array([math.nan if label is None else number(label) for label in labels], dtype=np.float32)

    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return which labels are not NaN."""
        return ~np.isnan(labels)
