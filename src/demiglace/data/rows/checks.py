"""Checks of rows before training: each fault is reported with its file and line."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from demiglace.console import notice, say
from demiglace.data.rows.columns import Columns, find_columns
from demiglace.data.rows.labels import bracketed, label_of
from demiglace.data.rows.schema import LabelSpace, Split
from demiglace.data.rows.table import RowProblem, Table
from demiglace.errors import DataError
from demiglace.tasks.base import Label, RowTask, names_in

_MANY = 0.01  # share of contradictory rows above which a line is a warning
_SHOWN = 5  # rows of each kind that are shown; the others are counted


@dataclass(frozen=True)
class RawRows:
    """Rows as they were read and not yet checked: a text may be missing or not a string; a missing label is None."""

    name: str
    texts: Sequence[Any]
    pairs: Sequence[Any] | None
    labels: Sequence[Label | None]
    lines: Sequence[tuple[str, int]]
    words: Sequence[tuple[str, ...] | None] | None = None  # of each row, if words have labels; None for a faulty row

    def __len__(self) -> int:
        return len(self.texts)

    def keys(self) -> list[tuple[Any, Any]]:
        """Return the key of each row, see `row_keys`."""
        return row_keys(self.texts, self.pairs)

    def take(self, rows: Sequence[int]) -> "RawRows":
        """Return these rows, by number, in this order."""
        pairs = None if self.pairs is None else [self.pairs[i] for i in rows]
        texts, labels = [self.texts[i] for i in rows], [self.labels[i] for i in rows]
        words = None if self.words is None else [self.words[i] for i in rows]
        return RawRows(self.name, texts, pairs, labels, [self.lines[i] for i in rows], words)


Faults = dict[int, RowProblem]
"""Row number -> its first fault."""


def row_keys(texts: Sequence[Any], pairs: Sequence[Any] | None) -> list[tuple[Any, Any]]:
    """Return the key of each row, by which duplicates are found: its texts without surrounding spaces."""
    return list(zip(_stripped(texts), _stripped(pairs or [""] * len(texts)), strict=True))


def columns_of(table: Table, texts: Sequence[str] | None = None, label: str | None = None, **choices: Any) -> Columns:
    """Return the columns that `columns.find_columns` finds in a table; choices: its keyword arguments.

    Raises `DataError` as it does, after the rows that cannot be read: they are often the reason.
    """
    try:
        return find_columns(list(table.columns), table.file, texts, label, filled=table.usual_columns, **choices)
    except DataError as error:
        if not table.problems:
            raise
        count = f"{len(table.problems):,} of {len(table) + len(table.problems):,} rows"
        last = "" if not len(table) else f"\n{error}"
        raise DataError(f"{table.file}: {count} cannot be read:\n{describe(table.problems)}{last}") from error


def raw_rows(name: str, table: Table, columns: Columns, *, by_word: bool = False) -> RawRows:
    """Return the used columns of a table; by_word: whether words have labels.

    Raises `DataError` for a label that is neither a text nor a list of texts.
    """
    texts = [table.columns[column] for column in columns.texts]
    values = [None] * len(table) if columns.label is None else table.columns[columns.label]
    lines = [(table.file, line) for line in table.lines]
    labels = []
    for value, (file, line) in zip(values, lines, strict=True):
        try:
            labels.append(label_of(value))
        except TypeError:
            raise DataError(
                f"{file}:{line}: the label is {_short(value)}; expected a text or number, or a list of them."
            ) from None
    pairs = texts[1] if len(texts) == 2 else None
    if not by_word:
        return RawRows(name, texts[0], pairs, labels, lines)
    if pairs is not None:
        raise DataError(f"{table.file}: words were given in {' and '.join(columns.texts)}; give one column of words.")
    words = [words_of(value) for value in texts[0]]
    joined = [value if own is None else " ".join(own) for value, own in zip(texts[0], words, strict=True)]
    return RawRows(name, joined, None, labels, lines, words)


def words_of(value: Any) -> tuple[str, ...] | None:
    """Return the words of a cell: a list, also one that is written out, or a text divided at spaces; else None."""
    if isinstance(value, str):
        return bracketed(value) or tuple(value.split())
    is_list = isinstance(value, (list, tuple)) and all(isinstance(word, str) and word.strip() for word in value)
    return tuple(value) if is_list else None


def check_texts(rows: RawRows) -> Faults:
    """Return the rows whose text is missing, blank, not a string or not UTF-8."""
    faults: Faults = {}
    for values in (rows.texts, rows.pairs or ()):
        for i, value in enumerate(values):
            fault = _text_fault(value)
            if fault and i not in faults:
                faults[i] = _problem(fault, rows, i, "" if fault == "empty text" else _short(value))
    return faults


def check_labels(rows: RawRows, task: RowTask) -> Faults:
    """Return the rows without a label, or with one that is not UTF-8 or not valid for the kind of problem.

    Raises `DataError` for a list where the kind has one label a row, and the reverse.
    """
    faults: Faults = {}
    for i, label in enumerate(rows.labels):
        if label is None:
            faults[i] = _problem("missing label", rows, i, _short(rows.texts[i]))
        elif isinstance(label, tuple) != task.takes_lists:
            file, line = rows.lines[i]
            shown, expected = _short(_shown(label)), "a list" if task.takes_lists else "one text or number a row"
            raise DataError(f"{file}:{line}: the label is {shown}; for {task.name}, {expected} is expected.")
        elif not all(map(_is_utf8, names_in(label))):
            faults[i] = _problem("bad UTF-8", rows, i, _short(_shown(label)))
        elif rows.words is not None and len(rows.words[i] or label) != len(label):
            counts = f"{len(rows.words[i] or ())} words, {len(label)} tags"
            faults[i] = _problem("not one tag for each word", rows, i, counts)
        elif fault := task.label_fault(label):
            faults[i] = _problem(fault, rows, i, _short(_shown(label)))
    return faults


def check_known(rows: RawRows, names: Iterable[str]) -> Faults:
    """Return the rows with a label that is not one of these names; missing labels are left to `check_labels`."""
    known = {*names}
    unknown = {i: [n for n in names_in(x) if n not in known] for i, x in enumerate(rows.labels) if x is not None}
    return {i: _problem("unknown label", rows, i, ", ".join(map(_short, x))) for i, x in unknown.items() if x}


def check_duplicates(train: RawRows, others: Sequence[RawRows]) -> Faults:
    """Return the training rows whose texts also occur in a validation or test row."""
    seen = {key: line for rows in others for key, line in zip(rows.keys(), rows.lines, strict=True)}
    return {
        i: _problem("duplicate across splits", train, i, "also {}:{}".format(*seen[key]))
        for i, key in enumerate(train.keys())
        if key in seen
    }


def report_contradictions(split: Split, name: str) -> None:
    """Print how many texts of a split occur with several labels; name: of the rows, for the line."""
    keys, first = row_keys(split.texts, split.pairs), dict[tuple[Any, Any], bytes]()
    encoded = [label.tobytes() for label in split.labels]
    several = {key for key, label in zip(keys, encoded, strict=True) if first.setdefault(key, label) != label}
    if several:
        rows = sum(key in several for key in keys)
        notice(
            "contradictions",
            f"{'warning: ' if rows > _MANY * len(split) else ''}{len(several):,} texts of the {name} rows occur with "
            f"several labels ({rows:,} of {len(split):,} rows); no model can be right on all of them.",
            texts=len(several),
            rows=rows,
        )


def report_rows_in_texts(rows: RawRows) -> None:
    """Print how many texts have lines that look like rows: a quote that is left open joins the rows after it."""
    labels = {label for label in rows.labels if isinstance(label, str)}
    found = [i for i, text in enumerate(rows.texts) if isinstance(text, str) and _has_row(text, labels)]
    if found:
        notice(
            "rows in texts",
            f"warning: {len(found):,} texts of the {rows.name} rows have lines that end with a label, as rows do; the "
            'first is at {}:{}. Is a " left open there?'.format(*rows.lines[found[0]]),
            rows=len(found),
        )


def _has_row(text: str, labels: Collection[str]) -> bool:
    """Return whether a line of a text, but for the last one, is a cell and a label, or a label and a cell."""
    for line in text.split("\n")[:-1]:
        for delimiter in ("\t", ","):
            head, found, tail = line.rpartition(delimiter)
            if found and head and tail.strip() in labels:
                return True
            head, found, tail = line.partition(delimiter)
            if found and tail and head.strip() in labels:
                return True
    return False


def classes_without_rows(rows: RawRows, faults: Mapping[int, RowProblem], space: LabelSpace) -> list[RowProblem]:
    """Return the labels all of whose training rows have a fault."""
    faulty = [(name, i) for i, x in enumerate(rows.labels) if i in faults and x for name in names_in(x)]
    lost = {name: i for name, i in reversed(faulty) if name not in space.names}
    return [_problem("class with no training row", rows, i, _short(label)) for label, i in lost.items()]


def raise_or_drop(
    problems: Sequence[RowProblem], on_bad_rows: Literal["error", "drop"], classes: Sequence[RowProblem] = ()
) -> None:
    """Raise `DataError` with the table of faults; with on_bad_rows="drop" print it instead."""
    if not problems:
        return
    count = f"{len(problems):,} {'row' if len(problems) == 1 else 'rows'}"
    table = describe([*problems, *classes])
    if on_bad_rows == "error":
        raise DataError(f"{count} cannot be used:\n{table}\nCorrect them, or leave them out with --on-bad-rows drop.")
    say(f"left out {count}:\n{table}")


def describe(problems: Sequence[RowProblem]) -> str:
    """Return the faults by kind: how many, and the first few with file and line."""
    parts = []
    for kind, count in Counter(p.kind for p in problems).items():
        parts.append(f"  {kind}: {count:,}")
        first = [p for p in problems if p.kind == kind][:_SHOWN]
        parts += [f"    {p.file}:{p.line}  {p.detail}".rstrip() for p in first]
        parts += [f"    … and {count - _SHOWN:,} more"] if count > _SHOWN else []
    return "\n".join(parts)


def _problem(kind: str, rows: RawRows, i: int, detail: str) -> RowProblem:
    return RowProblem(kind, *rows.lines[i], detail)


def _text_fault(value: Any) -> str | None:
    if value is None:
        return "empty text"
    if not isinstance(value, str):
        return "text is no text"
    if not value or value.isspace():
        return "empty text"
    return None if _is_utf8(value) else "bad UTF-8"


def _is_utf8(text: str) -> bool:
    """Return whether a text has no surrogate, which replaces undecodable bytes and broken JSON escapes."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    """Return a value for a message: one line, at most 60 characters, without control characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "…" + shown[-1:]


def _shown(label: Label) -> str | list[str]:
    return list(label) if isinstance(label, tuple) else label


def _stripped(values: Sequence[Any]) -> list[Any]:
    return [v.strip() if isinstance(v, str) else repr(v) for v in values]
