"""The rows of named tasks, unchanged, so that results compare with published ones."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from demiglace.config.data import DataLocation
from demiglace.data.rows.checks import words_of
from demiglace.data.rows.columns import find_columns
from demiglace.data.rows.labels import label_of, label_space
from demiglace.data.rows.named_task_table import TASKS, NamedTask
from demiglace.data.rows.sampling import select_rows
from demiglace.data.rows.schema import LabelSpace, Split
from demiglace.data.rows.sources import read_task
from demiglace.data.rows.table import Table
from demiglace.errors import DataError
from demiglace.labels import fold_spelling
from demiglace.tasks.base import Label, RowTask, names_in

_UNLABELLED_IDS = ("-1", "-1.0")  # the hub's label of a row whose label is not public


def official_splits(
    name: str, names: Sequence[str], location: DataLocation, *, for_source: bool = False
) -> tuple[LabelSpace, dict[str, Split], Counter[str]]:
    """Return a task's label space, these splits, and the number of rows left out by reason.

    A split whose labels are not public is left out. for_source: the set measures a model of its source task, so rows
    that such a model was trained on are left out too.
    """
    task = TASKS[name]
    tables = {split: read_task(name, task, split, location) for split in names}
    labels = {split: _labels_of(table, task.kind) for split, table in tables.items()}
    space = _space(task, labels)
    splits, drops = {}, Counter[str]()
    for split, table in tables.items():
        made = _split(split, table, _encode(name, labels[split], space, table), task)
        missing = ~space.task.is_labelled(made.labels)
        known = task.leave_out if for_source else None
        seen = _parse_bool_column(table, known) if known else np.zeros(len(made), dtype=bool)
        if missing.all():
            continue
        drops.update({"no public label": int(missing.sum()), f"{known}": int((seen & ~missing).sum())})
        splits[split] = select_rows(made, np.flatnonzero(~(missing | seen))) if (missing | seen).any() else made
    return space, splits, +drops


def _parse_bool_column(table: Table, column: str) -> np.ndarray:
    """Return a boolean column. Raises `DataError` if the table lacks it or it holds anything but true and false."""
    words = [str(value).lower() for value in table.columns.get(column, ())]
    if not words or not {*words} <= {"true", "false"}:
        raise DataError(
            f"{table.file} needs a column {column!r} of true and false: the rows where it is true are left out."
        )
    return np.array([word == "true" for word in words])


def _labels_of(table: Table, kind: RowTask) -> list[Label | None]:
    usual, words = kind.label_columns, kind.text_columns
    column = find_columns(list(table.columns), table.file, usual_labels=usual, usual_texts=words).label
    assert column is not None
    return [label_of(value) for value in table.columns[column]]


def _space(task: NamedTask, labels: Mapping[str, Sequence[Label | None]]) -> LabelSpace:
    if task.labels:
        return LabelSpace(task.kind, task.labels)
    return label_space({text for column in labels.values() for text in column if text}, task.kind)


def _split(name: str, table: Table, labels: np.ndarray, task: NamedTask) -> Split:
    available = list(table.columns)
    given = task.text_columns if set(task.text_columns) <= set(available) else None
    if task.kind.unit == "word":
        words = [words_of(value) or () for value in table.columns[task.text_columns[0]]]
        joined = [" ".join(row) for row in words]
        return Split(name, joined, None, labels, [(table.file, line) for line in table.lines], words=words)
    columns = find_columns(available, table.file, given)
    texts = [["" if v is None else str(v) for v in table.columns[column]] for column in columns.texts]
    if len(texts) != len(task.text_columns):
        raise DataError(f"{table.file} has {len(texts)} text column(s), the task has {len(task.text_columns)}.")
    pairs = texts[1] if len(texts) == 2 else None
    groups = [str(g) for g in table.columns[task.groups]] if task.groups in available else None
    return Split(name, texts[0], pairs, labels, [(table.file, line) for line in table.lines], groups)


def _encode(name: str, labels: Sequence[Label | None], space: LabelSpace, table: Table) -> np.ndarray:
    """Return labels as the kind encodes them; names match in any spelling, and ids are accepted as names.

    Raises `DataError` for a text that is no label of the task.
    """
    names: dict[str, str | None] = {}  # the text in the file -> the label, None where it is not public
    by_spelling = {str(i): n for i, n in enumerate(space.names)} | {fold_spelling(n): n for n in space.names}
    for text in {text for label in labels if label is not None for text in names_in(label)}:
        if text in _UNLABELLED_IDS:
            names[text] = None
        elif space.names and (label := by_spelling.get(fold_spelling(text))) is not None:
            names[text] = label
        elif not space.names and space.task.label_fault(text) is None:
            names[text] = text
        else:
            known = ", ".join(space.names) or space.task.labels_in_words
            raise DataError(f"{table.file}: {text!r} is no label of {name}; its labels: {known}.")
    return space.task.encode([None if label is None else _named(label, names) for label in labels], space.names)


def _named(label: Label, names: Mapping[str, str | None]) -> Label | None:
    if isinstance(label, tuple):
        return tuple(name for text in label if (name := names[text]) is not None)
    return names[label]
