"""A batch of texts as arrays of characters, words and lines, so that rules count without Python loops.

All positions are indices into `codes`, the concatenated characters of all texts. Spans are half open, and those of text
i are `first[i]:first[i + 1]`. Shapes: N texts, C characters, W words, S spans.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from demiglace.data.text.streams import plain_line_ends

SPACE, WORD, ALPHA, PUNCTUATION, TERMINAL = 1, 2, 4, 8, 16
_NEWLINE = ord("\n")
_CODES = 0x110000
_P = 0x9E3779B97F4A7C15  # odd, so that it has an inverse mod 2^64
_Q = np.uint64(0xD1342543DE82EF95)
# the symbols of datatrove 0.10 (its PUNCTUATION), so that "words" means the same in both
_SYMBOLS = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»" + "".join(
    map(chr, (*range(9), *range(11, 13), *range(13, 32), *range(127, 160)))
)
# marks that end a sentence, in any script: Unicode 16's Sentence_Terminal and some more, as in FineWeb
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
    """Spans of the texts, such as words or lines."""

    start: np.ndarray  # [S]
    end: np.ndarray  # [S]
    first: np.ndarray  # [N + 1]; the spans of text i are first[i]:first[i + 1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Return the number of characters of each span [S]."""
        return self.end - self.start

    @property
    def counts(self) -> np.ndarray:
        """Return the number of spans of each text [N]."""
        return np.diff(self.first)

    @cached_property
    def owner(self) -> np.ndarray:
        """Return the index of the text of each span [S]."""
        return np.repeat(np.arange(len(self.first) - 1), self.counts)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum values [S] over the spans of each text [N]."""
        return _segment_sums(values, self.first)


class Texts:
    """A batch of texts with the arrays that rules need, computed on first use."""

    def __init__(self, texts: Sequence[str]):
        self.texts = [plain_line_ends(text) for text in texts]  # rules need no other line end than \n
        self.lengths = np.fromiter(map(len, self.texts), np.int64, len(self.texts))
        self.first = np.concatenate([[0], np.cumsum(self.lengths)])

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def codes(self) -> np.ndarray:
        """Return the characters as Unicode code points, uint32 [C]."""
        return np.frombuffer("".join(self.texts).encode("utf-32-le", "surrogatepass"), np.uint32)

    @cached_property
    def char_flags(self) -> np.ndarray:
        """Return the flags SPACE, WORD, ALPHA, PUNCTUATION, TERMINAL of each character; uint8 [C]."""
        return _char_flags().take(self.codes, mode="clip")

    @cached_property
    def words(self) -> Spans:
        r"""Return the words: runs of letters, digits and underscores, and every other visible character separately.

        Equal to ``re.findall(r"\w+|[^\w\s]", text)``.
        """
        inner = (self.char_flags & WORD).astype(bool)
        visible = (self.char_flags & SPACE) == 0
        concat_tables = np.zeros(len(inner) + 1, bool)  # whether a character continues the previous one's word
        concat_tables[1:-1] = inner[1:] & inner[:-1]
        concat_tables[self.first[:-1][self.lengths > 0]] = False
        start = np.flatnonzero(visible & ~concat_tables[:-1])
        end = np.flatnonzero(visible & ~concat_tables[1:]) + 1
        return Spans(start, end, np.searchsorted(start, self.first))

    @cached_property
    def non_symbol_words(self) -> np.ndarray:
        """Return which words have a character that is not a symbol, bool [W]."""
        return self.any_in(self.words, (self.char_flags & PUNCTUATION) == 0)

    @cached_property
    def lines(self) -> Spans:
        """Return the lines, split only at "\\n": a text with n newlines has n + 1 lines, some of them empty."""
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
    def visible_line_bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the first and last visible character of each line, and whether it has one; each [lines]."""
        words = self.words
        first_word = np.searchsorted(words.start, self.lines.start)
        end_word = np.searchsorted(words.start, self.lines.end)
        return np.append(words.start, 0)[first_word], np.append(words.end, 1)[end_word - 1] - 1, end_word > first_word

    def any_in(self, spans: Spans, flags: np.ndarray) -> np.ndarray:
        """Return which spans have a flagged character, bool [S]; spans must not be empty.

        The first character decides most spans, so it is checked first.
        """
        is_flagged = flags[spans.start]
        rest = np.flatnonzero(~is_flagged & (spans.lengths > 1))
        if len(rest):
            borders = np.stack([spans.start[rest], spans.end[rest]], 1).ravel()
            is_flagged[rest] = np.logical_or.reduceat(np.append(flags, False), borders)[::2]
        return is_flagged

    @cached_property
    def hashes(self) -> "Hashes":
        """Return the hash function of spans of the texts."""
        return Hashes(self.codes)

    @cached_property
    def word_hashes(self) -> np.ndarray:
        """Return the hash of each word, uint64 [W]."""
        return self.hashes.of(self.words.start, self.words.end)

    @cached_property
    def shingle_words(self) -> tuple[np.ndarray, np.ndarray]:
        """Return hashes of the lower-case words without punctuation, uint64 [V], and where each text's begin [N + 1].

        Near-duplicates and contamination are found by these.
        """
        lower = Hashes(_lower()[self.codes])
        with_letters = np.flatnonzero(np.append(self.char_flags, 0)[self.words.start] & WORD)
        first = np.searchsorted(with_letters, self.words.first)
        return lower.of(self.words.start[with_letters], self.words.end[with_letters]), first


class Hashes:
    """Hashes spans in constant time each: SplitMix64 of Σ c_j·P^(j − start) mod 2^64, from prefix sums.

    Spans that differ only in NUL characters at their end have equal hashes. Other collisions are random.
    """

    def __init__(self, codes: np.ndarray):
        self._powers, self._inverse = _power_tables(1 << len(codes).bit_length())
        self._sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(codes * self._powers[: len(codes)], out=self._sums[1:])

    def of(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return the hashes of codes[start:end], uint64 [S]."""
        return splitmix64((self._sums[end] - self._sums[start]) * self._inverse[start])

    def of_two(self, start: np.ndarray, end: np.ndarray, start2: np.ndarray, end2: np.ndarray) -> np.ndarray:
        """Return the hashes of codes[start:end] followed by codes[start2:end2], uint64 [S]."""
        first = (self._sums[end] - self._sums[start]) * self._inverse[start]
        second = (self._sums[end2] - self._sums[start2]) * self._inverse[start2] * self._powers[end - start]
        return splitmix64(first + second)


def ngram_hashes(words: np.ndarray, n: int) -> np.ndarray:
    """Return hashes of all n-grams from the words' hashes, uint64 [W − n + 1], including those that span two texts."""
    if len(words) < n:
        return np.zeros(0, np.uint64)
    total = words[: len(words) - n + 1].copy()
    for k in range(1, n):
        total *= _Q
        total += words[k : len(words) - n + 1 + k]
    return total


def ngram_hashes_at(words: np.ndarray, positions: np.ndarray, n: int) -> np.ndarray:
    """Return `ngram_hashes` only at these positions."""
    total = words[positions]
    for k in range(1, n):
        total *= _Q
        total += words[positions + k]
    return total


def changes(values: np.ndarray) -> np.ndarray:
    """Return where a value differs from the previous one; True for the first value."""
    return np.concatenate([np.ones(min(1, len(values)), bool), values[1:] != values[:-1]])


def ratio(part: np.ndarray, total: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """Return part / total [N], and `empty` where the total is 0."""
    return np.divide(part, total, out=np.full(len(total), float(empty)), where=total > 0)


def _segment_sums(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    kind = np.float64 if np.issubdtype(values.dtype, np.floating) else np.int64
    total = np.concatenate([np.zeros(1, kind), np.cumsum(values, dtype=kind)])
    return total[first[1:]] - total[first[:-1]]


@cache
def _power_tables(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return P^i and P^−i mod 2^64 for i < count."""
    return _powers(_P, count), _powers(pow(_P, -1, 2**64), count)


def _powers(base: int, count: int) -> np.ndarray:
    values = np.full(count, np.uint64(base))
    values[0] = 1
    return np.cumprod(values, dtype=np.uint64)


def splitmix64(values: np.ndarray) -> np.ndarray:
    """Apply the finaliser of SplitMix64 (Steele et al. 2014): every input bit influences all 64 output bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _lower() -> np.ndarray:
    """Return the lower case of every character, or itself if its lower case has several; uint32 [0x110000]."""
    table, chars = np.arange(_CODES, dtype=np.uint32), _characters()
    for code in np.flatnonzero(np.strings.isupper(chars) | np.strings.istitle(chars)).tolist():
        if len(low := chr(code).lower()) == 1:
            table[code] = ord(low)
    return table


def _characters() -> np.ndarray:
    """Return all Unicode characters, one per string."""
    return np.arange(_CODES, dtype=np.uint32).view("U1")


@cache
def _char_flags() -> np.ndarray:
    """Return the flags of every character, uint8 [0x110000]."""
    chars = _characters()
    flags = np.where(np.strings.isspace(chars), SPACE, 0).astype(np.uint8)
    flags |= np.where(np.strings.isalnum(chars), WORD, 0).astype(np.uint8)
    flags |= np.where(np.strings.isalpha(chars), ALPHA, 0).astype(np.uint8)
    flags[ord("_")] |= WORD
    for char in _SYMBOLS:
        flags[ord(char)] |= PUNCTUATION
    flags[[int(code, 16) for code in _TERMINALS.split()]] |= PUNCTUATION | TERMINAL
    return flags
