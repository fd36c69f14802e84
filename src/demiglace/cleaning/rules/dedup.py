"""Rules that compare all documents of a collection, and those that find equal documents or lines.

Such a rule works like map-reduce. It computes keys for every batch (`keys`). Equal keys of the collection are brought
together, and the rule marks documents or lines to remove (`reduce`, `finalize`). The marks are applied when the batches
are read again (`apply`).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measurement, RemovedLines, RuleResult
from demiglace.cleaning.text_arrays import Texts, changes, splitmix64
from demiglace.config.options import option


@dataclass(frozen=True)
class KeyTable:
    """Keys of documents or lines, or marks, which are those to remove; each column is [K]."""

    key: np.ndarray  # uint64
    document: np.ndarray  # uint64, number in the collection
    line: np.ndarray  # int32, index in the document; 0 for documents

    def __getitem__(self, rows: np.ndarray | slice) -> "KeyTable":
        return KeyTable(self.key[rows], self.document[rows], self.line[rows])

    def __len__(self) -> int:
        return len(self.key)

    def sorted_by_key(self) -> "KeyTable":
        """Return the rows sorted by key, then document, then line."""
        ordered = self[np.argsort(self.key, kind="stable")]  # sufficient if rows came in order, as they mostly do
        document, line, equal = ordered.document, ordered.line, ~changes(ordered.key)[1:]
        is_unordered = (document[1:] < document[:-1]) | ((document[1:] == document[:-1]) & (line[1:] < line[:-1]))
        return self[np.lexsort((self.line, self.document, self.key))] if (is_unordered & equal).any() else ordered


def key_table(key: np.ndarray, document: np.ndarray, line: np.ndarray | None = None) -> KeyTable:
    """Return a `KeyTable` with the stored dtypes; without `line`, of documents."""
    line = np.zeros(len(key), np.int32) if line is None else line
    return KeyTable(key.astype(np.uint64), document.astype(np.uint64), line.astype(np.int32))


def concat_tables(parts: Sequence[KeyTable]) -> KeyTable:
    """Concatenate tables."""
    columns = zip(*((p.key, p.document, p.line) for p in parts), strict=True)
    return key_table(*map(np.concatenate, columns)) if parts else key_table(*(np.zeros(0) for _ in range(3)))


class CollectionRule(ABC):
    """A rule that compares documents; a frozen dataclass whose fields are its thresholds."""

    name: ClassVar[str]

    @abstractmethod
    def keys(self, texts: Texts, documents: np.ndarray, sites: Sequence[str]) -> KeyTable:
        """Compute the keys of a batch.

        Args:
            texts: the batch of N texts.
            documents: their numbers in the collection [N].
            sites: their web sites [N]; empty where not known.
        """

    @abstractmethod
    def reduce(self, keys: KeyTable) -> KeyTable:
        """Return the marks among keys; all rows with one key are in the same call."""

    def finalize(self, marked: KeyTable) -> KeyTable:
        """Return the final marks of the collection from the marks of all calls to `reduce`."""
        return marked

    @abstractmethod
    def apply(self, texts: Texts, marked: KeyTable) -> RuleResult:
        """Apply the marks to a batch; `marked.document` is the index of the text in the batch."""


@dataclass(frozen=True)
class ExactDuplicates(CollectionRule):
    """Drop documents with the same text as an earlier one."""

    name: ClassVar[str] = "exact-duplicates"

    def keys(self, texts: Texts, documents: np.ndarray, sites: Sequence[str]) -> KeyTable:
        """Return the first 64 bits of the BLAKE2b hash of each text."""
        digests = (hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=8).digest() for t in texts.texts)
        return key_table(np.frombuffer(b"".join(digests), np.uint64), documents)

    def reduce(self, keys: KeyTable) -> KeyTable:
        """Mark all documents but the first of each key; the key of a mark is the first document."""
        return all_but_first(keys)

    def apply(self, texts: Texts, marked: KeyTable) -> RuleResult:
        """Drop the marked documents."""
        return without_copies(texts, marked, "equal to an earlier one")


@dataclass(frozen=True)
class Boilerplate(CollectionRule):
    """Remove lines that occur in many documents of one site: menus, footers, notices. Needs the sites of documents."""

    name: ClassVar[str] = "boilerplate"

    min_documents: int = option("documents of a site with the same line, from which on it is removed", 5, at_least=2)
    max_characters: int = option("characters in a line that may be removed, at most", 300, at_least=1)

    def keys(self, texts: Texts, documents: np.ndarray, sites: Sequence[str]) -> KeyTable:
        """Return a hash of site and line for each line with a visible character."""
        if not any(sites):
            return concat_tables([])
        lines = texts.lines
        first, last, visible = texts.visible_line_bounds
        known = np.array([bool(s) for s in sites], bool)[lines.owner]
        rows = np.flatnonzero(visible & known & (lines.lengths <= self.max_characters))
        site = np.array([int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest()) for s in sites], np.uint64)
        owner = lines.owner[rows]
        keys = splitmix64(texts.hashes.of(first[rows], last[rows] + 1) ^ site[owner])
        return key_table(keys, documents[owner], rows - lines.first[owner])

    def reduce(self, keys: KeyTable) -> KeyTable:
        """Mark the lines whose key occurs in enough documents; the key of a mark is the number of these documents."""
        keys = keys.sorted_by_key()
        begins = changes(keys.key)
        group = np.cumsum(begins) - 1
        documents = np.bincount(group, begins | changes(keys.document)) if len(keys) else np.zeros(0)
        rows = np.flatnonzero(documents[group] >= self.min_documents) if len(keys) else slice(0)
        return key_table(documents[group][rows], keys.document[rows], keys.line[rows])

    def apply(self, texts: Texts, marked: KeyTable) -> RuleResult:
        """Remove the marked lines; drop documents without remaining text."""
        return without_lines(texts, marked, "in many documents of its site", marked.key, self.min_documents)


def all_but_first(keys: KeyTable) -> KeyTable:
    """Return all rows but the first of each key, by document and line; their new key is the first row's document."""
    keys = keys.sorted_by_key()
    begins = changes(keys.key)
    first = keys.document[begins][np.cumsum(begins) - 1] if len(keys) else keys.document
    return key_table(first[~begins], keys.document[~begins], keys.line[~begins])


def without_copies(texts: Texts, marked: KeyTable, name: str) -> RuleResult:
    """Return a result that drops the marked texts; the key of a mark is the document that is kept."""
    rows, values, first = marked.document.astype(np.int64), np.zeros(len(texts)), np.zeros(len(texts), np.uint64)
    values[rows], first[rows] = 1, marked.key
    return RuleResult(texts.texts, (Measurement(name, values, at_most=0, binary=True),), first=first)


def without_lines(
    texts: Texts, marked: KeyTable, reason: str, value: np.ndarray, threshold: float, first: np.ndarray | None = None
) -> RuleResult:
    """Return a result without the marked lines; it drops texts of which no visible text remains.

    Args:
        texts: the batch.
        marked: the lines to remove.
        reason: for the ledger.
        value: the measured value of each mark.
        threshold: the bound that the values violate.
        first: the number of the document with the first copy, for each mark.
    """
    lines = texts.lines
    rows = lines.first[marked.document.astype(np.int64)] + marked.line
    is_removed = np.zeros(len(lines.start), bool)
    is_removed[rows] = True
    kept = list(texts.texts)
    start, end, begin = _kept_pieces(texts, ~is_removed)
    for i in np.unique(marked.document).tolist():
        pieces = range(begin[i], begin[i + 1])
        kept[i] = "\n".join(texts.texts[i][start[k] : end[k]] for k in pieces)
    left = np.array([float(bool(t.strip())) for t in kept])
    order = np.argsort(rows, kind="stable")
    rows, value, first = rows[order], value[order].astype(float), None if first is None else first[order]
    (owner, line), bounds = _positions(texts, rows), np.full(len(rows), float(threshold))
    removed = RemovedLines(owner, line, [reason] * len(rows), contents(texts, rows), value, bounds, first)
    return RuleResult(kept, (Measurement("anything left", left, at_least=1, binary=True),), removed)


def _kept_pieces(texts: Texts, keep: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """Return the pieces between removed lines: start and end in their text, and `first` per text as in `Spans`."""
    lines = texts.lines
    border = np.zeros(len(keep) + 1, bool)  # whether a text begins at a line
    border[lines.first] = True
    begins = np.flatnonzero(keep & (border[:-1] | ~np.append(False, keep[:-1])))
    ends = np.flatnonzero(keep & (border[1:] | ~np.append(keep[1:], False)))
    offset = texts.first[lines.owner[begins]]
    start, end = lines.start[begins] - offset, lines.end[ends] - offset
    return start.tolist(), end.tolist(), np.searchsorted(begins, lines.first).tolist()


def _positions(texts: Texts, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the text of each line, and the index of the line in it."""
    owner = texts.lines.owner[rows]
    return owner, rows - texts.lines.first[owner]


def contents(texts: Texts, rows: np.ndarray) -> list[str]:
    """Return the characters of the lines with these numbers in the batch."""
    lines = texts.lines
    owner = lines.owner[rows]
    start, end = (lines.start[rows] - texts.first[owner]).tolist(), (lines.end[rows] - texts.first[owner]).tolist()
    return [texts.texts[i][a:b] for i, a, b in zip(owner.tolist(), start, end, strict=True)]
