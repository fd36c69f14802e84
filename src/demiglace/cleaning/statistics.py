"""Statistics of rules for the ledger and the page: counts, histograms, examples. All can be summed in any order."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from demiglace.cleaning.rules.base import Measurement

EXAMPLES, EXCERPT = 20, 1500  # examples per rule on the page; their characters
_LEDGER_EXCERPT = 200  # characters
_BINS = 50
_FLOOR, _CEILING = 1e-2, 1e7  # of the logarithmic histograms; one bin each for values below and above


class Entry(NamedTuple):
    """A row of the ledger about a document."""

    document: int  # number in the collection
    rule: str
    action: str  # "dropped" or "changed"
    reason: str
    value: float | None = None  # the measured value
    threshold: float | None = None  # the bound that it violates
    excerpt: str = ""
    first: int | None = None  # the earlier document of which it is a copy


@dataclass(frozen=True)
class RemovedLineEntries:
    """Rows of the ledger about lines that a rule removed; the columns [R] are those of `RemovedLines`."""

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
    """The counts of one rule."""

    documents: list[int] = field(default_factory=lambda: [0, 0])  # in, out
    characters: list[int] = field(default_factory=lambda: [0, 0])  # in, out
    words: list[int] = field(default_factory=lambda: [0, 0])  # in, out
    changed: int = 0  # documents
    lines: int = 0  # removed lines
    reasons: Counter[str] = field(default_factory=Counter)  # reason -> dropped documents or removed lines
    notes: Counter[str] = field(default_factory=Counter)  # what was done to documents that are used -> their number
    histograms: dict[str, dict[str, Any]] = field(default_factory=dict)  # measurement -> histogram
    dropped: list[dict[str, Any]] = field(default_factory=list)  # examples
    kept: list[dict[str, Any]] = field(default_factory=list)  # examples closest to a bound

    def as_json(self) -> dict[str, Any]:
        """Return the tally as JSON values."""
        return {**self.__dict__, "reasons": dict(sorted(self.reasons.items())), "notes": dict(+self.notes)}

    def add(self, other: Mapping[str, Any]) -> None:
        """Add another tally, given as JSON values."""
        for name in ("documents", "characters", "words"):
            setattr(self, name, [a + b for a, b in zip(getattr(self, name), other[name], strict=True)])
        self.changed += other["changed"]
        self.lines += other["lines"]
        self.reasons.update(other["reasons"])
        self.notes.update(other["notes"])
        for name, histogram in other["histograms"].items():
            own_histogram = self.histograms.setdefault(name, {**histogram, "counts": [0] * len(histogram["counts"])})
            own_histogram["counts"] = [a + b for a, b in zip(own_histogram["counts"], histogram["counts"], strict=True)]
        self.dropped = smallest([*self.dropped, *other["dropped"]])
        self.kept = smallest([*self.kept, *other["kept"]])


def histogram(measurement: Measurement, keep_mask: np.ndarray) -> dict[str, Any]:
    """Return the histogram of the kept documents' values.

    The bins cover 0 to 1 for shares, otherwise powers of ten. The first and last bins hold the values outside.
    """
    values = measurement.values[keep_mask]
    share = all(0 <= b <= 1 for b in measurement.bounds) and bool(measurement.bounds)
    scale = "share" if share else "log"
    counts = np.bincount(np.searchsorted(bin_edges(scale), values, side="right"), minlength=_BINS + 2)
    return {"scale": scale, "at_least": measurement.at_least, "at_most": measurement.at_most, "counts": counts.tolist()}


@cache
def bin_edges(scale: str) -> tuple[float, ...]:
    """Return the edges of the bins of a scale, "share" or "log"."""
    edges = np.linspace(0, 1, _BINS + 1) if scale == "share" else np.geomspace(_FLOOR, _CEILING, _BINS + 1)
    return tuple(float(e) for e in edges)


def example(
    order: float, document: int, text: str, measurement: str, value: float, threshold: float | None
) -> dict[str, Any]:
    """Return an example for the page, which shows those with the smallest `order`."""
    facts = {"measure": measurement, "value": _plain(value), "threshold": _plain(threshold)}
    return {"order": order, "document": int(document), "text": text[:EXCERPT], **facts}


def smallest(examples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the examples to show."""
    return heapq.nsmallest(EXAMPLES, examples, key=lambda e: (e["order"], e["document"]))


def sampling_hash(document: int, rule: str) -> float:
    """Return a pseudo-random number in [0, 1) that samples examples; it depends only on the document and the rule."""
    digest = hashlib.blake2b(f"{rule}:{document}".encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


def excerpt(text: str) -> str:
    """Return the beginning of a text, for the ledger."""
    return text[:_LEDGER_EXCERPT]


def margins(measurements: Sequence[Measurement]) -> tuple[np.ndarray, np.ndarray]:
    """Return the relative distance of each text to its closest bound [N], and the index of that measurement [N].

    Bounds of 0 are ignored: a relative distance to 0 is not defined.
    """
    best, which = np.full(len(measurements[0].values), np.inf), np.zeros(len(measurements[0].values), np.int64)
    for number, measurement in enumerate(measurements):
        for bound in filter(None, measurement.bounds):
            margin = np.abs(measurement.values - bound) / abs(bound)
            nearer = margin < best
            best[nearer], which[nearer] = margin[nearer], number
    return best, which


def _plain(number: float | None) -> float | None:
    """Return None for a number that JSON cannot represent."""
    return None if number is None or not np.isfinite(number) else float(number)
