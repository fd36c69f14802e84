"""Repair of broken Unicode by ftfy (Speer 2019), with the choices of FineWeb: what is wrong is mended, style is left.

Asking ftfy costs much; lines without a character that it may touch are not shown to it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import ftfy
import numpy as np
from ftfy.badness import is_bad

from demiglace.cleaning.rules.base import Measure, Rule, RuleResult
from demiglace.cleaning.text_arrays import Texts, changes

_CONFIG = ftfy.TextFixerConfig(
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    normalization=None,
    explain=False,
)
# what ftfy mends wherever it stands: entities, and control characters of C0 and C1, of format, and surrogates
_ENTITIES = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u206a-\u206f\ud800-\udfff\ufeff\ufff9-\ufffc]")
# else ftfy finds no sign of wrong decoding without one of a few letters that say something alone, or two characters
# beyond ASCII side by side, not both of the marks that need a letter such as "â" before them
_MARKS, _LETTERS = "–—‘’“”…", "ÂÃŒœ"
_MARK, _BEYOND, _TELLING, _ENTITY, _CONTROL = 1, 2, 4, 8, 16


@dataclass(frozen=True)
class Repair(Rule):
    """Text that was decoded wrongly, HTML entities and control characters are mended."""

    name: ClassVar[str] = "repair"

    def apply(self, texts: Texts) -> RuleResult:
        """No text is dropped; the lines that were mended are counted."""
        lines, kept, count = texts.lines, list(texts.texts), np.zeros(len(texts))
        rows, signs = _unusual_lines(texts)
        owner = lines.owner[rows]
        spans = (lines.start[rows] - texts.first[owner]).tolist(), (lines.end[rows] - texts.first[owner]).tolist()
        tags = [text.find("<") for text in kept]
        mended: dict[int, list[tuple[int, int, str]]] = {}
        for i, start, end, sign in zip(owner.tolist(), *spans, signs.tolist(), strict=True):
            line = kept[i][start:end]
            if _may_change(line, sign) and (fixed := _fixed(line, is_html=0 <= tags[i] < end)) != line:
                mended.setdefault(i, []).append((start, end, fixed))
        for i, pieces in mended.items():
            kept[i], count[i] = _replaced(kept[i], pieces), len(pieces)
        return RuleResult(kept, (Measure("lines mended", count),))


def _unusual_lines(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """The lines with something that ftfy may take for broken, and what there is of that, as flags; each [R]."""
    codes = texts.codes
    # printable ASCII is 0x20 to 0x7E; what is below wraps around and is large
    places = np.flatnonzero((codes - np.uint32(0x20) > 0x5E) | (codes == ord("&")))
    signs = _signs()[codes[places]]
    letters = signs & (_MARK | _BEYOND | _TELLING)
    here, behind = letters[:-1], np.where(np.diff(places) == 1, letters[1:], 0)
    pair = (here > 0) & (behind > 0) & ((here | behind) > _MARK)
    signs &= _TELLING | _ENTITY | _CONTROL
    signs[:-1][pair] |= _TELLING
    found = np.flatnonzero(signs)
    rows = np.searchsorted(texts.lines.end, places[found], side="right")
    heads = np.flatnonzero(changes(rows))
    return rows[heads], np.bitwise_or.reduceat(signs[found], heads) if len(heads) else signs[:0]


@cache
def _signs() -> np.ndarray:
    """What every character is a sign of, nothing for most of ASCII; uint8 [0x110000]."""
    codes = np.arange(0x110000, dtype=np.uint32)
    signs = np.where(codes > 0x7F, _BEYOND, 0).astype(np.uint8)
    for flag, characters in ((_MARK, _MARKS), (_TELLING, _LETTERS), (_ENTITY, "&")):
        signs[list(map(ord, characters))] = flag
    every = codes.tobytes().decode("utf-32-le", "surrogatepass")
    signs[[found.start() for found in _CONTROLS.finditer(every)]] = _CONTROL
    return signs


def _may_change(line: str, sign: int) -> bool:
    found = sign & _CONTROL or (sign & _ENTITY and _ENTITIES.search(line)) or (sign & _TELLING and is_bad(line))
    return bool(found)


def _fixed(line: str, is_html: bool) -> str:
    """Entities stay from the first line with a "<" on, where the text is HTML to ftfy."""
    return ftfy.fix_and_explain(line, _CONFIG._replace(unescape_html=not is_html)).text


def _replaced(text: str, pieces: Sequence[tuple[int, int, str]]) -> str:
    parts, last = [], 0
    for start, end, new in pieces:
        parts += [text[last:start], new]
        last = end
    return "".join([*parts, text[last:]])
