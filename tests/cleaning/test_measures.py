"""Measurements of batches of texts, against plain implementations for one text at a time."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.cleaning.registry import RULES
from demiglace.cleaning.rules import fineweb_quality, gopher_quality, gopher_repetition
from demiglace.cleaning.rules.base import Rule
from demiglace.cleaning.text_arrays import PUNCTUATION, TERMINAL, Texts, _char_flags
from demiglace.data.text.streams import plain_line_ends

WORD = re.compile(r"\w+|[^\w\s]")
# few different words and marks, so that lines and runs of words do repeat
PIECES = st.sampled_from(
    ["the ", "and ", "cat", " ", "\n", "\n\n", "- ", "• ", "...", "…", "#", "42 ", "é", ". ", "\r\n", "日本", "_"]
)
TEXTS = st.lists(st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=40), min_size=1, max_size=6)


def split(text: str) -> list[str]:
    return WORD.findall(text)


def spoken(text: str) -> list[str]:
    return [w for w in split(text) if any(not _char_flags()[ord(c)] & PUNCTUATION for c in w)]


def over(part: float, whole: float, empty: float = 0.0) -> float:
    return part / whole if whole else empty


def duplicates(pieces: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    count = characters = 0
    for piece in pieces:
        if piece in seen:
            count, characters = count + 1, characters + len(piece)
        seen.add(piece)
    return count, characters


def top(text: str, n: int) -> float:
    words = split(text)
    runs = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    if not runs:
        return 0.0
    run, count = runs.most_common(1)[0]  # the first of those that are as frequent
    return len(" ".join(run)) * count / len(text)


def repeated(text: str, n: int) -> float:
    words, seen, characters, i = split(text), set(), 0, 0
    while i + n <= len(words):
        run = tuple(words[i : i + n])
        characters += len("".join(run)) if run in seen else 0
        i += n if run in seen else 1
        seen.add(run)
    return over(characters, len(text))


def rows(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


REFERENCES = {
    fineweb_quality.punctuated_lines: lambda t: over(
        sum(_char_flags()[ord(x[-1])] & TERMINAL > 0 for x in rows(t)), len(rows(t))
    ),
    fineweb_quality.short_lines: lambda t: over(sum(len(x) <= 30 for x in rows(t)), len(rows(t)), np.inf),
    fineweb_quality.duplicate_characters: lambda t: over(duplicates(rows(t))[1], len(t.replace("\n", "")), np.inf),
    fineweb_quality.newlines_per_word: lambda t: over(t.count("\n"), len(split(t)), np.inf),
    gopher_quality.words: lambda t: len(spoken(t)),
    gopher_quality.mean_word_length: lambda t: over(sum(map(len, spoken(t))), len(spoken(t))),
    gopher_quality.hashes_per_word: lambda t: over(t.count("#"), len(split(t)), np.inf),
    gopher_quality.ellipses_per_word: lambda t: over(t.count("...") + t.count("…"), len(split(t)), np.inf),
    gopher_quality.bullet_lines: lambda t: np.mean([x.strip().startswith(("•", "-")) for x in t.split("\n")]),
    gopher_quality.ellipsis_lines: lambda t: np.mean([x.strip().endswith(("...", "…")) for x in t.split("\n")]),
    gopher_quality.alphabetic_words: lambda t: over(sum(any(map(str.isalpha, w)) for w in split(t)), len(split(t))),
    gopher_quality.stop_words: lambda t: len(set(split(t)) & set(gopher_quality.STOP_WORDS)),
    gopher_repetition.duplicate_lines: lambda t: over(duplicates(p := re.split(r"\n+", t))[0], len(p)),
    gopher_repetition.duplicate_line_characters: lambda t: over(duplicates(re.split(r"\n+", t))[1], len(t)),
    gopher_repetition.duplicate_paragraphs: lambda t: over(duplicates(p := re.split(r"\n{2,}", t.strip()))[0], len(p)),
    gopher_repetition.duplicate_paragraph_characters: lambda t: over(
        duplicates(re.split(r"\n{2,}", t.strip()))[1], len(t)
    ),
}


@pytest.mark.parametrize("measure", REFERENCES, ids=lambda m: m.__name__)
@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_measures_equal_their_definitions(measure, texts: list[str]) -> None:
    plain = [plain_line_ends(t) for t in texts]
    assert measure(Texts(texts)) == pytest.approx([REFERENCES[measure](t) for t in plain])


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(1, 6))
def test_repeated_runs_of_words(texts: list[str], n: int) -> None:
    plain = [plain_line_ends(t) for t in texts]
    assert gopher_repetition.top_ngram(Texts(texts), n) == pytest.approx([top(t, n) for t in plain])
    assert gopher_repetition.duplicate_ngrams(Texts(texts), n) == pytest.approx([repeated(t, n) for t in plain])


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_cheap_bound_never_changes_a_decision(texts: list[str], n: int, least: float) -> None:
    exact = gopher_repetition.duplicate_ngrams(Texts(texts), n)
    quick = gopher_repetition.duplicate_ngrams(Texts(texts), n, least)
    assert ((quick > least) == (exact > least)).all()
    assert (quick >= exact - 1e-12).all()


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_words_and_lines(texts: list[str]) -> None:
    batch = Texts(texts)
    for spans, pieces in ((batch.words, split), (batch.lines, lambda t: t.split("\n"))):
        for i, text in enumerate(map(plain_line_ends, texts)):
            places = slice(spans.first[i], spans.first[i + 1])
            found = zip(spans.start[places] - batch.first[i], spans.end[places] - batch.first[i], strict=True)
            assert [text[a:b] for a, b in found] == pieces(text)


def test_equal_words_have_equal_hashes_wherever_they_stand() -> None:
    batch = Texts(["one two one", "", "two one"])
    one, two, again, *other = batch.word_hashes.tolist()
    assert one == again == other[1]
    assert two == other[0] != one


def test_a_batch_of_nothing() -> None:
    assert gopher_quality.words(Texts([])).tolist() == []
    assert gopher_repetition.top_ngram(Texts(["", ""]), 2).tolist() == [0, 0]


@pytest.mark.parametrize("name", [n for n, rule in RULES.items() if issubclass(rule, Rule)])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=60).map("".join), min_size=1, max_size=4))
def test_every_rule_decides_alike_for_both_line_ends(name: str, texts: list[str]) -> None:
    unix = [t.replace("\r\n", "\n") for t in texts]
    rule = RULES[name]()
    for ending in ("\r\n", "\r"):
        other, plain = (rule.apply(Texts(t)) for t in ([u.replace("\n", ending) for u in unix], unix))
        assert list(other.texts) == list(plain.texts)
        assert other.keep.tolist() == plain.keep.tolist()
        assert list(other.removed.reason) == list(plain.removed.reason)
