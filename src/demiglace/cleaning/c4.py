"""The rules of C4: Raffel et al. 2020, *Exploring the Limits of Transfer Learning*, JMLR 21(140), section 2.2.

They drop lines, and documents for what is in a line that is left. The word list for bad words is not applied.
"""

import re
from collections import Counter
from dataclasses import dataclass

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_ENDS = (".", "?", "!", '"', "'")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
# a sentence ends at a mark, with quotes and brackets that close behind it, before a space or the end
_SENTENCE_END = re.compile(r"[.?!]+[\"'”’)\]]*(?=\s|$)")


@dataclass(frozen=True)
class C4Options:
    """Thresholds: words in a line, characters in a word of a line, sentences in what is left of a document."""

    min_words: int = 3
    max_word_length: int = 1000
    min_sentences: int = 5


@dataclass(frozen=True)
class C4Result:
    """What is left of a text, or why it is dropped; the lines that went, by reason; and the sentences that are left."""

    text: str
    reason: str | None
    lines: Counter[str]
    sentences: int


def apply(text: str, options: C4Options = C4Options()) -> C4Result:
    """The rules on one text. Lines are those of `str.splitlines`; spaces at their ends and citations are removed."""
    lower = text.lower()
    rare = _Rare("javascript" in lower, "lorem ipsum" in lower, any(p in lower for p in _POLICY))
    dropped: Counter[str] = Counter()
    kept: list[str] = []
    for raw in text.splitlines():
        line, reason = _line(raw.strip(), options, rare)
        if reason in ("lorem ipsum", "curly bracket"):
            return C4Result("", reason, dropped, 0)
        if reason is None:
            kept.append(line)
        else:
            dropped[reason] += 1
    sentences = sum(map(count_sentences, kept))
    reason = "too few sentences" if sentences < options.min_sentences else None
    return C4Result("\n".join(kept).strip(), reason, dropped, sentences)


@dataclass(frozen=True)
class _Rare:
    """Whether the document has these anywhere, so that its lines need not be searched for them one by one."""

    script: bool
    ipsum: bool
    policy: bool


def _line(line: str, options: C4Options, rare: _Rare) -> tuple[str, str | None]:
    """The line without citations, and why it is dropped; the order of the reasons is that of the published code."""
    words = line.split()
    if len(line) > options.max_word_length and any(len(w) > options.max_word_length for w in words):
        return line, "too long word"
    if "[" in line:
        line = _CITATION.sub("", line)
    if not line.endswith(_ENDS) or line.endswith("..."):
        return line, "no end mark"
    if len(words) < options.min_words:
        return line, "too few words"
    return line, _phrase(line, rare)


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
