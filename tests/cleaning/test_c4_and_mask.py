"""C4's rules line by line, and masking."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from demiglace.cleaning.rules.c4 import C4, count_sentences
from demiglace.cleaning.rules.pii import Mask, mask


def test_a_good_page_stays_without_spaces_at_the_ends_of_lines() -> None:
    lines = ["This is a line.", "Is it one too?", 'He said "yes indeed."', "And here are two. Or are they?"]
    page = C4().clean_text("\n".join(f"  {line} " for line in lines))
    assert (page.text, page.removed, page.forbidden, page.sentences) == ("\n".join(lines), [], False, 5)
    assert C4()(["\n".join(lines)]).keep.tolist() == [True]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Home | About | Contact", "no end mark"),
        ("And so on and on...", "no end mark"),
        ("Not enough.", "too few words"),
        ("Please turn on JavaScript to go on.", "javascript"),
        ("We made use of cookies here.", "policy"),
        (f"A {'x' * 1001} word is here.", "too long word"),
    ],
)
def test_lines_are_dropped_for_a_reason(line: str, reason: str) -> None:
    page = "\n".join(["One more good line."] * 6)
    result = C4()(["", f"{page}\n{line}"])
    assert (result.texts[1], result.keep.tolist()) == (page, [False, True])
    gone = result.removed
    assert (gone.text.tolist(), gone.line.tolist(), [*gone.reason], [*gone.content]) == ([1], [6], [reason], [line])


@pytest.mark.parametrize("line", ["Here comes lorem ipsum again.", "if (a) { b; } is code."])
def test_pages_are_dropped_for_a_line(line: str) -> None:
    result = C4()(["One more good line.\n" * 6 + line, "One more good line.\n" * 6])
    assert result.keep.tolist() == [False, True]
    assert result.measurements[0].values.tolist() == [1, 0]


def test_a_bracket_in_a_dropped_line_does_not_matter() -> None:
    assert not C4().clean_text("One more good line.\n" * 6 + "if (a) { b; }").forbidden


def test_citations_go_and_sentences_are_counted() -> None:
    text = "It was so.[12] Then it was not.[citation needed]\nThree more words."
    page = C4().clean_text(text)
    assert (page.text, page.sentences) == ("It was so. Then it was not.\nThree more words.", 3)
    assert C4(min_sentences=3)([text]).keep.tolist() == [True]
    assert C4(min_sentences=4)([text]).keep.tolist() == [False]
    assert C4(min_sentences=4)([text]).measurements[1].violated_bound(0) == 4


@pytest.mark.parametrize(
    ("line", "count"), [("", 0), ("One. Two! Three?", 3), ("3.5 is one", 1), ('He said "no." Then', 2), ("Wait...", 1)]
)
def test_sentences(line: str, count: int) -> None:
    assert count_sentences(line) == count


def test_a_long_line_of_dots_takes_no_minutes() -> None:
    assert count_sentences("." * 1_000_000 + "x") == 1


def test_addresses_are_masked() -> None:
    text, emails, addresses = mask("Write to a.b+c@mail.example.co.uk or ask 8.8.8.8, not 192.168.0.1 or 999.1.1.1.")
    assert text == "Write to email@example.com or ask 22.214.171.124, not 192.168.0.1 or 999.1.1.1."
    assert (emails, addresses) == (1, 1)


def test_what_is_no_address_stays() -> None:
    text = "a @ b, @name, v1.2.3, 1.2.3"
    assert mask(text) == (text, 0, 0)


def test_masking_says_which_texts_it_changed() -> None:
    texts = ["Nothing here.", "a@b.org"]
    result = Mask(email="<mail>")(texts)
    assert result.texts[0] is texts[0]
    assert result.texts[1] == "<mail>"
    assert result.keep.all()
    assert result.measurements[0].values.tolist() == [0, 1]


LOCAL, LABEL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+", r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
EMAIL = re.compile(rf"\b{LOCAL}(?:\.{LOCAL})*@(?:{LABEL}\.)+{LABEL}")


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b1", "@", ".", "-", "_", "/", "é", " ", "\n", "a@b.c"]), max_size=20).map("".join)
)
@example("..a@b.c")
@example("é-a@b.c-@d.e")
@example("a@b@c.d@e.f")
def test_addresses_are_those_of_one_expression(text: str) -> None:
    masked, count, _ = mask(text, email="*")
    assert (masked, count) == EMAIL.subn("*", text)


@pytest.mark.parametrize(
    "text", ["ab-/" * 500_000 + "@", "a.." * 500_000 + "@b", "a@" * 500_000, "a@" + "b-" * 500_000]
)
def test_a_long_line_without_an_address_takes_no_minutes(text: str) -> None:
    assert mask(text) == (text, 0, 0)
