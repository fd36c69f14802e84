"""The rules of C4: Raffel et al. 2020, *Exploring the Limits of Transfer Learning*, JMLR 21(140), section 2.2.

They drop lines, and documents for what is in a line that is left. The word list for bad words is not applied.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measure, RemovedLines, Rule, RuleResult
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.options import option

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_ENDS = (".", "?", "!", '"', "'")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
# a sentence ends at a mark, with quotes and brackets that close behind it, before a space or the end
_SENTENCE_END = re.compile(r"(?<![.?!])[.?!]++[\"'”’)\]]*+(?=\s|$)")


@dataclass(frozen=True)
class C4(Rule):
    """Lines that end a sentence and are not about cookies or scripts; documents of enough of them, without code."""

    name: ClassVar[str] = "c4"

    min_line_words: int = option("words in a line, at least", 3, at_least=0)
    max_word_length: int = option("characters in a word of a line, at most", 1000, at_least=1)
    min_sentences: int = option("sentences in what is left of a document, at least", 5, at_least=0)

    def apply(self, texts: Texts) -> RuleResult:
        """Lines are taken out; what is left is counted."""
        pages = [self.page(text) for text in texts.texts]
        gone = [(i, *line) for i, page in enumerate(pages) for line in page.removed]
        number, line, reason, content, value, bound = zip(*gone, strict=True) if gone else ((),) * 6
        places, measured = (np.array(number, np.int64), np.array(line, np.int64)), (np.array(value), np.array(bound))
        removed = RemovedLines(*places, reason, content, *(m.astype(float) for m in measured))
        forbidden, sentences, changed = np.array([[p.forbidden, p.sentences, p.changed] for p in pages], float).T
        measures = (
            Measure("lorem ipsum or curly brackets", forbidden, at_most=0, binary=True),
            Measure("sentences", sentences, self.min_sentences),
            Measure("lines changed", changed),
        )
        kept = [old if page.text == old else page.text for page, old in zip(pages, texts.texts, strict=True)]
        return RuleResult(kept, measures, removed)

    def page(self, text: str) -> "Page":
        """The rules on one text. Lines are those of `str.splitlines`; spaces at their ends and citations go too."""
        lower = text.lower()
        rare = _Rare("javascript" in lower, "lorem ipsum" in lower, any(p in lower for p in _POLICY))
        kept: list[str] = []
        removed: list[tuple[int, str, str, float, float]] = []
        changed = 0
        for number, raw in enumerate(text.splitlines()):
            line, reason, value, bound = _line(raw.strip(), self, rare)
            if reason in ("lorem ipsum", "curly bracket"):
                return Page(text, [], True, self.min_sentences, 0)
            if reason is None:
                kept.append(line)
                changed += line != raw
            else:
                removed.append((number, reason, raw, value, bound))
        return Page("\n".join(kept).strip(), removed, False, sum(map(count_sentences, kept)), changed)


@dataclass(frozen=True)
class Page:
    """What is left of a text; lines that went (number, reason, line, measured value, bound); facts of what stayed.

    forbidden: whether it has what drops it; sentences: in it; changed: lines of which citations or spaces went.
    """

    text: str
    removed: list[tuple[int, str, str, float, float]]
    forbidden: bool
    sentences: int
    changed: int


@dataclass(frozen=True)
class _Rare:
    """Whether the document has these anywhere, so that its lines need not be searched for them one by one."""

    script: bool
    ipsum: bool
    policy: bool


def _line(line: str, rule: C4, rare: _Rare) -> tuple[str, str | None, float, float]:
    """The line without citations, why it is dropped, and by what value and bound (1 and 0 where it has something).

    The order of the reasons is that of the published code.
    """
    words = line.split()
    if len(line) > rule.max_word_length and (longest := max(map(len, words), default=0)) > rule.max_word_length:
        return line, "too long word", longest, rule.max_word_length
    if "[" in line:
        line = _CITATION.sub("", line)
    if not line.endswith(_ENDS) or line.endswith("..."):
        return line, "no end mark", 0, 1
    if len(words) < rule.min_line_words:
        return line, "too few words", len(words), rule.min_line_words
    return line, _phrase(line, rare), 1, 0


def _phrase(line: str, rare: _Rare) -> str | None:
    lower = line.lower() if rare.ipsum or rare.script or rare.policy else ""
    if rare.ipsum and "lorem ipsum" in lower:
        return "lorem ipsum"
    if rare.script and "javascript" in lower:
        return "javascript"
    if "{" in line:
        return "curly bracket"
    return "policy" if rare.policy and any(p in lower for p in _POLICY) else None


def count_sentences(line: str) -> int:
    """The sentences of a line: those that end in a mark, and what follows the last one."""
    ends = [m.end() for m in _SENTENCE_END.finditer(line)]
    rest = line[ends[-1] :] if ends else line
    return len(ends) + bool(rest.strip())
