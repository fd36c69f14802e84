"""The columns of a file that hold the texts and the label: given by the user, or found by their usual names."""

from collections.abc import Sequence
from dataclasses import dataclass

from demiglace.errors import DataError
from demiglace.tasks.label_kinds import LABEL_COLUMNS

PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("query", "passage"),
    ("query", "document"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
TEXT_NAMES = (
    *("text", "sentence", "review", "content", "query", "utterance", "question", "document", "comment", "message"),
    *("tweet", "body", "sentence1", "premise"),
)


class MissingLabelColumnError(DataError):
    """No column of a file has a usual name of labels, and none was named."""


@dataclass(frozen=True)
class Columns:
    """Names of the one or two text columns, and of the label column (None for rows without labels)."""

    texts: tuple[str, ...]
    label: str | None


def find_columns(
    available: Sequence[str],
    file: str,
    texts: Sequence[str] | None = None,
    label: str | None = None,
    *,
    labelled: bool = True,
    usual_labels: Sequence[str] = LABEL_COLUMNS,
    usual_texts: Sequence[str] = (),
    filled: Sequence[str] | None = None,
) -> Columns:
    """Return the text and label columns of `file`, which has the columns `available`.

    texts, label: the user's choice, or None to look for usual names; labelled: whether a label column is needed;
    usual_labels, usual_texts: names to look for, those of the kind of problem; filled: the columns to look among, None
    for all. Raises `DataError` with the list of columns if a given one is missing or none has a usual name.
    """
    filled = available if filled is None else filled
    found_label = _find_label(filled if label is None else available, file, label, usual_labels) if labelled else None
    others = [name for name in filled if name != found_label]
    if texts is None and (word := first_of(usual_texts, others)) is not None:
        texts = (word,)
    found_texts = _find_texts(others, available, file, texts)
    if found_label in found_texts:
        raise DataError(f"{file}: the column {found_label!r} cannot be both text and label.")
    return Columns(found_texts, found_label)


def _find_label(available: Sequence[str], file: str, given: str | None, usual: Sequence[str]) -> str:
    if given is not None:
        return _present(given, available, file, "--label-column")
    found = first_of(usual, available)
    if found is None:
        raise MissingLabelColumnError(_missing("label", "--label-column", available, file))
    return found


def _find_texts(
    others: Sequence[str], available: Sequence[str], file: str, given: Sequence[str] | None
) -> tuple[str, ...]:
    if given is not None:
        if len(given) not in (1, 2) or len(set(given)) != len(given):
            raise DataError(f"--text-columns was given {', '.join(given)}; one or two different columns are expected.")
        return tuple(_present(name, available, file, "--text-columns") for name in given)
    for pair in PAIR_NAMES:
        first, second = (first_of((name,), others) for name in pair)
        if first and second:
            return first, second
    single = first_of(TEXT_NAMES, others)
    if single is None:
        raise DataError(_missing("text", "--text-columns", available, file))
    return (single,)


def first_of(names: Sequence[str], available: Sequence[str]) -> str | None:
    """Return the first of the names that is available, without regard to case; None if none is."""
    by_lower = {column.lower(): column for column in reversed(available)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _present(name: str, available: Sequence[str], file: str, flag: str) -> str:
    if name not in available:
        raise DataError(f"{file} has no column {name!r} ({flag}); its columns: {', '.join(available)}.")
    return name


def _missing(what: str, flag: str, available: Sequence[str], file: str) -> str:
    return f"{file} has no {what} column with a usual name; name it with {flag}. Its columns: {', '.join(available)}."
