"""Repetition filters of Gopher: Rae et al. 2021, arXiv 2112.11446, appendix A.1.1 and table A1.

Each function takes a batch of texts and returns one fraction per text [N]. Repetitions are found by hashes over the
batch. Only the few texts with many repetitions are scanned n-gram by n-gram, as the definition requires.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measurement, Rule, RuleResult
from demiglace.cleaning.text_arrays import Texts, changes, ngram_hashes, ngram_hashes_at, splitmix64
from demiglace.config.options import option


@dataclass(frozen=True)
class GopherRepetition(Rule):
    """Keep documents with little repetition. Thresholds are upper bounds of shares."""

    name: ClassVar[str] = "gopher-repetition"

    lines: float = option("share of repeated lines", 0.3, at_least=0)
    line_characters: float = option("share of characters in repeated lines", 0.2, at_least=0)
    paragraphs: float = option("share of repeated paragraphs", 0.3, at_least=0)
    paragraph_characters: float = option("share of characters in repeated paragraphs", 0.2, at_least=0)
    top_ngrams: tuple[float, ...] = option(
        "share of characters in the most frequent 2-gram, 3-gram, …", (0.2, 0.18, 0.16), at_least=0
    )
    duplicate_ngrams: tuple[float, ...] = option(
        "share of characters in repeated 5-grams, 6-grams, …", (0.15, 0.14, 0.13, 0.12, 0.11, 0.1), at_least=0
    )

    def apply(self, texts: Texts) -> RuleResult:
        """Compute the measurements, 13 by default; change no text."""
        (line, line_chars), (paragraph, paragraph_chars) = _repeated_lines(texts), _repeated_paragraphs(texts)
        measurements = [
            Measurement("repeated lines", line, at_most=self.lines),
            Measurement("characters in them", line_chars, at_most=self.line_characters),
            Measurement("repeated paragraphs", paragraph, at_most=self.paragraphs),
            Measurement("characters in these", paragraph_chars, at_most=self.paragraph_characters),
        ]
        repeated = RepeatedNgrams(texts)
        for n, limit in enumerate(self.top_ngrams, 2):
            measurements.append(Measurement(f"most frequent {n} words", top_ngram(texts, n, repeated), at_most=limit))
        for n, limit in enumerate(self.duplicate_ngrams, 5):
            measurements.append(
                Measurement(f"repeated {n} words", duplicate_ngrams(texts, n, limit, repeated), at_most=limit)
            )
        return RuleResult(texts.texts, tuple(measurements))


def duplicate_lines(texts: Texts) -> np.ndarray:
    """Return the share of lines, split at one or more "\\n", that repeat an earlier line of the text."""
    return _repeated_lines(texts)[0]


def duplicate_line_characters(texts: Texts) -> np.ndarray:
    """Return the share of the text's characters in such lines."""
    return _repeated_lines(texts)[1]


def duplicate_paragraphs(texts: Texts) -> np.ndarray:
    """Return the share of paragraphs, split at two or more "\\n", that repeat an earlier paragraph of the text."""
    return _repeated_paragraphs(texts)[0]


def duplicate_paragraph_characters(texts: Texts) -> np.ndarray:
    """Return the share of the text's characters in such paragraphs."""
    return _repeated_paragraphs(texts)[1]


class RepeatedNgrams:
    """Finds the n-grams of words that occur more than once in their text, for one batch.

    An (n + 1)-gram can only repeat where both of its n-grams repeat. So each n searches only the positions of n − 1.
    """

    def __init__(self, texts: Texts):
        self.texts = texts
        self.total = np.concatenate([[0], np.cumsum(texts.words.lengths)])  # characters in all earlier words
        self._by_n: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions (first words) of repeated n-grams, sorted by group, and which are first in a group."""
        if n not in self._by_n:
            self._by_n[n] = self._search(n)
        return self._by_n[n]

    def _search(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        texts = self.texts
        positions = _ngram_positions(texts, n)
        if n - 1 in self._by_n:
            among = np.zeros(len(texts.words.start) + 1, bool)
            among[self._by_n[n - 1][0]] = True
            positions = positions[among[positions] & among[positions + 1]]
        hashes = splitmix64(
            _hashes_at(texts.word_hashes, positions, n) ^ splitmix64(texts.words.owner[positions].astype(np.uint64))
        )
        # The hash in the high bits and the index in the low bits: then the fastest sort, an unstable one, keeps the
        # order.
        bits = np.uint64(max(1, len(positions).bit_length()))
        number = np.arange(len(positions), dtype=np.uint64)
        order = np.sort((hashes >> bits << bits) | number) & ((np.uint64(1) << bits) - np.uint64(1))
        ordered = hashes[order]
        same = np.append(~changes(ordered), False)  # equal to the previous one
        repeated = same[1:] | same[:-1]
        return positions[order[repeated]], ~same[:-1][repeated]


def top_ngram(texts: Texts, n: int, repeated: RepeatedNgrams | None = None) -> np.ndarray:
    """Return the share of the text's characters in all occurrences of its most frequent n-gram.

    The characters of an n-gram are those of its words, joined by single spaces. Of equally frequent
    ones, the first counts.
    """
    repeated = repeated or RepeatedNgrams(texts)
    positions, first = repeated.of(n)
    begins = np.flatnonzero(first)
    counts, starts = np.diff(np.append(begins, len(positions))), positions[begins]
    # In a text without repetition, its first n-gram counts.
    unrepeated = np.flatnonzero(texts.words.counts >= n)
    starts, counts = (
        np.append(starts, texts.words.first[unrepeated]),
        np.append(counts, np.ones(len(unrepeated), np.int64)),
    )
    owner = np.searchsorted(texts.words.first, starts, side="right") - 1
    best = np.lexsort((starts, -counts, owner))
    best = best[changes(owner[best])]
    characters = np.zeros(len(texts), np.int64)
    characters[owner[best]] = counts[best] * (repeated.total[starts[best] + n] - repeated.total[starts[best]] + n - 1)
    return _over_length(characters, texts)


def duplicate_ngrams(
    texts: Texts, n: int, threshold: float = 0.0, repeated: RepeatedNgrams | None = None
) -> np.ndarray:
    """Return the share of the text's characters in n-grams that occurred earlier in the text.

    The text is scanned from the left. After a repeated n-gram the scan continues at its end, so that no word
    counts twice.

    Args:
        texts: the batch.
        n: words per n-gram.
        threshold: texts whose upper bound is at most this are not scanned; the bound is returned, which is much faster.
        repeated: the repeated n-grams of the batch, if they are known.
    """
    repeated = repeated or RepeatedNgrams(texts)
    positions, first = repeated.of(n)
    result = _over_length(_covered(repeated, np.sort(positions[~first]), n), texts)
    above = np.flatnonzero(result > threshold)
    if len(above):
        order = np.argsort(positions)
        positions, group = positions[order], np.cumsum(first)[order]
        bounds = np.searchsorted(positions, texts.words.first)
        for i in above:
            part = slice(bounds[i], bounds[i + 1])
            characters = _scan(positions[part].tolist(), group[part].tolist(), repeated.total, n)
            result[i] = characters / max(1, texts.lengths[i])
    return result


def _scan(positions: list[int], groups: list[int], total: np.ndarray, n: int) -> int:
    """Count the characters in n-grams that occurred earlier; skip n-grams that overlap a counted one."""
    seen: set[int] = set()
    characters = free = 0
    for position, group in zip(positions, groups, strict=True):
        if position < free:
            continue
        if group in seen:
            characters += int(total[position + n] - total[position])
            free = position + n
        else:
            seen.add(group)
    return characters


def _covered(repeated: RepeatedNgrams, positions: np.ndarray, n: int) -> np.ndarray:
    """Count per text the characters in n-grams at these sorted positions, each word once [N]."""
    fresh = np.maximum(positions, np.append(0, positions + n)[:-1])  # not covered by the previous n-gram
    owner = np.searchsorted(repeated.texts.words.first, positions, side="right") - 1
    return np.bincount(owner, repeated.total[positions + n] - repeated.total[fresh], len(repeated.texts))


def _ngram_positions(texts: Texts, n: int) -> np.ndarray:
    """Return the words at which an n-gram within one text begins."""
    owner = texts.words.owner
    return np.flatnonzero(owner[: len(owner) - n + 1] == owner[n - 1 :]) if len(owner) >= n else np.zeros(0, np.int64)


def _hashes_at(words: np.ndarray, positions: np.ndarray, n: int) -> np.ndarray:
    """Return the hashes of the n-grams at these positions."""
    return (
        ngram_hashes(words, n)[positions] if len(positions) * 4 > len(words) else ngram_hashes_at(words, positions, n)
    )


def _by_text(hashes: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return keys with the text's index in the high bits and the hash in the low bits, so that texts are separate."""
    bits = max(1, int(owner[-1]).bit_length()) if len(owner) else 1
    return (owner.astype(np.uint64) << np.uint64(64 - bits)) | (splitmix64(hashes) >> np.uint64(bits))


def _seen_before(keys: np.ndarray) -> np.ndarray:
    """Return the indices of all keys that also occur at a smaller index."""
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return np.zeros(0, np.int64)
    slots = np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)
    among = np.flatnonzero(repeated[slots] == keys)
    _, firsts = np.unique(keys[among], return_index=True)
    return np.delete(among, firsts)


def _over_length(characters: np.ndarray, texts: Texts) -> np.ndarray:
    return characters / np.maximum(1, texts.lengths)


def _repeated_lines(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of repeated lines, and of characters in them, for each text [N]."""
    repeated, full = repeated_lines(texts), texts.lines.lengths > 0
    # Newlines at the start or end of a text make one more, empty, line there.
    edge = np.array([t[:1] == "\n" for t in texts.texts], int), np.array([t[-1:] == "\n" for t in texts.texts], int)
    count = np.maximum(1, texts.lines.total(full) + edge[0] + edge[1])
    characters = texts.lines.total(texts.lines.lengths * repeated)
    return (texts.lines.total(repeated) + (edge[0] & edge[1])) / count, _over_length(characters, texts)


def repeated_lines(texts: Texts) -> np.ndarray:
    """Return which lines are not empty and repeat an earlier line of their text, bool [lines]."""
    lines, repeated = texts.lines, np.zeros(len(texts.lines.start), bool)
    full = np.flatnonzero(lines.lengths > 0)
    hashes = texts.hashes.of(lines.start[full], lines.end[full])
    repeated[full[_seen_before(_by_text(hashes, lines.owner[full]))]] = True
    return repeated


def _repeated_paragraphs(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    shares = np.zeros((len(texts), 2))
    for i, text in enumerate(texts.texts):
        if "\n\n" in text:
            pieces = [piece.lstrip("\n") for piece in text.strip().split("\n\n") if piece] or [""]
            distinct = set(pieces)
            shares[i, 0] = 1 - len(distinct) / len(pieces)
            shares[i, 1] = (sum(map(len, pieces)) - sum(map(len, distinct))) / len(text)
    return shares[:, 0], shares[:, 1]
