"""Quality measures of FineWeb: Penedo et al. 2024, *The FineWeb Datasets*, arXiv 2406.17557, section 3.6.

Each takes a batch of texts and returns one number for each [N]. Lines are split at "\\n"; those without a visible
character do not count. A text without any line gets 0 where much is good and inf where little is.
"""

import numpy as np

from demiglace.cleaning.repetition import repeated_lines
from demiglace.cleaning.texts import TERMINAL, Texts

_SHORT = 30


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
    return _ratio(again, texts.lines.total(texts.lines.lengths), empty=np.inf)


def newlines_per_word(texts: Texts) -> np.ndarray:
    """Newlines for each word."""
    return _ratio(texts.lines.counts - 1, texts.words.counts, empty=np.inf)


def _share(texts: Texts, flags: np.ndarray, empty: float) -> np.ndarray:
    _, _, visible = texts.edges
    return _ratio(texts.lines.total(flags), texts.lines.total(visible), empty)


def _ratio(part: np.ndarray, whole: np.ndarray, empty: float) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), empty), where=whole > 0)
