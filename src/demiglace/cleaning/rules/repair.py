"""Repair of broken Unicode by ftfy (Speer 2019), with FineWeb's settings: errors are fixed, style is kept.

ftfy is slow. It is only called for lines with a character that it may change.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import ftfy
import numpy as np
from ftfy.badness import is_bad

from demiglace.cleaning.rules.base import Measurement, Rule, RuleResult
from demiglace.cleaning.text_arrays import Texts, changes

_CONFIG = ftfy.TextFixerConfig(
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    normalization=None,
    explain=False,
)
# What ftfy changes in any context: HTML entities, control characters (C0, C1, format) and surrogates.
_ENTITIES = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u206a-\u206f\ud800-\udfff\ufeff\ufff9-\ufffc]")
# Otherwise ftfy detects wrong decoding only if a line has one of a few telltale letters, or two adjacent characters
# beyond ASCII. Two punctuation marks do not count, since they need a letter such as "â" before them.
_MARKS, _LETTERS = "–—‘’“”…", "ÂÃŒœ"
_MARK, _BEYOND, _TELLING, _ENTITY, _CONTROL = 1, 2, 4, 8, 16


@dataclass(frozen=True)
class Repair(Rule):
    """Fix wrongly decoded text, HTML entities and control characters."""

    name: ClassVar[str] = "repair"

    def apply(self, texts: Texts) -> RuleResult:
        """Fix lines and count them; drop no text."""
        lines, kept, count = texts.lines, list(texts.texts), np.zeros(len(texts))
        rows, signs = _unusual_lines(texts)
        owner = lines.owner[rows]
        spans = (lines.start[rows] - texts.first[owner]).tolist(), (lines.end[rows] - texts.first[owner]).tolist()
        tags = [text.find("<") for text in kept]
        fixes: dict[int, list[tuple[int, int, str]]] = {}
        for i, start, end, sign in zip(owner.tolist(), *spans, signs.tolist(), strict=True):
            line = kept[i][start:end]
            if _may_change(line, sign) and (fixed := _fixed(line, is_html=0 <= tags[i] < end)) != line:
                fixes.setdefault(i, []).append((start, end, fixed))
        for i, pieces in fixes.items():
            kept[i], count[i] = _replaced(kept[i], pieces), len(pieces)
        return RuleResult(kept, (Measurement("lines mended", count),))


def _unusual_lines(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Return the lines that ftfy may change, and flags of the reasons; each [R]."""
    codes = texts.codes
    # Printable ASCII is 0x20 to 0x7E; smaller codes wrap around to large numbers.
    positions = np.flatnonzero((codes - np.uint32(0x20) > 0x5E) | (codes == ord("&")))
    signs = _signs()[codes[positions]]
    letters = signs & (_MARK | _BEYOND | _TELLING)
    current, following = letters[:-1], np.where(np.diff(positions) == 1, letters[1:], 0)
    pair = (current > 0) & (following > 0) & ((current | following) > _MARK)
    signs &= _TELLING | _ENTITY | _CONTROL
    signs[:-1][pair] |= _TELLING
    flagged = np.flatnonzero(signs)
    rows = np.searchsorted(texts.lines.end, positions[flagged], side="right")
    heads = np.flatnonzero(changes(rows))
    return rows[heads], np.bitwise_or.reduceat(signs[flagged], heads) if len(heads) else signs[:0]


@cache
def _signs() -> np.ndarray:
    """Return the flags of every character, 0 for most of ASCII; uint8 [0x110000]."""
    codes = np.arange(0x110000, dtype=np.uint32)
    signs = np.where(codes > 0x7F, _BEYOND, 0).astype(np.uint8)
    for flag, characters in ((_MARK, _MARKS), (_TELLING, _LETTERS), (_ENTITY, "&")):
        signs[list(map(ord, characters))] = flag
    every = codes.tobytes().decode("utf-32-le", "surrogatepass")
    signs[[match.start() for match in _CONTROLS.finditer(every)]] = _CONTROL
    return signs


def _may_change(line: str, sign: int) -> bool:
    may_change = sign & _CONTROL or (sign & _ENTITY and _ENTITIES.search(line)) or (sign & _TELLING and is_bad(line))
    return bool(may_change)


def _fixed(line: str, is_html: bool) -> str:
    """Fix a line. Entities are kept in HTML, which for ftfy begins at the first line with a "<"."""
    return ftfy.fix_and_explain(line, _CONFIG._replace(unescape_html=not is_html)).text


def _replaced(text: str, pieces: Sequence[tuple[int, int, str]]) -> str:
    parts, last = [], 0
    for start, end, new in pieces:
        parts += [text[last:start], new]
        last = end
    return "".join([*parts, text[last:]])
