"""The rules of C4: Raffel et al. 2020, *Exploring the Limits of Transfer Learning*, JMLR 21(140), section 2.2.

They drop lines, then documents by what the remaining lines contain. The list of bad words is not applied.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measurement, RemovedLines, Rule, RuleResult
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.options import option

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_ENDS = (".", "?", "!", '"', "'")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
# A sentence ends at a punctuation mark, with the closing quotes and brackets after it, before a space or the end.
_SENTENCE_END = re.compile(r"(?<![.?!])[.?!]++[\"'”’)\]]*+(?=\s|$)")


@dataclass(frozen=True)
class C4(Rule):
    """Keep lines that end a sentence and do not mention cookies or JavaScript; keep documents of enough such lines."""

    name: ClassVar[str] = "c4"

    min_line_words: int = option("words in a line, at least", 3, at_least=0)
    max_word_length: int = option("characters in the longest word of a line, at most", 1000, at_least=1)
    min_sentences: int = option("sentences in the remaining lines of a document, at least", 5, at_least=0)

    def apply(self, texts: Texts) -> RuleResult:
        """Remove lines, then drop documents with forbidden content or too few sentences."""
        pages = [self.clean_text(text) for text in texts.texts]
        removed_lines = [(i, *line) for i, cleaned in enumerate(pages) for line in cleaned.removed]
        number, line, reason, content, value, bound = zip(*removed_lines, strict=True) if removed_lines else ((),) * 6
        positions, measured = (np.array(number, np.int64), np.array(line, np.int64)), (np.array(value), np.array(bound))
        removed = RemovedLines(*positions, reason, content, *(m.astype(float) for m in measured))
        forbidden, sentences, changed = np.array([[p.forbidden, p.sentences, p.changed] for p in pages], float).T
        measurements = (
            Measurement("lorem ipsum or curly brackets", forbidden, at_most=0, binary=True),
            Measurement("sentences", sentences, self.min_sentences),
            Measurement("lines changed", changed),
        )
        kept = [old if new.text == old else new.text for new, old in zip(pages, texts.texts, strict=True)]
        return RuleResult(kept, measurements, removed)

    def clean_text(self, text: str) -> "CleanedText":
        """Apply the rules to one text, split by `str.splitlines`; also strip its lines and remove citations."""
        lower = text.lower()
        occurrences = _Occurrences("javascript" in lower, "lorem ipsum" in lower, any(p in lower for p in _POLICY))
        kept: list[str] = []
        removed: list[tuple[int, str, str, float, float]] = []
        changed = 0
        for number, raw in enumerate(text.splitlines()):
            line, reason, value, bound = _line(raw.strip(), self, occurrences)
            if reason in ("lorem ipsum", "curly bracket"):
                return CleanedText(text, [], True, self.min_sentences, 0)
            if reason is None:
                kept.append(line)
                changed += line != raw
            else:
                removed.append((number, reason, raw, value, bound))
        return CleanedText("\n".join(kept).strip(), removed, False, sum(map(count_sentences, kept)), changed)


@dataclass(frozen=True)
class CleanedText:
    """A text after the rules."""

    text: str  # the remaining lines
    removed: list[tuple[int, str, str, float, float]]  # (line number, reason, line, measured value, bound)
    forbidden: bool  # contains lorem ipsum or curly brackets, so the document is dropped
    sentences: int
    changed: int  # remaining lines from which citations or white space were removed


@dataclass(frozen=True)
class _Occurrences:
    """Which phrases occur anywhere in the document; its lines are searched only for these."""

    script: bool
    ipsum: bool
    policy: bool


def _line(line: str, rule: C4, occurrences: _Occurrences) -> tuple[str, str | None, float, float]:
    """Return (line without citations, reason to drop it or None, measured value, bound).

    For a forbidden phrase, value and bound are 1 and 0. The rules are checked in the order of the published code.
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
    return line, _phrase(line, occurrences), 1, 0


def _phrase(line: str, occurrences: _Occurrences) -> str | None:
    """Return the name of the forbidden phrase in a line, or None."""
    lower = line.lower() if occurrences.ipsum or occurrences.script or occurrences.policy else ""
    if occurrences.ipsum and "lorem ipsum" in lower:
        return "lorem ipsum"
    if occurrences.script and "javascript" in lower:
        return "javascript"
    if "{" in line:
        return "curly bracket"
    return "policy" if occurrences.policy and any(p in lower for p in _POLICY) else None


def count_sentences(line: str) -> int:
    """Count the sentences of a line: those that end with a punctuation mark, and the rest after the last one."""
    ends = [m.end() for m in _SENTENCE_END.finditer(line)]
    rest = line[ends[-1] :] if ends else line
    return len(ends) + bool(rest.strip())
