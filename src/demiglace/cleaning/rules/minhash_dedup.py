"""Near-duplicates by MinHash: Broder 1997, *On the resemblance and containment of documents*.

A text becomes a set of word n-grams (shingles) and a MinHash signature, which is split into bands. Two texts with an
equal band count as near-duplicates. At Jaccard similarity J this has probability 1 − (1 − J^rows)^bands. The defaults,
14 bands of 8 rows and 5-grams, are those of FineWeb (arXiv 2406.17557); they find half of the pairs at J = 0.72.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import RuleResult
from demiglace.cleaning.rules.dedup import CollectionRule, KeyTable, key_table, without_copies
from demiglace.cleaning.text_arrays import Texts, changes, ngram_hashes, splitmix64
from demiglace.config.options import option

_SEED = 20211001


@dataclass(frozen=True)
class NearDuplicates(CollectionRule):
    """Drop all but the first document of each cluster of near-duplicates."""

    name: ClassVar[str] = "near-duplicates"

    words: int = option("words per shingle; case and punctuation are ignored", 5, at_least=1)
    bands: int = option("bands of the signature", 14, at_least=1)
    rows: int = option("hashes per band", 8, at_least=1)

    def keys(self, texts: Texts, documents: np.ndarray, sites: Sequence[str]) -> KeyTable:
        """Return a hash per band; texts without words have none."""
        hashes, first = shingles(texts, self.words)
        nonempty = np.flatnonzero(np.diff(first) > 0)
        signature = signatures(hashes, first[np.append(nonempty, len(texts))], self.bands * self.rows)
        bands = band_keys(signature, self.bands)
        line = np.broadcast_to(np.arange(self.bands), bands.shape)
        return key_table(bands.ravel(), np.repeat(documents[nonempty], self.bands), line.ravel())

    def reduce(self, keys: KeyTable) -> KeyTable:
        """Mark every document but the first of each key; the key of a mark is the first document."""
        keys = keys.sorted_by_key()
        begins = changes(keys.key)
        first = keys.document[begins][np.cumsum(begins) - 1] if len(keys) else keys.document
        pairs = np.unique(np.stack([first, keys.document], 1)[keys.document != first], axis=0)
        return key_table(pairs[:, 0], pairs[:, 1])

    def finalize(self, marked: KeyTable) -> KeyTable:
        """Mark all documents of a cluster but the first; clusters are the connected components of the pairs."""
        from scipy.sparse import coo_array  # imported here: a third of a worker's start-up time
        from scipy.sparse.csgraph import connected_components

        nodes, indices = np.unique(np.concatenate([marked.key, marked.document]), return_inverse=True)
        one, other = indices[: len(marked)], indices[len(marked) :]
        graph = coo_array((np.ones(len(marked), bool), (one, other)), shape=(len(nodes), len(nodes)))
        _, cluster = connected_components(graph, directed=False)
        first = np.full(cluster.max(initial=-1) + 1, np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(first, cluster, nodes)
        copies = first[cluster] != nodes
        return key_table(first[cluster[copies]], nodes[copies])

    def apply(self, texts: Texts, marked: KeyTable) -> RuleResult:
        """Drop the marked documents."""
        return without_copies(texts, marked, "much like an earlier one")

    def probability(self, similarity: float) -> float:
        """Return the probability that two texts of this Jaccard similarity have an equal band."""
        return 1 - (1 - similarity**self.rows) ** self.bands


def shingles(texts: Texts, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all shingles of n words [G], and where those of each text begin [N + 1].

    A text of fewer than n words has one shingle, of all its words.
    """
    words, first = texts.shingle_words
    counts = np.diff(first)
    hashes = splitmix64(ngram_hashes(words, n))
    starts = np.arange(len(words))
    is_full = (starts + n) <= np.repeat(first[1:], counts)
    positions = np.flatnonzero(is_full)
    short = np.flatnonzero((counts > 0) & (counts < n))
    if not len(short):
        return hashes[positions], np.searchsorted(positions, first)
    rest = [splitmix64(ngram_hashes(words[first[i] : first[i + 1]], int(counts[i]))) for i in short]
    all_hashes = np.concatenate([hashes[positions], *rest])
    owner = np.concatenate([np.searchsorted(first, positions, side="right") - 1, short])
    order = np.argsort(owner, kind="stable")
    return all_hashes[order], np.searchsorted(owner[order], np.arange(len(first)))


def signatures(hashes: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
    """Return the minimum of each text's hashes under `count` functions a·h + b mod 2^32; uint32 [N, count].

    Every text must have a hash.
    """
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
    """Return a hash per band of the signatures [N, bands · rows], different for each band index; uint64 [N, bands]."""
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
