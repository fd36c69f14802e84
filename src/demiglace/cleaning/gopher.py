"""Quality measures of Gopher: Rae et al. 2021, *Scaling Language Models*, arXiv 2112.11446, appendix A.1.1.

Each takes a batch of texts and returns one number for each [N]; a text that has nothing to measure gets 0, or inf where
a small number would be good.
"""

import numpy as np

from demiglace.cleaning.texts import ALPHA, Texts

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


def words(texts: Texts) -> np.ndarray:
    """Words that are not symbols alone."""
    return texts.words.total(texts.no_symbols)


def mean_word_length(texts: Texts) -> np.ndarray:
    """Characters in such a word, on average."""
    kept = texts.no_symbols
    return _ratio(texts.words.total(texts.words.lengths * kept), texts.words.total(kept))


def hashes_per_word(texts: Texts) -> np.ndarray:
    """`#` for each word."""
    found = np.array([t.count("#") for t in texts.texts], np.int64)
    return _ratio(found, texts.words.counts, empty=np.inf)


def ellipses_per_word(texts: Texts) -> np.ndarray:
    """`...` and `…` for each word."""
    found = np.array([t.count("...") + t.count("…") for t in texts.texts], np.int64)
    return _ratio(found, texts.words.counts, empty=np.inf)


def bullet_lines(texts: Texts) -> np.ndarray:
    """The share of lines that begin with a bullet or a hyphen."""
    first, _, visible = texts.edges
    found = np.isin(_codes(texts)[first], [ord("•"), ord("-")]) & visible
    return _ratio(texts.lines.total(found), texts.lines.counts)


def ellipsis_lines(texts: Texts) -> np.ndarray:
    """The share of lines that end in `...` or `…`."""
    _, last, visible = texts.edges
    codes = _codes(texts)
    dots = [codes[np.maximum(last - k, 0)] == ord(".") for k in range(3)]
    three = dots[0] & dots[1] & dots[2] & (last - 2 >= texts.lines.start)
    found = ((codes[last] == ord("…")) | three) & visible
    return _ratio(texts.lines.total(found), texts.lines.counts)


def alphabetic_words(texts: Texts) -> np.ndarray:
    """The share of words with a letter in them."""
    letters = texts.within(texts.words, (texts.kinds & ALPHA) != 0) > 0
    return _ratio(texts.words.total(letters), texts.words.counts)


def stop_words(texts: Texts) -> np.ndarray:
    """How many different of eight English stop words occur, in lower case."""
    hashes, wanted = texts.word_hashes, Texts(STOP_WORDS).word_hashes
    owner, found = texts.words.owner, np.zeros((len(texts), len(STOP_WORDS)), bool)
    for i, value in enumerate(wanted):
        found[owner[hashes == value], i] = True
    return found.sum(1)


def _codes(texts: Texts) -> np.ndarray:
    """The characters, and one more to look at where there is none."""
    return np.append(texts.codes, np.uint32(0))


def _ratio(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), float(empty)), where=whole > 0)
