"""Quality measures of Gopher: Rae et al. 2021, *Scaling Language Models*, arXiv 2112.11446, appendix A.1.1.

Each takes a batch of texts and returns one number for each [N]; a text that has nothing to measure gets 0, or inf where
a small number would be good.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measure, Rule, RuleResult
from demiglace.cleaning.text_arrays import ALPHA, Texts, ratio
from demiglace.config.options import option

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


@dataclass(frozen=True)
class GopherQuality(Rule):
    """Documents of a usual length, made of words, with the words that English cannot do without."""

    name: ClassVar[str] = "gopher-quality"

    min_words: int = option("words that are not symbols alone, at least", 50, at_least=0)
    max_words: int = option("… and at most", 100_000, at_least=1)
    min_word_length: float = option("their mean length in characters, at least", 3.0, at_least=0)
    max_word_length: float = option("… and at most", 10.0, at_least=0)
    max_hashes_per_word: float = option("# for each word, at most", 0.1, at_least=0)
    max_ellipses_per_word: float = option("... and … for each word, at most", 0.1, at_least=0)
    max_bullet_lines: float = option("share of lines that begin with a bullet, at most", 0.9, at_least=0, at_most=1)
    max_ellipsis_lines: float = option("share of lines that end in an ellipsis, at most", 0.3, at_least=0, at_most=1)
    min_alphabetic_words: float = option("share of words with a letter, at least", 0.8, at_least=0, at_most=1)
    min_stop_words: int = option("different words of the, be, to, of, and, that, have, with, at least", 2, at_least=0)

    def apply(self, texts: Texts) -> RuleResult:
        """Nothing is changed; eight measures are taken."""
        return RuleResult(
            texts.texts,
            (
                Measure("words", words(texts), self.min_words, self.max_words),
                Measure("word length", mean_word_length(texts), self.min_word_length, self.max_word_length),
                Measure("# per word", hashes_per_word(texts), at_most=self.max_hashes_per_word),
                Measure("ellipses per word", ellipses_per_word(texts), at_most=self.max_ellipses_per_word),
                Measure("bullet lines", bullet_lines(texts), at_most=self.max_bullet_lines),
                Measure("ellipsis lines", ellipsis_lines(texts), at_most=self.max_ellipsis_lines),
                Measure("alphabetic words", alphabetic_words(texts), at_least=self.min_alphabetic_words),
                Measure("stop words", stop_words(texts), at_least=self.min_stop_words),
            ),
        )


def words(texts: Texts) -> np.ndarray:
    """Words that are not symbols alone."""
    return texts.words.total(texts.no_symbols)


def mean_word_length(texts: Texts) -> np.ndarray:
    """Characters in such a word, on average."""
    kept = texts.no_symbols
    return ratio(texts.words.total(texts.words.lengths * kept), texts.words.total(kept))


def hashes_per_word(texts: Texts) -> np.ndarray:
    """`#` for each word."""
    found = np.array([t.count("#") for t in texts.texts], np.int64)
    return ratio(found, texts.words.counts, empty=np.inf)


def ellipses_per_word(texts: Texts) -> np.ndarray:
    """`...` and `…` for each word."""
    found = np.array([t.count("...") + t.count("…") for t in texts.texts], np.int64)
    return ratio(found, texts.words.counts, empty=np.inf)


def bullet_lines(texts: Texts) -> np.ndarray:
    """The share of lines that begin with a bullet or a hyphen."""
    first, _, visible = texts.edges
    found = np.isin(_codes(texts)[first], [ord("•"), ord("-")]) & visible
    return ratio(texts.lines.total(found), texts.lines.counts)


def ellipsis_lines(texts: Texts) -> np.ndarray:
    """The share of lines that end in `...` or `…`."""
    _, last, visible = texts.edges
    codes = _codes(texts)
    dots = [codes[np.maximum(last - k, 0)] == ord(".") for k in range(3)]
    three = dots[0] & dots[1] & dots[2] & (last - 2 >= texts.lines.start)
    found = ((codes[last] == ord("…")) | three) & visible
    return ratio(texts.lines.total(found), texts.lines.counts)


def alphabetic_words(texts: Texts) -> np.ndarray:
    """The share of words with a letter in them."""
    letters = texts.any_in(texts.words, (texts.kinds & ALPHA) != 0)
    return ratio(texts.words.total(letters), texts.words.counts)


def stop_words(texts: Texts) -> np.ndarray:
    """How many different of eight English stop words occur, in lower case."""
    words, codes, found = texts.words, texts.codes, np.zeros((len(texts), len(STOP_WORDS)), bool)
    initials = codes[words.start]
    for i, word in enumerate(STOP_WORDS):
        rows = np.flatnonzero((initials == ord(word[0])) & (words.lengths == len(word)))
        for k, letter in enumerate(word[1:], 1):
            rows = rows[codes[words.start[rows] + k] == ord(letter)]
        found[words.owner[rows], i] = True
    return found.sum(1)


def _codes(texts: Texts) -> np.ndarray:
    """The characters, and one more to look at where there is none."""
    return np.append(texts.codes, np.uint32(0))
