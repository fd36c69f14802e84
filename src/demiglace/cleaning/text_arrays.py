"""A batch of texts as arrays: characters, words and lines of all of them at once, so that rules count without loops.

All positions are in `codes`, the characters of all texts one after another; spans are half open, and
`first[i]:first[i + 1]` are those of text i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

SPACE, WORD, ALPHA, PUNCTUATION, TERMINAL = 1, 2, 4, 8, 16
_NEWLINE = ord("\n")
_CODES = 0x110000
_P = 0x9E3779B97F4A7C15  # odd, so that it has an inverse mod 2^64
_Q = np.uint64(0xD1342543DE82EF95)
# what datatrove 0.10 counts as symbols, so that "words" means the same in both (its PUNCTUATION)
_SYMBOLS = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»" + "".join(
    map(chr, (*range(9), *range(11, 13), *range(13, 32), *range(127, 160)))
)


# the marks that end a sentence, in any script: Unicode 16's Sentence_Terminal and some more, as FineWeb counts them
_TERMINALS = """
21 2e 3f 589 61d 61e 61f 6d4 700 701 702 7f9 837 839 83d 83e 964 965 104a 104b 1362 1367 1368 166e 1735 1736 17d4 17d5
17d6 17d9 17da 1803 1809 1944 1945 1aa8 1aa9 1aaa 1aab 1b5a 1b5b 1b5e 1b5f 1b7d 1b7e 1c3b 1c3c 1c7e 1c7f 203c 203d 2047
2048 2049 2e2e 2e3c 2e53 2e54 3002 a4ff a60e a60f a6f3 a6f7 a876 a877 a8ce a8cf a92f a9c8 a9c9 aa5d aa5e aa5f aaf0 aaf1
abeb fe52 fe56 fe57 ff01 ff0e ff1f ff61 10a56 10a57 10f55 10f56 10f57 10f58 10f59 10f86 10f87 10f88 10f89 11047 11048
110be 110bf 110c0 110c1 11141 11142 11143 111c5 111c6 111cd 111de 111df 11238 11239 1123b 1123c 112a9 1144b 1144c 115c2
115c3 115c9 115ca 115cb 115cc 115cd 115ce 115cf 115d0 115d1 115d2 115d3 115d4 115d5 115d6 115d7 11641 11642 1173c 1173d
1173e 11944 11946 11a42 11a43 11a9b 11a9c 11c41 11c42 11ef7 11ef8 11f43 11f44 16a6e 16a6f 16af5 16b37 16b38 16b44 16e98
1bc9f 1da88
"""


@dataclass(frozen=True)
class Spans:
    """Pieces of the texts: start and end [S], and first [N + 1]."""

    start: np.ndarray
    end: np.ndarray
    first: np.ndarray

    @cached_property
    def lengths(self) -> np.ndarray:
        """Characters in each [S]."""
        return self.end - self.start

    @property
    def counts(self) -> np.ndarray:
        """Pieces of each text [N]."""
        return np.diff(self.first)

    @cached_property
    def owner(self) -> np.ndarray:
        """The number of the text that each piece is of [S]."""
        return np.repeat(np.arange(len(self.first) - 1), self.counts)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [S] over each text's pieces [N]."""
        return _segment_sums(values, self.first)


class Texts:
    """A batch of texts, and what rules need of them, made when it is first asked for."""

    def __init__(self, texts: Sequence[str]):
        self.texts = list(texts)
        self.lengths = np.fromiter(map(len, self.texts), np.int64, len(self.texts))
        self.first = np.concatenate([[0], np.cumsum(self.lengths)])

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def codes(self) -> np.ndarray:
        """The characters as Unicode code points, uint32 [C]."""
        return np.frombuffer("".join(self.texts).encode("utf-32-le", "surrogatepass"), np.uint32)

    @cached_property
    def kinds(self) -> np.ndarray:
        """What each character is, as the flags SPACE, WORD, ALPHA, PUNCTUATION, TERMINAL; uint8 [C]."""
        return _kinds().take(self.codes, mode="clip")

    @cached_property
    def words(self) -> Spans:
        r"""The words: runs of letters, digits and underscores, and every other visible character by itself.

        As ``re.findall(r"\w+|[^\w\s]", text)``.
        """
        inner = (self.kinds & WORD).astype(bool)
        visible = (self.kinds & SPACE) == 0
        joined = np.zeros(len(inner) + 1, bool)  # whether a character goes on with the word of the one before
        joined[1:-1] = inner[1:] & inner[:-1]
        joined[self.first[:-1][self.lengths > 0]] = False
        start = np.flatnonzero(visible & ~joined[:-1])
        end = np.flatnonzero(visible & ~joined[1:]) + 1
        return Spans(start, end, np.searchsorted(start, self.first))

    @cached_property
    def no_symbols(self) -> np.ndarray:
        """Which words have a character that is no symbol, bool [W]."""
        return self.any_in(self.words, (self.kinds & PUNCTUATION) == 0)

    @cached_property
    def lines(self) -> Spans:
        """The lines, split at "\\n" alone; a text of n newlines has n + 1 lines, some of them empty."""
        breaks = np.flatnonzero(self.codes == _NEWLINE)
        ends = np.sort(np.concatenate([breaks, self.first[1:]]), kind="stable")
        owner_breaks = np.searchsorted(self.first, breaks, side="right") - 1
        counts = np.bincount(owner_breaks, minlength=len(self)) + 1
        first = np.concatenate([[0], np.cumsum(counts)])
        start = np.empty_like(ends)
        start[1:] = ends[:-1] + 1
        start[first[:-1]] = self.first[:-1]
        return Spans(start, ends, first)

    @cached_property
    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each line its first and its last visible character, and whether it has any [lines]."""
        words = self.words
        after = np.searchsorted(words.start, self.lines.start)
        before = np.searchsorted(words.start, self.lines.end)
        return np.append(words.start, 0)[after], np.append(words.end, 1)[before - 1] - 1, before > after

    def any_in(self, spans: Spans, flags: np.ndarray) -> np.ndarray:
        """Which pieces have a flagged character, bool [S], no piece empty; most need only their first one looked at."""
        found = flags[spans.start]
        rest = np.flatnonzero(~found & (spans.lengths > 1))
        if len(rest):
            borders = np.stack([spans.start[rest], spans.end[rest]], 1).ravel()
            found[rest] = np.logical_or.reduceat(np.append(flags, False), borders)[::2]
        return found

    @cached_property
    def hashes(self) -> "Hashes":
        """Hashes of any piece of the texts."""
        return Hashes(self.codes)

    @cached_property
    def word_hashes(self) -> np.ndarray:
        """The words' hashes, uint64 [W]."""
        return self.hashes.of(self.words.start, self.words.end)

    @cached_property
    def shingle_words(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the words in lower case, without marks, uint64 [V], and where each text's begin [N + 1].

        What near-duplicates and contamination are found by.
        """
        lower = Hashes(_lower()[self.codes])
        spoken = np.flatnonzero(np.append(self.kinds, 0)[self.words.start] & WORD)
        first = np.searchsorted(spoken, self.words.first)
        return lower.of(self.words.start[spoken], self.words.end[spoken]), first


class Hashes:
    """Hashes of pieces in constant time: Σ c_j·P^(j − start) mod 2^64, mixed, from sums over prefixes.

    Pieces that differ only in NUL characters at their end share a hash; any others do by chance alone.
    """

    def __init__(self, codes: np.ndarray):
        self._powers, self._inverse = _power_tables(1 << len(codes).bit_length())
        self._sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(codes * self._powers[: len(codes)], out=self._sums[1:])

    def of(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The hashes of codes[start:end], uint64 [S]."""
        return splitmix64((self._sums[end] - self._sums[start]) * self._inverse[start])

    def of_two(self, start: np.ndarray, end: np.ndarray, start2: np.ndarray, end2: np.ndarray) -> np.ndarray:
        """The hashes of codes[start:end] with codes[start2:end2] behind, uint64 [S]."""
        first = (self._sums[end] - self._sums[start]) * self._inverse[start]
        second = (self._sums[end2] - self._sums[start2]) * self._inverse[start2] * self._powers[end - start]
        return splitmix64(first + second)


def ngram_hashes(words: np.ndarray, n: int) -> np.ndarray:
    """Hashes of n words in a row from the words' hashes, uint64 [W − n + 1]; runs over borders of texts too."""
    if len(words) < n:
        return np.zeros(0, np.uint64)
    total = words[: len(words) - n + 1].copy()
    for k in range(1, n):
        total *= _Q
        total += words[k : len(words) - n + 1 + k]
    return total


def ngrams_at(words: np.ndarray, places: np.ndarray, n: int) -> np.ndarray:
    """`ngram_hashes` at some places alone."""
    total = words[places]
    for k in range(1, n):
        total *= _Q
        total += words[places + k]
    return total


def changes(values: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before; the first one does."""
    return np.concatenate([np.ones(min(1, len(values)), bool), values[1:] != values[:-1]])


def ratio(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """part / whole [N], and `empty` where there is no whole."""
    return np.divide(part, whole, out=np.full(len(whole), float(empty)), where=whole > 0)


def _segment_sums(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    kind = np.float64 if np.issubdtype(values.dtype, np.floating) else np.int64
    total = np.concatenate([np.zeros(1, kind), np.cumsum(values, dtype=kind)])
    return total[first[1:]] - total[first[:-1]]


@cache
def _power_tables(count: int) -> tuple[np.ndarray, np.ndarray]:
    """P^i and P^−i mod 2^64 for i below count."""
    return _powers(_P, count), _powers(pow(_P, -1, 2**64), count)


def _powers(base: int, count: int) -> np.ndarray:
    values = np.full(count, np.uint64(base))
    values[0] = 1
    return np.cumprod(values, dtype=np.uint64)


def splitmix64(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014), which spreads every bit of a number over all 64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _lower() -> np.ndarray:
    """Every character in lower case where that is one character, else itself; uint32 [0x110000]."""
    table, chars = np.arange(_CODES, dtype=np.uint32), _characters()
    for code in np.flatnonzero(np.strings.isupper(chars) | np.strings.istitle(chars)).tolist():
        if len(low := chr(code).lower()) == 1:
            table[code] = ord(low)
    return table


def _characters() -> np.ndarray:
    """All characters there are, one a string."""
    return np.arange(_CODES, dtype=np.uint32).view("U1")


@cache
def _kinds() -> np.ndarray:
    """The flags of every character, uint8 [0x110000]."""
    chars = _characters()
    flags = np.where(np.strings.isspace(chars), SPACE, 0).astype(np.uint8)
    flags |= np.where(np.strings.isalnum(chars), WORD, 0).astype(np.uint8)
    flags |= np.where(np.strings.isalpha(chars), ALPHA, 0).astype(np.uint8)
    flags[ord("_")] |= WORD
    for char in _SYMBOLS:
        flags[ord(char)] |= PUNCTUATION
    flags[[int(code, 16) for code in _TERMINALS.split()]] |= PUNCTUATION | TERMINAL
    return flags
