"""Near-duplicates by MinHash: Broder 1997, *On the resemblance and containment of documents*.

Texts become sets of n words in a row. Signatures are cut into bands; two texts that agree in a band are the same to us,
which happens with probability 1 − (1 − J^rows)^bands at a Jaccard similarity J. 14 bands of 8 rows and 5 words are
FineWeb's choice (arXiv 2406.17557): half of the pairs at J = 0.72 are found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import RuleResult
from demiglace.cleaning.rules.dedup import CollectionRule, KeyTable, marks, without_copies
from demiglace.cleaning.text_arrays import Texts, changes, ngram_hashes, splitmix64
from demiglace.config.options import option

_SEED = 20211001


@dataclass(frozen=True)
class NearDuplicates(CollectionRule):
    """Of texts that agree in a band, directly or through others, the first one stays."""

    name: ClassVar[str] = "near-duplicates"

    words: int = option("words in a row that are compared; case and marks do not count", 5, at_least=1)
    bands: int = option("bands of the signature", 14, at_least=1)
    rows: int = option("hashes in a band", 8, at_least=1)

    def keys(self, texts: Texts, documents: np.ndarray, sites: Sequence[str]) -> KeyTable:
        """The hash of each band; texts without a word have none."""
        hashes, first = shingles(texts, self.words)
        there = np.flatnonzero(np.diff(first) > 0)
        signature = signatures(hashes, first[np.append(there, len(texts))], self.bands * self.rows)
        bands = band_keys(signature, self.bands)
        line = np.broadcast_to(np.arange(self.bands), bands.shape)
        return marks(bands.ravel(), np.repeat(documents[there], self.bands), line.ravel())

    def settle(self, keys: KeyTable) -> KeyTable:
        """Every document but the first of a key, and as its key that first one."""
        keys = keys.sorted_by_key()
        begins = changes(keys.key)
        first = keys.document[begins][np.cumsum(begins) - 1] if len(keys) else keys.document
        pairs = np.unique(np.stack([first, keys.document], 1)[keys.document != first], axis=0)
        return marks(pairs[:, 0], pairs[:, 1])

    def conclude(self, marked: KeyTable) -> KeyTable:
        """All documents of a cluster but its first one, and as their key that first one."""
        from scipy.sparse import coo_array  # not above: it takes a third of the time that a worker needs to start
        from scipy.sparse.csgraph import connected_components

        nodes, places = np.unique(np.concatenate([marked.key, marked.document]), return_inverse=True)
        one, other = places[: len(marked)], places[len(marked) :]
        graph = coo_array((np.ones(len(marked), bool), (one, other)), shape=(len(nodes), len(nodes)))
        _, cluster = connected_components(graph, directed=False)
        first = np.full(cluster.max(initial=-1) + 1, np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(first, cluster, nodes)
        copies = first[cluster] != nodes
        return marks(first[cluster[copies]], nodes[copies])

    def apply(self, texts: Texts, marked: KeyTable) -> RuleResult:
        """What is marked is dropped."""
        return without_copies(texts, marked, "much like an earlier one")

    def probability(self, similarity: float) -> float:
        """The probability that two texts of this Jaccard similarity agree in a band."""
        return 1 - (1 - similarity**self.rows) ** self.bands


def shingles(texts: Texts, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of n words in a row [G] and where each text's begin [N + 1]; of shorter texts, of all their words."""
    words, first = texts.shingle_words
    counts = np.diff(first)
    hashes = splitmix64(ngram_hashes(words, n))
    starts = np.arange(len(words))
    whole = (starts + n) <= np.repeat(first[1:], counts)
    place = np.flatnonzero(whole)
    short = np.flatnonzero((counts > 0) & (counts < n))
    if not len(short):
        return hashes[place], np.searchsorted(place, first)
    rest = [splitmix64(ngram_hashes(words[first[i] : first[i + 1]], int(counts[i]))) for i in short]
    found = np.concatenate([hashes[place], *rest])
    owner = np.concatenate([np.searchsorted(first, place, side="right") - 1, short])
    order = np.argsort(owner, kind="stable")
    return found[order], np.searchsorted(owner[order], np.arange(len(first)))


def signatures(hashes: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
    """The least of each text's hashes under `count` functions a·h + b mod 2^32; uint32 [N, count], no text empty."""
    high = (hashes >> np.uint64(32)).astype(np.uint32)
    a, b = _functions(count)
    result = np.empty((count, len(first) - 1), np.uint32)
    values = np.empty_like(high)
    for k in range(count if len(first) > 1 else 0):
        np.multiply(high, a[k], out=values)
        np.add(values, b[k], out=values)
        np.minimum.reduceat(values, first[:-1], out=result[k])
    return result.T


def band_keys(signature: np.ndarray, bands: int) -> np.ndarray:
    """One hash for each band of the signatures [N, bands · rows], other ones for other bands; uint64 [N, bands]."""
    parts = signature.reshape(len(signature), bands, -1).astype(np.uint64)
    key = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), parts.shape[:2])
    for row in range(parts.shape[2]):
        key = splitmix64(key ^ splitmix64(parts[:, :, row] + np.uint64(row + 1)))
    return key


@cache
def _functions(count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(_SEED)
    a, b = draw.integers(0, 2**32, (2, count), dtype=np.uint32)
    return a | np.uint32(1), b
