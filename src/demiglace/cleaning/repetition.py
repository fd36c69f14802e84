"""Repetition measures of Gopher: Rae et al. 2021, arXiv 2112.11446, appendix A.1.1 and table A1.

Each takes a batch of texts and returns a fraction for each [N]. What repeats is found by hashes over the whole batch;
only the few texts that repeat much are walked through one n-gram after another, as the definition has it.
"""

import re

import numpy as np

from demiglace.cleaning.texts import Texts, mixed, ngram_hashes

_PARAGRAPHS = re.compile(r"\n{2,}")


def duplicate_lines(texts: Texts) -> np.ndarray:
    """The share of lines, split at one or more "\\n", that stood in the text before."""
    return _repeated_lines(texts)[0]


def duplicate_line_characters(texts: Texts) -> np.ndarray:
    """The characters in such lines, over those of the text."""
    return _repeated_lines(texts)[1]


def duplicate_paragraphs(texts: Texts) -> np.ndarray:
    """The share of paragraphs, split at two or more "\\n", that stood in the text before."""
    return _repeated_paragraphs(texts)[0]


def duplicate_paragraph_characters(texts: Texts) -> np.ndarray:
    """The characters in such paragraphs, over those of the text."""
    return _repeated_paragraphs(texts)[1]


def top_ngram(texts: Texts, n: int) -> np.ndarray:
    """Characters in the most frequent run of n words, all its occurrences together, over those of the text.

    A run's characters are its words' with one space between them. Where several are as frequent, the first counts.
    """
    hashes, owner = _ngrams(texts, n)
    order = np.argsort(_by_text(hashes, owner), kind="stable")
    found = np.zeros(len(texts), np.int64)
    if not len(order):
        return found.astype(float)
    sorted_hashes, sorted_owner = hashes[order], owner[order]
    begins = np.flatnonzero(_changes(sorted_hashes) | _changes(sorted_owner))
    counts = np.diff(np.append(begins, len(order)))
    first, of = order[begins], sorted_owner[begins]
    # the most frequent one of each text, and of those the one that comes first
    best = np.lexsort((first, -counts, of))
    best = best[_changes(of[best])]
    places = _places(texts, n)[first[best]]
    total = np.concatenate([[0], np.cumsum(texts.words.lengths)])
    found[of[best]] = counts[best] * (total[places + n] - total[places] + n - 1)
    return _over_length(found, texts)


def duplicate_ngrams(texts: Texts, n: int, least: float = 0.0) -> np.ndarray:
    """Characters in runs of n words that occurred before, over those of the text.

    The text is read from the left; after a run that has occurred before, reading goes on behind it, so that no word
    counts twice. least: where an upper bound is not above it the bound is returned, which costs much less.
    """
    hashes, owner = _ngrams(texts, n)
    places = _places(texts, n)
    again = _seen_before(_by_text(hashes, owner))
    total = np.concatenate([[0], np.cumsum(texts.words.lengths)])
    result = _over_length(_covered(texts, places[again], n), texts)
    for i in np.flatnonzero(result > least):
        first, last = np.searchsorted(owner, [i, i + 1])
        result[i] = _walk(hashes[first:last].tolist(), total[places[first] :], n) / max(1, texts.lengths[i])
    return result


def _walk(hashes: list[int], total: np.ndarray, n: int) -> int:
    seen: set[int] = set()
    characters, i = 0, 0
    while i < len(hashes):
        if hashes[i] in seen:
            characters += int(total[i + n] - total[i])
            i += n
        else:
            seen.add(hashes[i])
            i += 1
    return characters


def _covered(texts: Texts, places: np.ndarray, n: int) -> np.ndarray:
    """Characters of the words that the runs of n words at these places cover, for each text [N]."""
    words = texts.words
    edges = np.zeros(len(words.start) + n + 1, np.int32)
    np.add.at(edges, places, 1)
    np.add.at(edges, places + n, -1)
    inside = np.cumsum(edges[: len(words.start)]) > 0
    return words.total(words.lengths * inside)


def _places(texts: Texts, n: int) -> np.ndarray:
    """The words at which a run of n words of one text begins."""
    owner = texts.words.owner
    return np.flatnonzero(owner[: len(owner) - n + 1] == owner[n - 1 :]) if len(owner) >= n else np.zeros(0, np.int64)


def _ngrams(texts: Texts, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of all runs of n words, and the text of each."""
    places = _places(texts, n)
    return ngram_hashes(texts.word_hashes, n)[places], texts.words.owner[places]


def _by_text(hashes: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Keys that sort by text first: its number in the high bits, the hash's in the others."""
    bits = max(1, int(owner[-1]).bit_length()) if len(owner) else 1
    return (owner.astype(np.uint64) << np.uint64(64 - bits)) | (mixed(hashes) >> np.uint64(bits))


def _seen_before(keys: np.ndarray) -> np.ndarray:
    """The places of all keys that occur at a smaller place too."""
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return np.zeros(0, np.int64)
    slots = np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)
    among = np.flatnonzero(repeated[slots] == keys)
    _, firsts = np.unique(keys[among], return_index=True)
    return np.delete(among, firsts)


def _changes(values: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before; the first one does."""
    return np.concatenate([[True], values[1:] != values[:-1]])


def _over_length(characters: np.ndarray, texts: Texts) -> np.ndarray:
    return characters / np.maximum(1, texts.lengths)


def _repeated_lines(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """The shares of lines that stood before, and of their characters, for each text [N]."""
    again, full = repeated_lines(texts), texts.lines.lengths > 0
    # newlines at an end of the text make one more line there, which is empty
    edge = np.array([t[:1] == "\n" for t in texts.texts], int), np.array([t[-1:] == "\n" for t in texts.texts], int)
    count = np.maximum(1, texts.lines.total(full) + edge[0] + edge[1])
    characters = texts.lines.total(texts.lines.lengths * again)
    return (texts.lines.total(again) + (edge[0] & edge[1])) / count, _over_length(characters, texts)


def repeated_lines(texts: Texts) -> np.ndarray:
    """Which lines are not empty and stood in their text before, bool [lines]."""
    lines, again = texts.lines, np.zeros(len(texts.lines.start), bool)
    full = np.flatnonzero(lines.lengths > 0)
    hashes = texts.hashes.of(lines.start[full], lines.end[full])
    again[full[_seen_before(_by_text(hashes, lines.owner[full]))]] = True
    return again


def _repeated_paragraphs(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    shares = np.zeros((len(texts), 2))
    for i, text in enumerate(texts.texts):
        if "\n\n" in text:
            pieces = _PARAGRAPHS.split(text.strip())
            distinct = set(pieces)
            shares[i, 0] = 1 - len(distinct) / len(pieces)
            shares[i, 1] = (sum(map(len, pieces)) - sum(map(len, distinct))) / len(text)
    return shares[:, 0], shares[:, 1]
