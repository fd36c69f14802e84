"""Rules that compare documents: equal keys, boilerplate, near-duplicates, contamination."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.cleaning import storage
from demiglace.cleaning.rules.base import RuleResult
from demiglace.cleaning.rules.decontamination import Decontamination
from demiglace.cleaning.rules.dedup import Boilerplate, CollectionRule, ExactDuplicates, concat_tables, key_table
from demiglace.cleaning.rules.minhash_dedup import NearDuplicates, shingles
from demiglace.cleaning.rules.short_study import HtmlLines, UniqueLines, finds_tag, unseen_lines
from demiglace.cleaning.text_arrays import Texts
from demiglace.data.text.streams import plain_line_ends

LINES = st.lists(
    st.sampled_from(
        [
            "a b c d",
            "a, b c d!",
            "one two three four five",
            "one two three four  five",
            "one two three four five\xa0 ",
            "",
            " ",
            "# ",
            "</b>",
            "<![foo[",
            "x",
            "é ü",
            "1<b>2",
            "#",
        ]
    ),
    max_size=8,
).map("\n".join)


def whole(rule: CollectionRule, texts: list[str], sites: list[str] | None = None) -> RuleResult:
    """The rule on a collection that is one batch."""
    batch = Texts(texts)
    keys = rule.keys(batch, np.arange(len(texts), dtype=np.uint64), sites or ["site"] * len(texts))
    return rule.apply(batch, rule.finalize(rule.reduce(keys)))


@settings(max_examples=200, deadline=None)
@given(st.lists(LINES | st.text(max_size=60), min_size=1, max_size=5))
def test_unique_lines_are_those_of_the_published_key(texts: list[str]) -> None:
    plain = [plain_line_ends(text) for text in texts]
    kept = iter(unseen_lines([line for text in plain for line in text.split("\n")], set()))
    expected = ["\n".join(line for line in text.split("\n") if next(kept)) for text in plain]
    assert list(whole(UniqueLines(), texts).texts) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=4))
def test_lines_with_tags_go(texts: list[str]) -> None:
    result = HtmlLines()(texts)
    expected = ["\n".join(line for line in t.split("\n") if not finds_tag(line)) for t in texts]
    assert list(result.texts) == expected
    assert result.keep.tolist() == [bool(t.strip()) for t in expected]


def test_of_equal_texts_the_first_stays() -> None:
    assert whole(ExactDuplicates(), ["a", "b", "a", "a ", "b"]).keep.tolist() == [True, True, False, True, False]


def test_settling_does_not_depend_on_how_keys_are_cut_up() -> None:
    rule = UniqueLines()
    texts = Texts(["x\ny\nx", "y\nz", "z\nx"])
    keys = rule.keys(texts, np.array([3, 5, 9], np.uint64), [""] * 3)
    at_once = rule.reduce(keys)
    high = keys.key >= np.uint64(2**63)
    apart = concat_tables([rule.reduce(keys[np.flatnonzero(high)]), rule.reduce(keys[np.flatnonzero(~high)])])
    pairs = [set(zip(m.document.tolist(), m.line.tolist(), strict=True)) for m in (at_once, apart)]
    assert pairs[0] == pairs[1] == {(3, 2), (5, 0), (9, 0), (9, 1)}


def test_boilerplate_is_what_many_documents_of_a_site_have() -> None:
    texts = [f"Home | About\nStory number {i}\n  Home | About\nHome" for i in range(4)] + ["Home | About\nelsewhere"]
    result = whole(Boilerplate(min_documents=4), texts, ["one"] * 4 + ["two"])
    assert list(result.texts) == [f"Story number {i}" for i in range(4)] + ["Home | About\nelsewhere"]
    assert len(result.removed) == 12
    assert whole(Boilerplate(min_documents=5), texts, ["one"] * 4 + ["two"]).texts[0] == texts[0]
    assert whole(Boilerplate(min_documents=4), texts, [""] * 5).texts[0] == texts[0], "no site is known"


def test_a_line_twice_in_one_document_is_one_document() -> None:
    texts = ["same\nsame\nsame", "same"]
    assert list(whole(Boilerplate(min_documents=3), texts).texts) == texts


def planted(share: float, pairs: int, words: int, seed: int) -> tuple[list[str], list[float]]:
    """Pairs of random texts, the second one with a share of its words replaced, and their exact similarities."""
    draw = np.random.default_rng(seed)
    texts, similarities = [], []
    for _ in range(pairs):
        one = draw.integers(0, 50_000, words)
        other = np.where(draw.random(words) < share, draw.integers(0, 50_000, words), one)
        pair = [" ".join(f"w{w}" for w in side) for side in (one, other)]
        sets = [{tuple(t.split()[i : i + 5]) for i in range(words - 4)} for t in pair]
        similarities.append(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
        texts += pair
    return texts, similarities


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.3])
def test_near_duplicates_are_found_as_often_as_theory_says(share: float) -> None:
    rule, pairs = NearDuplicates(), 150
    texts, similarities = planted(share, pairs, 120, seed=int(share * 100))
    kept = whole(rule, texts).keep
    assert kept[::2].all(), "no unrelated texts are taken for each other"
    expected = sum(map(rule.probability, similarities))
    deviation = sum(p * (1 - p) for p in map(rule.probability, similarities)) ** 0.5
    assert (~kept[1::2]).sum() == pytest.approx(expected, abs=4 * deviation + 1)


def test_case_and_marks_do_not_make_a_difference() -> None:
    text = "The quick brown fox, it is said, jumps over the lazy dog."
    assert whole(NearDuplicates(), [text, text.upper(), text.replace(",", "")]).keep.tolist() == [True, False, False]


def test_clusters_are_joined_through_their_members() -> None:
    rule = NearDuplicates()
    edges = key_table(np.array([4, 2, 7]), np.array([6, 4, 8]))  # 2 – 4 – 6, 7 – 8
    concluded = rule.finalize(edges)
    assert sorted(zip(concluded.document.tolist(), concluded.key.tolist(), strict=True)) == [(4, 2), (6, 2), (8, 7)]
    assert len(rule.finalize(edges[:0])) == 0


def test_texts_without_words_are_no_duplicates() -> None:
    assert whole(NearDuplicates(), ["", "?", "!", "word", "Word."]).keep.tolist() == [True, True, True, True, False]


def test_shingles_of_short_texts_are_their_words() -> None:
    hashes, first = shingles(Texts(["a b", "a b c d", "", "A, b"]), 3)
    assert np.diff(first).tolist() == [1, 2, 0, 1]
    assert hashes[0] == hashes[3]


def test_documents_that_hold_test_text_are_dropped() -> None:
    test = "one two three four five six"
    rule = Decontamination(("x",), words=5).with_texts([test, "too short"])
    result = rule(["He said: One, two, THREE four five! Then left.", "one two three four 5", "too short", ""])
    assert result.keep.tolist() == [False, True, True, True]
    assert result.measurements[0].values.tolist() == [1, 0, 0, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*(st.integers(0, 3) for _ in range(3))), max_size=12))
def test_marks_are_sorted_by_key_document_and_line(rows: list[tuple[int, int, int]]) -> None:
    given_rows = sorted(rows, key=lambda row: row[1:]) if len(rows) % 2 else rows  # in the order of documents, or not
    found = key_table(*np.array(given_rows, np.int64).reshape(-1, 3).T).sorted_by_key()
    assert list(zip(found.key.tolist(), found.document.tolist(), found.line.tolist(), strict=True)) == sorted(rows)


def test_parts_are_read_as_written_but_for_half_characters(tmp_path: Path) -> None:
    file, numbers = tmp_path / "part.parquet", np.array([3, 5, 2**40], np.uint64)
    storage.write_part(file, storage.Part(["half \ud800", "é\n", ""], numbers, ["a", "", "a"], np.array([2, 1, 0])))
    part = storage.read_part(file)
    assert (part.texts, part.sites) == (["half ?", "é\n", ""], ["a", "", "a"])
    assert (part.documents.tolist(), part.words.tolist()) == (numbers.tolist(), [2, 1, 0])
    assert storage.read_texts(file, {5, 2**40, 7}) == {5: "é\n", 2**40: ""}
    assert storage.read_texts(file, {7}) == {}
