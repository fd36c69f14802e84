"""What rules did, for the ledger and the page: counts, histograms, examples. All of it can be added up in any order."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from demiglace.cleaning.rules.base import Measure

EXAMPLES, EXCERPT = 20, 1500
_LEDGER_EXCERPT = 200
_BINS = 50
_FLOOR, _CEILING = 1e-2, 1e7  # of the logarithmic histograms, which also have a bin for less and one for more


class Entry(NamedTuple):
    """What the ledger says of a document; value and threshold: what was measured; first: the one that it is like."""

    document: int
    rule: str
    action: str
    reason: str
    value: float | None = None
    threshold: float | None = None
    excerpt: str = ""
    first: int | None = None


@dataclass(frozen=True)
class RemovedLineEntries:
    """What the ledger says of lines that a rule took out [R]: their documents, and the columns of `Removed`."""

    rule: str
    document: np.ndarray
    line: np.ndarray
    reason: Sequence[str]
    excerpt: Sequence[str]
    value: np.ndarray
    threshold: np.ndarray
    first: np.ndarray | None


@dataclass
class RuleTally:
    """One rule's counts of what went in and out, and of why."""

    documents: list[int] = field(default_factory=lambda: [0, 0])
    characters: list[int] = field(default_factory=lambda: [0, 0])
    words: list[int] = field(default_factory=lambda: [0, 0])
    changed: int = 0
    lines: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**self.__dict__, "reasons": dict(sorted(self.reasons.items()))}

    def add(self, other: Mapping[str, Any]) -> None:
        """Add another one's plain values."""
        for name in ("documents", "characters", "words"):
            setattr(self, name, [a + b for a, b in zip(getattr(self, name), other[name], strict=True)])
        self.changed += other["changed"]
        self.lines += other["lines"]
        self.reasons.update(other["reasons"])
        for name, histogram in other["histograms"].items():
            mine = self.histograms.setdefault(name, {**histogram, "counts": [0] * len(histogram["counts"])})
            mine["counts"] = [a + b for a, b in zip(mine["counts"], histogram["counts"], strict=True)]
        self.dropped = least([*self.dropped, *other["dropped"]])
        self.kept = least([*self.kept, *other["kept"]])


def histogram(measure: Measure, alive: np.ndarray) -> dict[str, Any]:
    """How often each value occurs: over 0 to 1 for shares, else over powers of ten; below and above at the ends."""
    values = measure.values[alive]
    share = all(0 <= b <= 1 for b in measure.bounds) and bool(measure.bounds)
    scale = "share" if share else "log"
    counts = np.bincount(np.searchsorted(edges_of(scale), values, side="right"), minlength=_BINS + 2)
    return {"scale": scale, "at_least": measure.at_least, "at_most": measure.at_most, "counts": counts.tolist()}


@cache
def edges_of(scale: str) -> tuple[float, ...]:
    """The borders of a histogram's bins."""
    edges = np.linspace(0, 1, _BINS + 1) if scale == "share" else np.geomspace(_FLOOR, _CEILING, _BINS + 1)
    return tuple(float(e) for e in edges)


def example(
    order: float, document: int, text: str, measure: str, value: float, threshold: float | None
) -> dict[str, Any]:
    """An example for the page; those with the least order are shown."""
    facts = {"measure": measure, "value": _plain(value), "threshold": _plain(threshold)}
    return {"order": order, "document": int(document), "text": text[:EXCERPT], **facts}


def least(examples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The examples to show."""
    return heapq.nsmallest(EXAMPLES, examples, key=lambda e: (e["order"], e["document"]))


def sampling_hash(document: int, rule: str) -> float:
    """A number from 0 to 1 by which examples are drawn: the same wherever and whenever it is asked for."""
    digest = hashlib.blake2b(f"{rule}:{document}".encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


def excerpt(text: str) -> str:
    """How a text begins, for the ledger."""
    return text[:_LEDGER_EXCERPT]


def margins(measures: Sequence[Measure]) -> tuple[np.ndarray, np.ndarray]:
    """How near each text is to the nearest bound, relative to that bound [N], and which measure's bound it is [N].

    No text is near a bound of 0: those that keep it are on it, or it bounds nothing.
    """
    best, which = np.full(len(measures[0].values), np.inf), np.zeros(len(measures[0].values), np.int64)
    for number, measure in enumerate(measures):
        for bound in filter(None, measure.bounds):
            margin = np.abs(measure.values - bound) / abs(bound)
            nearer = margin < best
            best[nearer], which[nearer] = margin[nearer], number
    return best, which


def _plain(number: float | None) -> float | None:
    """None for what JSON has no number for."""
    return None if number is None or not np.isfinite(number) else float(number)
