"""Sampling rows: a validation split held out, a subset of the training rows. A seed gives the same rows everywhere."""

import itertools
import sys
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from demiglace.data.rows.schema import Split

_BLOCK = 1 << 16  # random numbers that are drawn at once
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class RowSample:
    """How many rows of a file are read into memory: all, or a number of them, drawn at random with a seed."""

    count: int = sys.maxsize
    seed: int = 0

    def of(self, rows: Iterable[_Row]) -> tuple[list[_Row], int | None]:
        """Return the drawn rows in their order, and the number of all rows if these are fewer.

        Holds only the drawn rows in memory (algorithm R of Vitter, "Random sampling with a reservoir", 1985).
        """
        rows = iter(rows)
        kept = list(itertools.islice(rows, self.count))
        positions, total = np.arange(len(kept)), len(kept)
        for row, slot in zip(rows, self._slots(), strict=False):
            if slot < self.count:
                kept[slot], positions[slot] = row, total
            total += 1
        return [kept[i] for i in np.argsort(positions)] if total > len(kept) else kept, _total(total, len(kept))

    def _slots(self) -> Iterator[int]:
        """Yield which drawn row each further row takes the place of; `count` or more: none."""
        rng = np.random.default_rng(self.seed)
        for first in itertools.count(self.count, _BLOCK):
            yield from rng.integers(0, np.arange(first, first + _BLOCK) + 1).tolist()

    def indices(self, rows: int) -> tuple[np.ndarray, int | None]:
        """Return the drawn row numbers of a file with so many rows, ascending, and the second value of `of`."""
        return draw(rows, self.count, self.seed), _total(rows, self.count)


EVERY_ROW = RowSample()


def _total(rows: int, kept: int) -> int | None:
    return rows if rows > kept else None


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
