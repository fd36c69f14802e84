"""The two rules of Li et al. 2021, against the published program."""

import hashlib
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from demiglace.cleaning.rules.short_study import finds_tag, has_tag, line_key, unseen_lines
from paper_program import kept, rejects

PIECES = ["<", ">", "/", "!", "?", "b", "br", " ", "=", "'", '"', "&lt;", "-", "--", "é", "1", "\\", "&", "\t", "\xa0"]
PIECES += ["<b", "</b", "<!--", "-->", "--!>", "<![", "]", "]]>", "&#", "&#39;", "&a", ";", "<3", "<A HREF=", "<br/>"]
PIECES += ["<![CDATA[", "<![foo[", "<![if ", "<![endif]", "<!DOCTYPE", "<?xml", "?>", "<script>", "</script>", "</>"]
HTML = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)

LINES = {
    "plain text": False,
    "a < b and c > d": False,
    "1 < 2 and <3": False,
    "&lt;b&gt; &amp; &#39;": False,
    "see <a href=x>this</a>": True,
    "<B CLASS='x'>": True,
    "<i><b>nested</b></i>": True,
    "<br/>": True,
    "<x y": False,  # no end
    "<a href='x>": False,
    "</b>": False,  # an end tag makes no tag
    "the end.</p></div>": False,
    "</ b>": False,
    "</b> <b>": True,
    "<!-- <b> -->": False,
    "<!-- --> <b>": True,
    "<!DOCTYPE html>": False,
    "<?xml <b>?>": False,
    "<?xml version='1.0'?> <b>": True,
    "<![CDATA[x]]>": False,
    "<1>": False,
    "&#z <b> ;": True,
}


@pytest.mark.parametrize("line", LINES)
def test_a_tag_is_what_beautiful_soup_finds(line: str) -> None:
    assert has_tag(line) == LINES[line] == rejects(line)


@settings(max_examples=300, deadline=None)
@given(HTML | st.text())
@example("<![foo[")
@example("<![foo[ <b>")
@example("text <![ more")
@example("<![")
@example("<![ ")
@example("<![if gte]> <b>")
@example("<b<=<a b='&#&'-=='<b>b?>-'")
@example("<a x='&#" + "9" * 5000 + ";'>")
def test_lines_are_rejected_as_by_beautiful_soup(line: str) -> None:
    assert has_tag(line) == finds_tag(line) == rejects(line)


@pytest.mark.parametrize("unterminated", ["<a ", "</", "<!-- ", "<?"])
def test_unterminated_tags_in_lines_of_usual_length_are_no_tags(unterminated: str) -> None:
    assert not finds_tag("1 > 0 " + unterminated * 100)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("<a " * 1_000_000, False),
        ("1 > 0 " + "</" * 1_000_000, False),
        ("1 > 0 " + "<a " * 100_000, True),  # too much to read again
        ("<a b='>' " * 5_000 + 'c=">', True),
    ],
)
def test_long_lines_of_unterminated_tags_take_bounded_time(line: str, found: bool) -> None:
    assert has_tag(line) == found


@settings(max_examples=200, deadline=None)
@given(
    st.lists(HTML | st.sampled_from(["a b", "a, b ", "a b\xa0", "a  b", "", " ", "!", "! "]) | st.text(), max_size=12)
)
def test_lines_are_kept_as_by_the_published_program(lines: list[str]) -> None:
    fresh = unseen_lines(lines, set())
    assert [new and not has_tag(line) for line, new in zip(lines, fresh, strict=True)] == kept(lines)


@pytest.mark.parametrize(("name", "field"), [("noisy_web_html", "html"), ("docs_raw", "text")])
def test_real_lines_are_kept_as_by_the_published_program(name: str, field: str, data_dir: Path) -> None:
    with (data_dir / name / "train.jsonl.zst").open("rb") as packed:
        documents = zstandard.ZstdDecompressor().stream_reader(packed).read().splitlines()
    lines = [line for row in documents[::40] for line in json.loads(row)[field].split("\n")][:6000]
    fresh = unseen_lines(lines, set())
    expected = kept(lines)
    assert [new and not has_tag(line) for line, new in zip(lines, fresh, strict=True)] == expected
    assert 0 < sum(expected) < len(lines)


def test_the_key_is_the_published_one() -> None:
    line = "The quick, brown fox jumps over the lazy dog!"
    expected = hashlib.md5(b"Thequickbrownfoxoverthelazydog").digest()
    assert line_key(line) == (len(line) - 2, expected)


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["one two", "one two", "one, two"], [True, False, False]),  # marks do not count
        (["a b c d X e f g h", "a b c d Y e f g h"], [True, False]),  # the middle does not either
        (["a b c d X e f g h", "a b c d YY e f g h"], [True, True]),  # but for its length
        (["", "", " "], [True, False, False]),
        (["a b", "a b \t\xa0", "a b !", "a b ! "], [True, False, True, False]),  # right-stripped, then without marks
        (["a bc", "ab c"], [True, False]),  # joined without a space, as published
    ],
)
def test_lines_whose_key_was_seen_are_dropped(lines: list[str], kept: list[bool]) -> None:
    assert unseen_lines(lines, set()) == kept


def test_keys_are_remembered_between_documents() -> None:
    seen: set = set()
    assert unseen_lines(["menu", "first"], seen) == [True, True]
    assert unseen_lines(["menu", "second"], seen) == [False, True]
