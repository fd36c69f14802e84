"""Repetition measures of Gopher: Rae et al. 2021, arXiv 2112.11446, appendix A.1.1 and table A1.

Each takes a batch of texts and returns a fraction for each [N]. What repeats is found by hashes over the whole batch;
only the few texts that repeat much are walked through one n-gram after another, as the definition has it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measure, Rule, RuleResult
from demiglace.cleaning.text_arrays import Texts, changes, ngram_hashes, ngrams_at, splitmix64
from demiglace.config.options import option


@dataclass(frozen=True)
class GopherRepetition(Rule):
    """Documents that do not say the same again and again. Shares are of lines, paragraphs or characters, at most."""

    name: ClassVar[str] = "gopher-repetition"

    lines: float = option("lines that stood before", 0.3, at_least=0)
    line_characters: float = option("characters in such lines", 0.2, at_least=0)
    paragraphs: float = option("paragraphs that stood before", 0.3, at_least=0)
    paragraph_characters: float = option("characters in such paragraphs", 0.2, at_least=0)
    top_ngrams: tuple[float, ...] = option(
        "characters in the most frequent run of 2, 3, … words", (0.2, 0.18, 0.16), at_least=0
    )
    duplicate_ngrams: tuple[float, ...] = option(
        "characters in runs of 5, 6, … words that occurred before", (0.15, 0.14, 0.13, 0.12, 0.11, 0.1), at_least=0
    )

    def apply(self, texts: Texts) -> RuleResult:
        """Nothing is changed; up to 13 measures are taken."""
        (line, line_chars), (paragraph, paragraph_chars) = _repeated_lines(texts), _repeated_paragraphs(texts)
        measures = [
            Measure("repeated lines", line, at_most=self.lines),
            Measure("characters in them", line_chars, at_most=self.line_characters),
            Measure("repeated paragraphs", paragraph, at_most=self.paragraphs),
            Measure("characters in these", paragraph_chars, at_most=self.paragraph_characters),
        ]
        runs = RepeatedNgrams(texts)
        for n, limit in enumerate(self.top_ngrams, 2):
            measures.append(Measure(f"most frequent {n} words", top_ngram(texts, n, runs), at_most=limit))
        for n, limit in enumerate(self.duplicate_ngrams, 5):
            measures.append(Measure(f"repeated {n} words", duplicate_ngrams(texts, n, limit, runs), at_most=limit))
        return RuleResult(texts.texts, tuple(measures))


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


class RepeatedNgrams:
    """Runs of n words that occur more than once in their text, of one batch.

    A run of n + 1 words can only occur again where both runs of n words in it do: so each n looks at few places.
    """

    def __init__(self, texts: Texts):
        self.texts = texts
        self.total = np.concatenate([[0], np.cumsum(texts.words.lengths)])  # characters in the words before each
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Their places (words at which they begin), equal ones side by side and in order; and which are the first."""
        if n not in self._found:
            self._found[n] = self._search(n)
        return self._found[n]

    def _search(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        texts = self.texts
        places = _places(texts, n)
        if n - 1 in self._found:
            among = np.zeros(len(texts.words.start) + 1, bool)
            among[self._found[n - 1][0]] = True
            places = places[among[places] & among[places + 1]]
        hashes = splitmix64(
            _hashes_at(texts.word_hashes, places, n) ^ splitmix64(texts.words.owner[places].astype(np.uint64))
        )
        # the hash's high bits and the place in the low ones, so that a plain sort, the fastest there is, keeps order
        bits = np.uint64(max(1, len(places).bit_length()))
        number = np.arange(len(places), dtype=np.uint64)
        order = np.sort((hashes >> bits << bits) | number) & ((np.uint64(1) << bits) - np.uint64(1))
        ordered = hashes[order]
        same = np.append(~changes(ordered), False)  # as the one before
        repeated = same[1:] | same[:-1]
        return places[order[repeated]], ~same[:-1][repeated]


def top_ngram(texts: Texts, n: int, runs: RepeatedNgrams | None = None) -> np.ndarray:
    """Characters in the most frequent run of n words, all its occurrences together, over those of the text.

    A run's characters are its words' with one space between them. Where several are as frequent, the first counts.
    """
    runs = runs or RepeatedNgrams(texts)
    places, first = runs.of(n)
    begins = np.flatnonzero(first)
    counts, heads = np.diff(np.append(begins, len(places))), places[begins]
    # where nothing is repeated, the text's first run is the one
    lone = np.flatnonzero(texts.words.counts >= n)
    heads, counts = np.append(heads, texts.words.first[lone]), np.append(counts, np.ones(len(lone), np.int64))
    of = np.searchsorted(texts.words.first, heads, side="right") - 1
    best = np.lexsort((heads, -counts, of))
    best = best[changes(of[best])]
    found = np.zeros(len(texts), np.int64)
    found[of[best]] = counts[best] * (runs.total[heads[best] + n] - runs.total[heads[best]] + n - 1)
    return _over_length(found, texts)


def duplicate_ngrams(texts: Texts, n: int, least: float = 0.0, runs: RepeatedNgrams | None = None) -> np.ndarray:
    """Characters in runs of n words that occurred before, over those of the text.

    The text is read from the left; after a run that has occurred before, reading goes on behind it, so that no word
    counts twice. least: where an upper bound is not above it the bound is returned, which costs much less.
    """
    runs = runs or RepeatedNgrams(texts)
    places, first = runs.of(n)
    result = _over_length(_covered(runs, np.sort(places[~first]), n), texts)
    above = np.flatnonzero(result > least)
    if len(above):
        order = np.argsort(places)
        places, group = places[order], np.cumsum(first)[order]
        bounds = np.searchsorted(places, texts.words.first)
        for i in above:
            part = slice(bounds[i], bounds[i + 1])
            characters = _walk(places[part].tolist(), group[part].tolist(), runs.total, n)
            result[i] = characters / max(1, texts.lengths[i])
    return result


def _walk(places: list[int], groups: list[int], total: np.ndarray, n: int) -> int:
    seen: set[int] = set()
    characters = free = 0
    for place, group in zip(places, groups, strict=True):
        if place < free:
            continue
        if group in seen:
            characters += int(total[place + n] - total[place])
            free = place + n
        else:
            seen.add(group)
    return characters


def _covered(runs: RepeatedNgrams, places: np.ndarray, n: int) -> np.ndarray:
    """Characters in the words of runs at these places, in order, each word once [N]."""
    fresh = np.maximum(places, np.append(0, places + n)[:-1])  # behind the run before
    owner = np.searchsorted(runs.texts.words.first, places, side="right") - 1
    return np.bincount(owner, runs.total[places + n] - runs.total[fresh], len(runs.texts))


def _places(texts: Texts, n: int) -> np.ndarray:
    """The words at which a run of n words of one text begins."""
    owner = texts.words.owner
    return np.flatnonzero(owner[: len(owner) - n + 1] == owner[n - 1 :]) if len(owner) >= n else np.zeros(0, np.int64)


def _hashes_at(words: np.ndarray, places: np.ndarray, n: int) -> np.ndarray:
    """Hashes of n words in a row at these places."""
    return ngram_hashes(words, n)[places] if len(places) * 4 > len(words) else ngrams_at(words, places, n)


def _by_text(hashes: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Keys that sort by text first: its number in the high bits, the hash's in the others."""
    bits = max(1, int(owner[-1]).bit_length()) if len(owner) else 1
    return (owner.astype(np.uint64) << np.uint64(64 - bits)) | (splitmix64(hashes) >> np.uint64(bits))


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
            pieces = [piece.lstrip("\n") for piece in text.strip().split("\n\n") if piece] or [""]
            distinct = set(pieces)
            shares[i, 0] = 1 - len(distinct) / len(pieces)
            shares[i, 1] = (sum(map(len, pieces)) - sum(map(len, distinct))) / len(text)
    return shares[:, 0], shares[:, 1]
