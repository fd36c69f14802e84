"""The rows of named tasks: taken as they are, odd ones included, so that results compare with published ones."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from demiglace.config.data import DataLocation
from demiglace.data.rows.columns import find_columns
from demiglace.data.rows.labels import label_space, label_text, number
from demiglace.data.rows.readers import Table
from demiglace.data.rows.sampling import select_rows
from demiglace.data.rows.schema import UNLABELLED, LabelSpace, Split
from demiglace.data.rows.sources import read_task
from demiglace.data.rows.tasks import TASKS, Task
from demiglace.errors import DataError
from demiglace.labels import fold_spelling

_UNLABELLED_IDS = ("-1", "-1.0")  # the hub's label of a row whose label is not public


def official_splits(
    name: str, names: Sequence[str], location: DataLocation, *, for_source: bool = False
) -> tuple[LabelSpace, dict[str, Split], Counter[str]]:
    """These splits of a task, its label space, and why rows were left out.

    A split whose labels are hidden is left out whole. With `for_source` the set measures a model of its source task:
    rows that such a model was trained on go too.
    """
    task = TASKS[name]
    tables = {split: read_task(name, task, split, location) for split in names}
    labels = {split: _labels_of(table) for split, table in tables.items()}
    space = _space(task, labels)
    splits, drops = {}, Counter[str]()
    for split, table in tables.items():
        made = _split(split, table, _encode(name, labels[split], space, table), task)
        missing = np.isnan(made.labels) if space.problem == "regression" else made.labels < 0
        known = task.leave_out if for_source else None
        seen = _parse_bool_column(table, known) if known else np.zeros(len(made), dtype=bool)
        if missing.all():
            continue
        drops.update({"no public label": int(missing.sum()), f"{known}": int((seen & ~missing).sum())})
        splits[split] = select_rows(made, np.flatnonzero(~(missing | seen))) if (missing | seen).any() else made
    return space, splits, +drops


def _parse_bool_column(table: Table, column: str) -> np.ndarray:
    """A true-or-false column. Raises `DataError` where the table has none of that name, or it holds anything else."""
    words = [str(value).lower() for value in table.columns.get(column, ())]
    if not words or not {*words} <= {"true", "false"}:
        raise DataError(
            f"{table.file} needs a column {column!r} of true and false: the rows where it is true are left out."
        )
    return np.array([word == "true" for word in words])


def _labels_of(table: Table) -> list[str | None]:
    column = find_columns(list(table.columns), table.file).label
    assert column is not None
    return [label_text(value) for value in table.columns[column]]


def _space(task: Task, labels: Mapping[str, Sequence[str | None]]) -> LabelSpace:
    if task.problem == "regression":
        return LabelSpace("regression")
    if task.labels:
        return LabelSpace("classification", task.labels)
    return label_space({text for column in labels.values() for text in column if text}, task.problem)


def _split(name: str, table: Table, labels: np.ndarray, task: Task) -> Split:
    available = list(table.columns)
    given = task.text_columns if set(task.text_columns) <= set(available) else None
    columns = find_columns(available, table.file, given)
    texts = [["" if v is None else str(v) for v in table.columns[column]] for column in columns.texts]
    if len(texts) != len(task.text_columns):
        raise DataError(f"{table.file} has {len(texts)} text column(s), the task has {len(task.text_columns)}.")
    pairs = texts[1] if len(texts) == 2 else None
    groups = [str(g) for g in table.columns[task.groups]] if task.groups in available else None
    return Split(name, texts[0], pairs, labels, [(table.file, line) for line in table.lines], groups)


def _encode(name: str, labels: Sequence[str | None], space: LabelSpace, table: Table) -> np.ndarray:
    """Ids or numbers, with `UNLABELLED` or NaN for hidden ones. Raises `DataError` for what is no label of the task."""
    if space.problem == "regression":
        values: dict[str, float] = {x: n for x in {*labels} if x and (n := number(x)) is not None}
    else:
        by_name = {str(i): i for i in range(space.size)} | {fold_spelling(n): i for i, n in enumerate(space.names)}
        values = {x: by_name[key] for x in {*labels} if x and (key := fold_spelling(x)) in by_name}
    hidden = np.nan if space.problem == "regression" else UNLABELLED
    values |= {x: hidden for x in {*labels} if x in _UNLABELLED_IDS}
    wrong = [x for x in {*labels} if x is not None and x not in values]
    if wrong:
        known = ", ".join(space.names) or "numbers"
        raise DataError(f"{table.file}: {wrong[0]!r} is no label of {name}; its labels: {known}.")
    dtype = np.float32 if space.problem == "regression" else np.int64
    return np.array([hidden if x is None else values[x] for x in labels], dtype=dtype)
