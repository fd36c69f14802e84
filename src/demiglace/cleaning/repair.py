"""Repair of broken Unicode by ftfy (Speer 2019), with the choices of FineWeb: what is wrong is mended, style is left.

Asking ftfy costs much; lines of characters that it never touches are not shown to it.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import ftfy
import numpy as np
from ftfy.badness import is_bad

from demiglace.cleaning.rule import Measure, Outcome, Rule
from demiglace.cleaning.texts import Texts

_CONFIG = ftfy.TextFixerConfig(
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    normalization=None,
    explain=False,
)
# neither printable ASCII nor one of the marks and spaces that need a letter such as "â" before them to be a sign of
# wrong decoding; or what may begin an entity
_UNUSUAL = re.compile(r"[^\t\n\r\x20-\x25\x27-\x7e–—‘’“”…]|&")
# what ftfy mends wherever it stands: entities, control characters of C0 and C1, of format, and surrogates
_ALWAYS = re.compile(
    r"&#?[0-9A-Za-z]{1,24};|[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u206a-\u206f\ud800-\udfff\ufeff\ufff9-\ufffc]"
)

# without one of these ftfy finds no sign of wrong decoding: two characters beyond ASCII side by side, not both of the
# marks above, or one of the few that say something alone
_PAIR = re.compile("[^\x00-\x7f–—‘’“”…][^\x00-\x7f]|[–—‘’“”…][^\x00-\x7f–—‘’“”…]|[ÂÃŒœ]")


@dataclass(frozen=True)
class Repair(Rule):
    """Text that was decoded wrongly, HTML entities and control characters are mended."""

    name: ClassVar[str] = "repair"

    def apply(self, texts: Texts) -> Outcome:
        """No text is dropped; the lines that were mended are counted."""
        mended = [repair(text) for text in texts.texts]
        return Outcome([new for new, _ in mended], (Measure("lines mended", np.array([float(n) for _, n in mended])),))


def repair(text: str) -> tuple[str, int]:
    """The text with every line mended that needs it, the very same object if none does; and how many did."""
    if text.isascii() and "&" not in text and text.replace("\n", "").isprintable():
        return text, 0
    mended: dict[tuple[int, int], str] = {}
    found = _UNUSUAL.search(text)
    while found:
        start, end = text.rfind("\n", 0, found.start()) + 1, text.find("\n", found.start())
        end = len(text) if end < 0 else end
        line = text[start:end]
        if _may_change(line) and (fixed := _fixed(line, is_html="<" in text[:end])) != line:
            mended[start, end] = fixed
        found = _UNUSUAL.search(text, end)
    return (_replaced(text, mended), len(mended)) if mended else (text, 0)


def _may_change(line: str) -> bool:
    return bool(_ALWAYS.search(line)) or (bool(_PAIR.search(line)) and is_bad(line))


def _fixed(line: str, is_html: bool) -> str:
    """Entities stay from the first line with a "<" on, where the text is HTML to ftfy."""
    return ftfy.fix_and_explain(line, _CONFIG._replace(unescape_html=not is_html)).text


def _replaced(text: str, pieces: dict[tuple[int, int], str]) -> str:
    parts, last = [], 0
    for (start, end), new in pieces.items():
        parts += [text[last:start], new]
        last = end
    return "".join([*parts, text[last:]])
