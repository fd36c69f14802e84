"""Finding the text and label columns."""

import pytest

from demiglace.data.rows.columns import Columns, find_columns
from demiglace.errors import DataError


@pytest.mark.parametrize(
    ("available", "texts", "label"),
    [
        (["text", "category"], ("text",), "category"),
        (["id", "Review", "Stars"], ("Review",), "Stars"),
        (["idx", "sentence1", "sentence2", "label"], ("sentence1", "sentence2"), "label"),
        (["premise", "hypothesis", "label"], ("premise", "hypothesis"), "label"),
        (["question1", "question2", "label"], ("question1", "question2"), "label"),
        (["question", "sentence", "label"], ("question", "sentence"), "label"),
        (["utterance", "query", "intent"], ("query",), "intent"),
    ],
)
def test_usual_names(available: list[str], texts: tuple[str, ...], label: str) -> None:
    assert find_columns(available, "f.csv") == Columns(texts, label)


def test_given_names_win() -> None:
    available = ["text", "label", "body", "summary", "kind"]
    assert find_columns(available, "f.csv", ["summary", "body"], "kind") == Columns(("summary", "body"), "kind")


def test_rows_without_labels_need_no_label_column() -> None:
    assert find_columns(["text"], "f.csv", labelled=False) == Columns(("text",), None)


@pytest.mark.parametrize(
    ("available", "texts", "label", "says"),
    [
        (["a", "label"], None, None, "no text column.*--text-columns.*a, label"),
        (["text", "b"], None, None, "no label column.*--label-column.*text, b"),
        (["text", "label"], ["txt"], None, "no column 'txt'.*text, label"),
        (["text", "label"], None, "lbl", "no column 'lbl'.*text, label"),
        (["text", "label"], ["text", "text"], None, "two different columns"),
        (["a", "b", "c", "label"], ["a", "b", "c"], None, "one or two"),
        (["text", "label"], ["label"], "label", "both text and label"),
    ],
)
def test_what_cannot_be_found_lists_the_columns(
    available: list[str], texts: list[str] | None, label: str | None, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        find_columns(available, "f.csv", texts, label)
