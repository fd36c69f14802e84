"""Quality filters of Gopher: Rae et al. 2021, *Scaling Language Models*, arXiv 2112.11446, appendix A.1.1.

Each function takes a batch of texts and returns one number per text [N]. A text without words or lines gets 0, or inf
if the bound is an upper one.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measurement, Rule, RuleResult
from demiglace.cleaning.text_arrays import ALPHA, Texts, ratio
from demiglace.config.options import option

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


@dataclass(frozen=True)
class GopherQuality(Rule):
    """Keep documents of a usual length that consist of words and contain common English words."""

    name: ClassVar[str] = "gopher-quality"

    min_words: int = option("words that are not only symbols, at least", 50, at_least=0)
    max_words: int = option("words that are not only symbols, at most", 100_000, at_least=1)
    min_word_length: float = option("mean length of these words in characters, at least", 3.0, at_least=0)
    max_word_length: float = option("mean length of these words in characters, at most", 10.0, at_least=0)
    max_hashes_per_word: float = option("# per word, at most", 0.1, at_least=0)
    max_ellipses_per_word: float = option("... and … per word, at most", 0.1, at_least=0)
    max_bullet_lines: float = option("share of lines that begin with a bullet, at most", 0.9, at_least=0, at_most=1)
    max_ellipsis_lines: float = option("share of lines that end in an ellipsis, at most", 0.3, at_least=0, at_most=1)
    min_alphabetic_words: float = option("share of words with a letter, at least", 0.8, at_least=0, at_most=1)
    min_stop_words: int = option("different words of the, be, to, of, and, that, have, with, at least", 2, at_least=0)

    def apply(self, texts: Texts) -> RuleResult:
        """Compute the eight measurements; change no text."""
        return RuleResult(
            texts.texts,
            (
                Measurement("words", words(texts), self.min_words, self.max_words),
                Measurement("word length", mean_word_length(texts), self.min_word_length, self.max_word_length),
                Measurement("# per word", hashes_per_word(texts), at_most=self.max_hashes_per_word),
                Measurement("ellipses per word", ellipses_per_word(texts), at_most=self.max_ellipses_per_word),
                Measurement("bullet lines", bullet_lines(texts), at_most=self.max_bullet_lines),
                Measurement("ellipsis lines", ellipsis_lines(texts), at_most=self.max_ellipsis_lines),
                Measurement("alphabetic words", alphabetic_words(texts), at_least=self.min_alphabetic_words),
                Measurement("stop words", stop_words(texts), at_least=self.min_stop_words),
            ),
        )


def words(texts: Texts) -> np.ndarray:
    """Count the words that are not only symbols."""
    return texts.words.total(texts.non_symbol_words)


def mean_word_length(texts: Texts) -> np.ndarray:
    """Return the mean length of these words in characters."""
    kept = texts.non_symbol_words
    return ratio(texts.words.total(texts.words.lengths * kept), texts.words.total(kept))


def hashes_per_word(texts: Texts) -> np.ndarray:
    """Return the number of `#` per word."""
    counts = np.array([t.count("#") for t in texts.texts], np.int64)
    return ratio(counts, texts.words.counts, empty=np.inf)


def ellipses_per_word(texts: Texts) -> np.ndarray:
    """Return the number of `...` and `…` per word."""
    counts = np.array([t.count("...") + t.count("…") for t in texts.texts], np.int64)
    return ratio(counts, texts.words.counts, empty=np.inf)


def bullet_lines(texts: Texts) -> np.ndarray:
    """Return the share of lines that begin with a bullet or a hyphen."""
    first, _, visible = texts.visible_line_bounds
    is_bullet = np.isin(_codes(texts)[first], [ord("•"), ord("-")]) & visible
    return ratio(texts.lines.total(is_bullet), texts.lines.counts)


def ellipsis_lines(texts: Texts) -> np.ndarray:
    """Return the share of lines that end in `...` or `…`."""
    _, last, visible = texts.visible_line_bounds
    codes = _codes(texts)
    dots = [codes[np.maximum(last - k, 0)] == ord(".") for k in range(3)]
    three = dots[0] & dots[1] & dots[2] & (last - 2 >= texts.lines.start)
    is_ellipsis = ((codes[last] == ord("…")) | three) & visible
    return ratio(texts.lines.total(is_ellipsis), texts.lines.counts)


def alphabetic_words(texts: Texts) -> np.ndarray:
    """Return the share of words that contain a letter."""
    letters = texts.any_in(texts.words, (texts.char_flags & ALPHA) != 0)
    return ratio(texts.words.total(letters), texts.words.counts)


def stop_words(texts: Texts) -> np.ndarray:
    """Count how many of the eight stop words occur, in lower case."""
    words, codes, occurs = texts.words, texts.codes, np.zeros((len(texts), len(STOP_WORDS)), bool)
    initials = codes[words.start]
    for i, word in enumerate(STOP_WORDS):
        rows = np.flatnonzero((initials == ord(word[0])) & (words.lengths == len(word)))
        for k, letter in enumerate(word[1:], 1):
            rows = rows[codes[words.start[rows] + k] == ord(letter)]
        occurs[words.owner[rows], i] = True
    return occurs.sum(1)


def _codes(texts: Texts) -> np.ndarray:
    """Return the code points and one padding value, which an index past the end reads."""
    return np.append(texts.codes, np.uint32(0))
