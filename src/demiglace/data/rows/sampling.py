"""Sampling rows: a validation split held out, a subset of the training rows. A seed gives the same rows everywhere."""

from collections.abc import Hashable, Sequence

import numpy as np

from demiglace.data.rows.schema import Split


def stratified_holdout(keys: Sequence[Hashable], classes: np.ndarray, fraction: float, seed: int = 0) -> np.ndarray:
    """Return which rows are held out, bool [N]: a stratified `fraction` of the distinct rows.

    Rows with equal keys (the same texts) stay together, so that no held-out row is trained on. classes: int64 [N], the
    kind of problem's strata. The first row of each class is never held out.
    """
    group_of: dict[Hashable, int] = {}
    groups = np.array([group_of.setdefault(key, len(group_of)) for key in keys], dtype=np.int64)
    first = np.unique(groups, return_index=True)[1]
    kinds = classes[first]
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(kinds[order], kind="stable")]  # by class, at random within
    starts = np.unique(kinds[order], return_index=True)[1]
    eligible = np.delete(order, starts)
    wanted = min(len(eligible), round(fraction * len(first)))
    # every k-th of the rows sorted by class: each class gives its share, to within one row
    chosen = eligible[(np.arange(wanted) * len(eligible)) // max(wanted, 1)]
    return np.isin(groups, chosen)


def draw(rows: int, count: int, seed: int = 0) -> np.ndarray:
    """Return `count` of `rows` row numbers, sampled without replacement, in ascending order."""
    return np.sort(np.random.default_rng(seed).choice(rows, size=min(count, rows), replace=False))


def select_rows(split: Split, rows: np.ndarray, name: str | None = None) -> Split:
    """Return these rows of a split, by number, in this order."""
    picked = [int(i) for i in rows]
    return Split(
        name=name or split.name,
        texts=[split.texts[i] for i in picked],
        pairs=None if split.pairs is None else [split.pairs[i] for i in picked],
        labels=split.labels[rows],
        lines=[split.lines[i] for i in picked],
        groups=None if split.groups is None else [split.groups[i] for i in picked],
        words=None if split.words is None else [split.words[i] for i in picked],
    )
