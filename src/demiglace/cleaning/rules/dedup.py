"""Rules that compare the documents of a whole collection, and those that look for equal documents or lines.

Such a rule gives keys for every batch; keys that are equal are brought together, wherever in the collection they are;
the rule marks documents or lines by them; and what is marked is taken out when the batches are read again.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measure, RemovedLines, RuleResult
from demiglace.cleaning.text_arrays import Texts, changes, splitmix64
from demiglace.config.options import option


@dataclass(frozen=True)
class KeyTable:
    """Keys, or what was marked by them: key, number of the document in the collection, line in it; each [K]."""

    key: np.ndarray
    document: np.ndarray
    line: np.ndarray

    def __getitem__(self, rows: np.ndarray | slice) -> "KeyTable":
        return KeyTable(self.key[rows], self.document[rows], self.line[rows])

    def __len__(self) -> int:
        return len(self.key)

    def sorted_by_key(self) -> "KeyTable":
        """In the order of keys, and of documents and lines where those are equal."""
        found = self[np.argsort(self.key, kind="stable")]  # enough where they came in order, as they most often do
        document, line, equal = found.document, found.line, ~changes(found.key)[1:]
        turned = (document[1:] < document[:-1]) | ((document[1:] == document[:-1]) & (line[1:] < line[:-1]))
        return self[np.lexsort((self.line, self.document, self.key))] if (turned & equal).any() else found


def marks(key: np.ndarray, document: np.ndarray, line: np.ndarray | None = None) -> KeyTable:
    """`KeyTable` in the kinds they are stored in; without lines, of whole documents."""
    line = np.zeros(len(key), np.int32) if line is None else line
    return KeyTable(key.astype(np.uint64), document.astype(np.uint64), line.astype(np.int32))


def joined(parts: Sequence[KeyTable]) -> KeyTable:
    """All marks one after another."""
    columns = zip(*((p.key, p.document, p.line) for p in parts), strict=True)
    return marks(*map(np.concatenate, columns)) if parts else marks(*(np.zeros(0) for _ in range(3)))


class CollectionRule(ABC):
    """A rule on a collection; a frozen dataclass whose fields are its thresholds."""

    name: ClassVar[str]

    @abstractmethod
    def keys(self, texts: Texts, documents: np.ndarray, sites: Sequence[str]) -> KeyTable:
        """The keys of a batch whose texts are these documents of the collection [N], from these sites."""

    @abstractmethod
    def settle(self, keys: KeyTable) -> KeyTable:
        """What is marked among keys, of which all equal ones are here."""

    def conclude(self, marked: KeyTable) -> KeyTable:
        """What is marked in the whole collection, from what was marked anywhere."""
        return marked

    @abstractmethod
    def apply(self, texts: Texts, marked: KeyTable) -> RuleResult:
        """What becomes of a batch; `marked.document` counts from its first text."""


@dataclass(frozen=True)
class ExactDuplicates(CollectionRule):
    """Of equal texts the first one stays."""

    name: ClassVar[str] = "exact-duplicates"

    def keys(self, texts: Texts, documents: np.ndarray, sites: Sequence[str]) -> KeyTable:
        """The first 64 bits of each text's BLAKE2."""
        digests = (hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=8).digest() for t in texts.texts)
        return marks(np.frombuffer(b"".join(digests), np.uint64), documents)

    def settle(self, keys: KeyTable) -> KeyTable:
        """All but the first of each key, and as their key that first one."""
        return all_but_first(keys)

    def apply(self, texts: Texts, marked: KeyTable) -> RuleResult:
        """What is marked is dropped."""
        return without_copies(texts, marked, "equal to an earlier one")


@dataclass(frozen=True)
class Boilerplate(CollectionRule):
    """Lines that stand in many documents of one site: menus, footers, notices. Nothing where no site is known."""

    name: ClassVar[str] = "boilerplate"

    min_documents: int = option("documents of a site that a line has to be in to be taken out", 5, at_least=2)
    max_characters: int = option("longer lines stay", 300, at_least=1)

    def keys(self, texts: Texts, documents: np.ndarray, sites: Sequence[str]) -> KeyTable:
        """Site and line, hashed."""
        if not any(sites):
            return joined([])
        lines = texts.lines
        first, last, visible = texts.edges
        known = np.array([bool(s) for s in sites], bool)[lines.owner]
        rows = np.flatnonzero(visible & known & (lines.lengths <= self.max_characters))
        site = np.array([int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest()) for s in sites], np.uint64)
        owner = lines.owner[rows]
        keys = splitmix64(texts.hashes.of(first[rows], last[rows] + 1) ^ site[owner])
        return marks(keys, documents[owner], rows - lines.first[owner])

    def settle(self, keys: KeyTable) -> KeyTable:
        """All lines whose key is in enough different documents, and as their key how many these are."""
        keys = keys.sorted_by_key()
        begins = changes(keys.key)
        group = np.cumsum(begins) - 1
        documents = np.bincount(group, begins | changes(keys.document)) if len(keys) else np.zeros(0)
        rows = np.flatnonzero(documents[group] >= self.min_documents) if len(keys) else slice(0)
        return marks(documents[group][rows], keys.document[rows], keys.line[rows])

    def apply(self, texts: Texts, marked: KeyTable) -> RuleResult:
        """Lines are taken out; a document of which nothing is left is dropped."""
        return without_lines(texts, marked, "in many documents of its site", marked.key, self.min_documents)


def all_but_first(keys: KeyTable) -> KeyTable:
    """All but the first of each key, in the order of documents and lines, and as their key the first's document."""
    keys = keys.sorted_by_key()
    begins = changes(keys.key)
    first = keys.document[begins][np.cumsum(begins) - 1] if len(keys) else keys.document
    return marks(first[~begins], keys.document[~begins], keys.line[~begins])


def without_copies(texts: Texts, marked: KeyTable, name: str) -> RuleResult:
    """The texts, of which those that are marked do not keep the bound; their keys are the documents that stay."""
    rows, values, first = marked.document.astype(np.int64), np.zeros(len(texts)), np.zeros(len(texts), np.uint64)
    values[rows], first[rows] = 1, marked.key
    return RuleResult(texts.texts, (Measure(name, values, at_most=0, binary=True),), first=first)


def without_lines(
    texts: Texts, marked: KeyTable, reason: str, value: np.ndarray, threshold: float, first: np.ndarray | None = None
) -> RuleResult:
    """The texts without the lines that are marked; those of which nothing is left do not keep the bound.

    value, first: of each mark, and threshold, see `RemovedLines`.
    """
    lines = texts.lines
    rows = lines.first[marked.document.astype(np.int64)] + marked.line
    gone = np.zeros(len(lines.start), bool)
    gone[rows] = True
    kept = list(texts.texts)
    start, end, begin = _runs(texts, ~gone)
    for i in np.unique(marked.document).tolist():
        pieces = range(begin[i], begin[i + 1])
        kept[i] = "\n".join(texts.texts[i][start[k] : end[k]] for k in pieces)
    left = np.array([float(bool(t.strip())) for t in kept])
    order = np.argsort(rows, kind="stable")
    rows, value, first = rows[order], value[order].astype(float), None if first is None else first[order]
    (owner, line), bounds = _places(texts, rows), np.full(len(rows), float(threshold))
    removed = RemovedLines(owner, line, [reason] * len(rows), contents(texts, rows), value, bounds, first)
    return RuleResult(kept, (Measure("anything left", left, at_least=1, binary=True),), removed)


def _runs(texts: Texts, keep: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """The pieces between lines that are taken out: start and end in their text, and those of text i, as of `Spans`."""
    lines = texts.lines
    border = np.zeros(len(keep) + 1, bool)  # whether a text begins with a line
    border[lines.first] = True
    begins = np.flatnonzero(keep & (border[:-1] | ~np.append(False, keep[:-1])))
    ends = np.flatnonzero(keep & (border[1:] | ~np.append(keep[1:], False)))
    offset = texts.first[lines.owner[begins]]
    start, end = lines.start[begins] - offset, lines.end[ends] - offset
    return start.tolist(), end.tolist(), np.searchsorted(begins, lines.first).tolist()


def _places(texts: Texts, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The text of each line, and which of its lines it is."""
    owner = texts.lines.owner[rows]
    return owner, rows - texts.lines.first[owner]


def contents(texts: Texts, rows: np.ndarray) -> list[str]:
    """Return the characters of the lines with these numbers in the batch."""
    lines = texts.lines
    owner = lines.owner[rows]
    start, end = (lines.start[rows] - texts.first[owner]).tolist(), (lines.end[rows] - texts.first[owner]).tolist()
    return [texts.texts[i][a:b] for i, a, b in zip(owner.tolist(), start, end, strict=True)]
