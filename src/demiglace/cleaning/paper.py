"""The two rules of Li et al. 2021, *A Short Study on Compressing Decoder-Based Language Models*, arXiv 2110.08460.

Both work on lines. A line whose key was seen before is dropped, and so is a line in which an HTML parser finds a tag.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import ClassVar

import numpy as np

from demiglace.cleaning.collection import CollectionRule, Marks, later, marks, without_lines
from demiglace.cleaning.rule import Outcome, Rule
from demiglace.cleaning.texts import SPACE, WORD, Hashes, Texts, mixed

_MARKS = re.compile(r"[^\w\s]")
# to HTMLParser a start tag is "<" and a letter, an end tag begins with "</"; any other "<" is text or a comment
_MAY_BEGIN_TAG = re.compile(r"<[a-zA-Z/]")
_MOST_UNENDED = 20  # tags, comments and the like that begin and do not end
_ENDS = 4


@dataclass(frozen=True)
class UniqueLines(CollectionRule):
    """Of lines with equal keys in the whole collection the first one stays."""

    name: ClassVar[str] = "unique-lines"

    def keys(self, texts: Texts, documents: np.ndarray, sites: Sequence[str]) -> Marks:
        """`line_key` of every line, hashed to 64 bits."""
        lines = texts.lines
        return marks(line_keys(texts), documents[lines.owner], np.arange(len(lines.start)) - lines.first[lines.owner])

    def settle(self, keys: Marks) -> Marks:
        """All but the first of each key, and as their key the first's document."""
        return later(keys)

    def apply(self, texts: Texts, marked: Marks) -> Outcome:
        """Lines are taken out; a document of which nothing is left is dropped."""
        return without_lines(texts, marked, "key seen before", np.ones(len(marked)), 0, marked.key)


@dataclass(frozen=True)
class HtmlLines(Rule):
    """Lines in which an HTML parser finds a tag are taken out."""

    name: ClassVar[str] = "html-lines"

    def apply(self, texts: Texts) -> Outcome:
        """Lines are taken out; a document of which nothing is left is dropped."""
        tagged = [(i, n) for i, text in enumerate(texts.texts) for n in tagged_lines(text)]
        documents, numbers = np.array(tagged, np.int64).reshape(-1, 2).T
        found = np.ones(len(tagged))
        return without_lines(texts, marks(found, documents, numbers), "HTML tag", found, 0)


def tagged_lines(text: str) -> list[int]:
    """The numbers of the lines with a tag; only those in which one can begin are parsed."""
    found, line, start = [], 0, 0
    candidate = _MAY_BEGIN_TAG.search(text)
    while candidate:
        begin, end = text.rfind("\n", 0, candidate.start()) + 1, text.find("\n", candidate.start())
        end = len(text) if end < 0 else end
        line += text.count("\n", start, begin)
        if finds_tag(text[begin:end]):
            found.append(line)
        start, candidate = begin, _MAY_BEGIN_TAG.search(text, end)
    return found


def line_keys(texts: Texts) -> np.ndarray:
    """`line_key` of every line of a batch, hashed, uint64 [lines]: of its length and the ends' words, all at once."""
    lines, inner = texts.lines, (texts.kinds & WORD) != 0
    letters, others = texts.codes[inner], np.flatnonzero(~inner)
    rank = np.flatnonzero(texts.kinds[others] & SPACE)
    spaces = others[rank]
    # from places among all characters to places among letters
    first, last = (edge - np.searchsorted(others, edge) for edge in (lines.start, lines.end))
    # words, without their marks, begin at a letter that is the first behind a space or at the line's start
    fresh = np.zeros(len(letters) + 1, bool)
    fresh[first] = True
    fresh[spaces - rank] = True
    begins = np.flatnonzero(fresh[:-1])
    low, high = np.searchsorted(begins, first), np.searchsorted(begins, last)
    head_end = _at(begins, np.minimum(low + _ENDS, high), high, last)
    tail_start = _at(begins, np.maximum(high - _ENDS, low), high, last)
    hashes = Hashes(letters)
    ends = hashes.of_two(first, head_end, tail_start, last)
    plain = last - first + np.searchsorted(spaces, lines.end) - np.searchsorted(spaces, lines.start)
    return mixed(ends ^ mixed(plain.astype(np.uint64)))


def _at(begins: np.ndarray, index: np.ndarray, high: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The letter at which a word begins, or the end of the line behind its last one."""
    return np.where(index < high, np.append(begins, 0)[index], last)


def line_key(line: str) -> tuple[int, bytes]:
    """(length of the line without marks, MD5 of its first four and last four words joined)."""
    plain = _MARKS.sub("", line)
    words = plain.split()
    ends = "".join(words[:_ENDS] + words[-_ENDS:])
    return len(plain), hashlib.md5(ends.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()


def has_tag(line: str) -> bool:
    """Whether an HTML parser finds a tag in the line; where none can begin the parser is not asked."""
    return bool(_MAY_BEGIN_TAG.search(line)) and finds_tag(line)


def finds_tag(line: str) -> bool:
    """Whether Python's HTML parser finds a start or end tag.

    It looks for the end of everything that begins with "<" and tries again behind it where there is none, so that its
    work can grow with the square of the line. Hence it is not shown any "<" behind the last ">", where no tag can end,
    and a line in which very much has no end counts as one with a tag.
    """
    head, end, tail = line.rpartition(">")
    finder = _TagFinder()
    try:
        finder.feed(head + end + tail.replace("<", " "))
        finder.close()
    except _FoundTag:
        return True
    except AssertionError:  # so the parser says that it does not know a "<![", and looks no further
        return False
    return False


class _FoundTag(Exception):  # noqa: N818  (no error, but the end of a search)
    pass


class _TagFinder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self._unended = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raise _FoundTag

    def handle_endtag(self, tag: str) -> None:
        raise _FoundTag

    def handle_data(self, data: str) -> None:
        self._unended += len(data) > 1 and data[0] == "<"
        if self._unended > _MOST_UNENDED:
            raise _FoundTag


def unseen_lines(lines: Iterable[str], seen: set[tuple[int, bytes]]) -> list[bool]:
    """Which lines have a key that is not in `seen`; their keys are then in it."""
    kept = []
    for line in lines:
        key = line_key(line)
        kept.append(key not in seen)
        seen.add(key)
    return kept
