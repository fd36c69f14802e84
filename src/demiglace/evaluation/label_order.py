"""Check of an assumed order of a model's classes against labelled rows."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from demiglace.labels import flags

_SURE = 3.0  # standard deviations; 1 of 700 at random


def better_order(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray | None:
    """Return the class of each label, int [C], that fits the rows significantly better than equal ids; or None.

    labels, predictions: int [N], each below `classes`, or [N, C] of 0 and 1 for rows with any number of labels.
    It is the assignment with the most rows right (Hungarian
    algorithm). To exclude chance, it is fitted on one half of the rows and tested on the other: it must be right more
    often there than the most frequent class, and the rows won must exceed those lost by three standard deviations,
    (won − lost)² > 9 (won + lost), as in McNemar's test.
    """
    mixed = np.random.default_rng(0).permutation(len(labels))  # files are often sorted, or alternate
    tried, held_out = mixed[::2], mixed[1::2]
    order = _assignment(_counts(labels[tried], predictions[tried], classes))
    tested = _counts(labels[held_out], predictions[held_out], classes)
    moved = order != np.arange(classes)
    right = tested[np.arange(classes), order]
    won, lost = right[moved].sum(), np.diag(tested)[moved].sum()
    is_sure = won > lost and (won - lost) ** 2 > _SURE**2 * (won + lost)
    if not is_sure or right.sum() <= tested.sum(axis=1).max():
        return None
    return _assignment(_counts(labels, predictions, classes))


def _counts(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Return the number of rows by label and predicted class, int64 [C, C]."""
    if labels.ndim == 2:
        return (labels.T @ predictions).astype(np.int64)
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def _assignment(counts: np.ndarray) -> np.ndarray:
    return linear_sum_assignment(counts, maximize=True)[1]


def contradiction(
    labels: np.ndarray, predictions: np.ndarray, label_names: Sequence[str], class_names: Sequence[str]
) -> str | None:
    """Return a warning if another order of the model's classes fits the labelled rows significantly better, or None.

    labels, predictions: as in `better_order`; class_names: the model's name of the class that counts as each label.
    """
    order = better_order(labels, predictions, len(label_names))
    if order is None:
        return None
    if labels.ndim == 2:
        measure, count = "recall", max(labels.sum(), 1.0)
        now, then = float((labels * predictions).sum() / count), float((labels * predictions[:, order]).sum() / count)
    else:
        measure = "accuracy"
        now, then = float((labels == predictions).mean()), float((order[labels] == predictions).mean())
    return (
        f"the labels contradict the assumed order of the model's classes: {measure} {now:.3f} on {len(labels)} rows, "
        f"and {then:.3f} in another order; give {flags(label_names, [class_names[i] for i in order])}"
    )
