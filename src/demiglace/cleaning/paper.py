"""The two rules of Li et al. 2021, *A Short Study on Compressing Decoder-Based Language Models*, arXiv 2110.08460.

Both work on lines. A line whose key was seen before is dropped, and so is a line in which an HTML parser finds a tag.
"""

import hashlib
import re
from collections.abc import Iterable
from html.parser import HTMLParser

_MARKS = re.compile(r"[^\w\s]")
# to HTMLParser a start tag is "<" and a letter, an end tag begins with "</"; any other "<" is text or a comment
_MAY_BEGIN_TAG = re.compile(r"<[a-zA-Z/]")
_ENDS = 4


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
    """Whether Python's HTML parser finds a start or end tag."""
    finder = _TagFinder()
    finder.feed(line)
    finder.close()
    return finder.found


class _TagFinder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found = True

    def handle_endtag(self, tag: str) -> None:
        self.found = True


def unseen_lines(lines: Iterable[str], seen: set[tuple[int, bytes]]) -> list[bool]:
    """Which lines have a key that is not in `seen`; their keys are then in it."""
    kept = []
    for line in lines:
        key = line_key(line)
        kept.append(key not in seen)
        seen.add(key)
    return kept
