"""The two published rules of paper 1."""

import hashlib
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from demiglace.cleaning.paper import finds_tag, has_tag, line_key, unseen_lines

PIECES = ["<", ">", "/", "!", "?", "b", "br", " ", "=", "'", '"', "&lt;", "-", "--", "[CDATA[", "é", "1", "\\", "&"]
PIECES += ["<b", "</b", "<!--", "-->", "<![", "]", "&#", "&a", ";"]
HTML = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


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


class Parser(HTMLParser):
    """Which tags Python's parser finds, before what it refuses."""

    def __init__(self, line: str):
        super().__init__(convert_charrefs=False)
        self.tags: list[str] = []
        try:
            self.feed(line)
            self.close()
        except AssertionError:
            pass

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(tag)


@settings(max_examples=500, deadline=None)
@given(HTML | st.text())
@example("&#z <b> ;")
@example("<b<=<a b='&#&'-=='<b>b?>-'")
@example("<![foo[ <b>")
@example("<b><![foo[")
def test_what_the_parser_is_not_shown_makes_no_difference(line: str) -> None:
    assert finds_tag(line) == bool(Parser(line).tags)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("<a " * 1_000_000, False),
        ("1 > 0 " + "</" * 1_000_000, False),
        ("<a b='>' " * 20_000 + 'c=">', True),  # nothing that ends, and more than anyone would write
    ],
)
def test_long_lines_of_unended_tags_take_no_minutes(line: str, found: bool) -> None:
    assert has_tag(line) == found


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
