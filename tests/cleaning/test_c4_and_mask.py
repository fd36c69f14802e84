"""C4's rules line by line, and masking."""

import pytest

from demiglace.cleaning.c4 import C4Options, apply, count_sentences
from demiglace.cleaning.mask import mask


def test_a_good_page_stays_without_spaces_at_the_ends_of_lines() -> None:
    lines = ["This is a line.", "Is it one too?", 'He said "yes indeed."', "And here are two. Or are they?"]
    result = apply("\n".join(f"  {line} " for line in lines))
    assert (result.text, result.reason, result.sentences, result.lines) == ("\n".join(lines), None, 5, {})


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
    result = apply(f"{page}\n{line}")
    assert (result.text, result.reason, result.lines) == (page, None, {reason: 1})


@pytest.mark.parametrize(
    ("line", "reason"), [("Here comes lorem ipsum again.", "lorem ipsum"), ("if (a) { b; } is code.", "curly bracket")]
)
def test_pages_are_dropped_for_a_line(line: str, reason: str) -> None:
    assert apply("One more good line.\n" * 6 + line).reason == reason


def test_a_bracket_in_a_dropped_line_does_not_matter() -> None:
    assert apply("One more good line.\n" * 6 + "if (a) { b; }").reason is None


def test_citations_go_and_sentences_are_counted() -> None:
    result = apply("It was so.[12] Then it was not.[citation needed]\nThree more words.", C4Options(min_sentences=3))
    assert result.text == "It was so. Then it was not.\nThree more words."
    assert result.reason is None
    assert apply("It was so. Then it was not.").reason == "too few sentences"


@pytest.mark.parametrize(
    ("line", "count"), [("", 0), ("One. Two! Three?", 3), ("3.5 is one", 1), ('He said "no." Then', 2), ("Wait...", 1)]
)
def test_sentences(line: str, count: int) -> None:
    assert count_sentences(line) == count


def test_addresses_are_masked() -> None:
    text, emails, addresses = mask("Write to a.b+c@mail.example.co.uk or ask 8.8.8.8, not 192.168.0.1 or 999.1.1.1.")
    assert text == "Write to email@example.com or ask 22.214.171.124, not 192.168.0.1 or 999.1.1.1."
    assert (emails, addresses) == (1, 1)


def test_what_is_no_address_stays() -> None:
    text = "a @ b, @name, v1.2.3, 1.2.3"
    assert mask(text) == (text, 0, 0)
