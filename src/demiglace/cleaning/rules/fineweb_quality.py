"""Quality filters of FineWeb: Penedo et al. 2024, *The FineWeb Datasets*, arXiv 2406.17557, section 3.6.

Each function takes a batch of texts and returns one number per text [N]. Lines are split at "\\n"; lines without a
visible character do not count. A text without lines gets 0 for a lower bound and inf for an upper bound.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measurement, Rule, RuleResult
from demiglace.cleaning.rules.gopher_repetition import repeated_lines
from demiglace.cleaning.text_arrays import TERMINAL, Texts, ratio
from demiglace.config.options import option

_SHORT = 30


@dataclass(frozen=True)
class FineWebQuality(Rule):
    """Keep documents of full sentences rather than lists. Thresholds are shares of lines or characters."""

    name: ClassVar[str] = "fineweb-quality"

    min_punctuated_lines: float = option("lines that end with a terminal mark, at least", 0.12, at_least=0, at_most=1)
    max_short_lines: float = option("lines of at most 30 characters, at most", 0.67, at_least=0, at_most=1)
    max_duplicate_characters: float = option("characters in repeated lines, at most", 0.01, at_least=0)
    max_newlines_per_word: float = option("newlines per word, at most", 0.3, at_least=0)

    def apply(self, texts: Texts) -> RuleResult:
        """Compute the four measurements; change no text."""
        return RuleResult(
            texts.texts,
            (
                Measurement("punctuated lines", punctuated_lines(texts), at_least=self.min_punctuated_lines),
                Measurement("short lines", short_lines(texts), at_most=self.max_short_lines),
                Measurement("repeated characters", duplicate_characters(texts), at_most=self.max_duplicate_characters),
                Measurement("newlines per word", newlines_per_word(texts), at_most=self.max_newlines_per_word),
            ),
        )


def punctuated_lines(texts: Texts) -> np.ndarray:
    """Return the share of lines that end with a terminal mark."""
    _, _, visible = texts.visible_line_bounds
    flags = np.append(texts.char_flags & TERMINAL, 0).astype(bool)
    return _share(texts, flags[texts.lines.end - 1] & visible, empty=0.0)


def short_lines(texts: Texts) -> np.ndarray:
    """Return the share of lines of at most 30 characters."""
    _, _, visible = texts.visible_line_bounds
    return _share(texts, (texts.lines.lengths <= _SHORT) & visible, empty=np.inf)


def duplicate_characters(texts: Texts) -> np.ndarray:
    """Return the share of characters, newlines excluded, in lines that repeat an earlier line of the text."""
    _, _, visible = texts.visible_line_bounds
    again = texts.lines.total(texts.lines.lengths * (repeated_lines(texts) & visible))
    return ratio(again, texts.lines.total(texts.lines.lengths), empty=np.inf)


def newlines_per_word(texts: Texts) -> np.ndarray:
    """Return the number of newlines per word."""
    return ratio(texts.lines.counts - 1, texts.words.counts, empty=np.inf)


def _share(texts: Texts, flags: np.ndarray, empty: float) -> np.ndarray:
    _, _, visible = texts.visible_line_bounds
    return ratio(texts.lines.total(flags), texts.lines.total(visible), empty)
