"""Quality measures of FineWeb: Penedo et al. 2024, *The FineWeb Datasets*, arXiv 2406.17557, section 3.6.

Each takes a batch of texts and returns one number for each [N]. Lines are split at "\\n"; those without a visible
character do not count. A text without any line gets 0 where much is good and inf where little is.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measure, Rule, RuleResult
from demiglace.cleaning.rules.gopher_repetition import repeated_lines
from demiglace.cleaning.text_arrays import TERMINAL, Texts, ratio
from demiglace.config.options import option

_SHORT = 30


@dataclass(frozen=True)
class FineWebQuality(Rule):
    """Documents of whole sentences rather than of lists; shares of lines or characters."""

    name: ClassVar[str] = "fineweb-quality"

    min_punctuated_lines: float = option("lines that end a sentence, at least", 0.12, at_least=0, at_most=1)
    max_short_lines: float = option("lines of at most 30 characters, at most", 0.67, at_least=0, at_most=1)
    max_duplicate_characters: float = option("characters in lines that stood before, at most", 0.01, at_least=0)
    max_newlines_per_word: float = option("newlines for each word, at most", 0.3, at_least=0)

    def apply(self, texts: Texts) -> RuleResult:
        """Nothing is changed; four measures are taken."""
        return RuleResult(
            texts.texts,
            (
                Measure("punctuated lines", punctuated_lines(texts), at_least=self.min_punctuated_lines),
                Measure("short lines", short_lines(texts), at_most=self.max_short_lines),
                Measure("repeated characters", duplicate_characters(texts), at_most=self.max_duplicate_characters),
                Measure("newlines per word", newlines_per_word(texts), at_most=self.max_newlines_per_word),
            ),
        )


def punctuated_lines(texts: Texts) -> np.ndarray:
    """The share of lines that end in a mark that ends a sentence."""
    _, _, visible = texts.edges
    flags = np.append(texts.kinds & TERMINAL, 0).astype(bool)
    return _share(texts, flags[texts.lines.end - 1] & visible, empty=0.0)


def short_lines(texts: Texts) -> np.ndarray:
    """The share of lines of at most 30 characters."""
    _, _, visible = texts.edges
    return _share(texts, (texts.lines.lengths <= _SHORT) & visible, empty=np.inf)


def duplicate_characters(texts: Texts) -> np.ndarray:
    """The characters in lines that stood in the text before, over all but newlines."""
    _, _, visible = texts.edges
    again = texts.lines.total(texts.lines.lengths * (repeated_lines(texts) & visible))
    return ratio(again, texts.lines.total(texts.lines.lengths), empty=np.inf)


def newlines_per_word(texts: Texts) -> np.ndarray:
    """Newlines for each word."""
    return ratio(texts.lines.counts - 1, texts.words.counts, empty=np.inf)


def _share(texts: Texts, flags: np.ndarray, empty: float) -> np.ndarray:
    _, _, visible = texts.edges
    return ratio(texts.lines.total(flags), texts.lines.total(visible), empty)
