"""The two published rules of paper 1."""

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from demiglace.cleaning.paper import finds_tag, has_tag, line_key, unseen_lines

HTML = st.lists(
    st.sampled_from(
        ["<", ">", "/", "!", "?", "b", "br", " ", "=", "'", '"', "&lt;", "-", "--", "[CDATA[", "é", "1", "\\", "&"]
    ),
    max_size=25,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(HTML | st.text())
@example("a < b and c > d")
@example("<b")
@example("<b>")
@example("</b>")
@example("</ b>")
@example("<!-- <b> -->")
@example("<?xml <b>?>")
@example("<1>")
def test_the_parser_is_skipped_only_where_it_would_find_nothing(line: str) -> None:
    assert has_tag(line) == finds_tag(line)


def test_tags() -> None:
    assert has_tag("see <a href=x>this</a>")
    assert not has_tag("1 < 2 and <3")


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
        (["", "", " "], [True, False, True]),
        (["a b", "ab "], [True, False]),  # joined without a space, as published
    ],
)
def test_lines_whose_key_was_seen_are_dropped(lines: list[str], kept: list[bool]) -> None:
    assert unseen_lines(lines, set()) == kept


def test_keys_are_remembered_between_documents() -> None:
    seen: set = set()
    assert unseen_lines(["menu", "first"], seen) == [True, True]
    assert unseen_lines(["menu", "second"], seen) == [False, True]
