"""The two rules of Li et al. 2021, *A Short Study on Compressing Decoder-Based Language Models*, arXiv 2110.08460.

Both work on lines, as the authors' program does. A line is right-stripped first. It is dropped if its key was seen
before, or if BeautifulSoup with Python's `html.parser` finds a tag in it or rejects it. The lines that are kept are not
changed: trailing white space stays in the text, while the authors' program removes it.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Rule, RuleResult
from demiglace.cleaning.rules.dedup import CollectionRule, KeyTable, all_but_first, contents, key_table, without_lines
from demiglace.cleaning.text_arrays import SPACE, WORD, Hashes, Texts, splitmix64

_MARKS = re.compile(r"[^\w\s]")
# html.parser reads "<" and a letter as a start tag, and raises only at a marked section, "<!["
_MAY_BEGIN_TAG = re.compile(r"<(?:[a-zA-Z]|!\[)")
_MOST_WORK = 10_000_000  # characters read again after unterminated tags and comments; takes a few seconds
_ENDS = 4


@dataclass(frozen=True)
class UniqueLines(CollectionRule):
    """Remove all but the first of the lines that have equal keys, in the collection."""

    name: ClassVar[str] = "unique-lines"

    def keys(self, texts: Texts, documents: np.ndarray, sites: Sequence[str]) -> KeyTable:
        """Return `line_key` of every line, hashed to 64 bits."""
        lines = texts.lines
        return key_table(
            line_keys(texts), documents[lines.owner], np.arange(len(lines.start)) - lines.first[lines.owner]
        )

    def reduce(self, keys: KeyTable) -> KeyTable:
        """Mark all lines but the first of each key; the key of a mark is the document of the first line."""
        return all_but_first(keys)

    def apply(self, texts: Texts, marked: KeyTable) -> RuleResult:
        """Remove the lines; drop documents without remaining text."""
        return without_lines(texts, marked, "key seen before", np.ones(len(marked)), 0, marked.key)


@dataclass(frozen=True)
class HtmlLines(Rule):
    """Remove lines in which BeautifulSoup's `html.parser` finds a tag, and lines that it rejects."""

    name: ClassVar[str] = "html-lines"

    def apply(self, texts: Texts) -> RuleResult:
        """Remove the lines; drop documents without remaining text."""
        tagged = [(i, n) for i, text in enumerate(texts.texts) for n in tagged_lines(text)]
        documents, numbers = np.array(tagged, np.int64).reshape(-1, 2).T
        ones = np.ones(len(tagged))
        return without_lines(texts, key_table(ones, documents, numbers), "HTML tag", ones, 0)


def tagged_lines(text: str) -> list[int]:
    """Return the 0-based numbers of the lines for which `has_tag` is true; lines without a possible tag are skipped."""
    tagged, line, start = [], 0, 0
    candidate = _MAY_BEGIN_TAG.search(text)
    while candidate:
        begin, end = text.rfind("\n", 0, candidate.start()) + 1, text.find("\n", candidate.start())
        end = len(text) if end < 0 else end
        line += text.count("\n", start, begin)
        if finds_tag(text[begin:end]):
            tagged.append(line)
        start, candidate = begin, _MAY_BEGIN_TAG.search(text, end)
    return tagged


def line_keys(texts: Texts) -> np.ndarray:
    """Return a 64-bit hash of `line_key` for every line of a batch, uint64 [lines]."""
    lines, inner = texts.lines, (texts.char_flags & WORD) != 0
    letters, others = texts.codes[inner], np.flatnonzero(~inner)
    rank = np.flatnonzero(texts.char_flags[others] & SPACE)
    spaces = others[rank]
    # convert positions among all characters to positions among letters
    first, last = (edge - np.searchsorted(others, edge) for edge in (lines.start, lines.end))
    # words, without punctuation, begin at the first letter after a space or at the start of the line
    fresh = np.zeros(len(letters) + 1, bool)
    fresh[first] = True
    fresh[spaces - rank] = True
    begins = np.flatnonzero(fresh[:-1])
    low, high = np.searchsorted(begins, first), np.searchsorted(begins, last)
    head_end = _at(begins, np.minimum(low + _ENDS, high), high, last)
    tail_start = _at(begins, np.maximum(high - _ENDS, low), high, last)
    hashes = Hashes(letters)
    ends = hashes.of_two(first, head_end, tail_start, last)
    plain = last - first + np.searchsorted(spaces, _right_stripped(texts)) - np.searchsorted(spaces, lines.start)
    return splitmix64(ends ^ splitmix64(plain.astype(np.uint64)))


def _right_stripped(texts: Texts) -> np.ndarray:
    """Return the end of every line of a batch without its trailing white space [lines]."""
    lines, end = texts.lines, texts.lines.end.copy()
    filled = np.flatnonzero(lines.lengths)
    rows = filled[(texts.char_flags[end[filled] - 1] & SPACE) != 0]
    end[rows] -= np.array([len(line) - len(line.rstrip()) for line in contents(texts, rows)], np.int64)
    return end


def _at(begins: np.ndarray, index: np.ndarray, high: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the letter at which a word begins; past the last word of a line, the end of the line."""
    return np.where(index < high, np.append(begins, 0)[index], last)


def line_key(line: str) -> tuple[int, bytes]:
    """Return (length, MD5 of the first four and last four words joined) of the right-stripped line without marks."""
    plain = _MARKS.sub("", line.rstrip())
    words = plain.split()
    ends = "".join(words[:_ENDS] + words[-_ENDS:])
    return len(plain), hashlib.md5(ends.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()


def has_tag(line: str) -> bool:
    """Return whether BeautifulSoup finds a tag in a line or rejects it; lines without a possible tag are not parsed."""
    return bool(_MAY_BEGIN_TAG.search(line)) and finds_tag(line)


def finds_tag(line: str) -> bool:
    """Return whether `BeautifulSoup(line.rstrip(), "html.parser").find()` is a tag or raises.

    BeautifulSoup makes a tag of every start tag that `html.parser` reports. End tags, comments and declarations make
    none, and its handlers do not influence the parser before the first start tag. So the parser is used directly, in
    the installed Python's version. There are two exceptions:

    - After an unterminated tag or comment, some versions of the parser read the rest of the line again. A line counts
      as one with a tag once 10 million characters were read in this way. Lines up to 4,000 characters never reach that.
    - BeautifulSoup raises at a numeric character reference of more than 4,300 digits where Python limits `int`.
      Such a reference has no influence here, as with the authors' Python.
    """
    line = line.rstrip()
    if ">" not in line and "<![" not in line:  # every start tag ends with ">"
        return False
    finder = _TagFinder(_MOST_WORK // len(line))
    try:
        finder.feed(line)
        finder.close()
    # AssertionError: an unknown marked section; ValueError: too long a number in an attribute
    except (_FoundTag, AssertionError, ValueError):
        return True
    return False


class _FoundTag(Exception):  # noqa: N818  (not an error: it ends a search)
    pass


class _TagFinder(HTMLParser):
    def __init__(self, most_unended: int) -> None:
        super().__init__(convert_charrefs=False)  # as BeautifulSoup does
        self._left = most_unended

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raise _FoundTag

    def handle_data(self, data: str) -> None:
        self._left -= len(data) > 1 and data[0] == "<"
        if self._left < 0:
            raise _FoundTag


def unseen_lines(lines: Iterable[str], seen: set[tuple[int, bytes]]) -> list[bool]:
    """Return which lines have a key that is not in `seen`, and add their keys to it."""
    kept = []
    for line in lines:
        key = line_key(line)
        kept.append(key not in seen)
        seen.add(key)
    return kept
