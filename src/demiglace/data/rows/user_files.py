"""Read and check the labelled rows of a user's files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from demiglace.config.data import DataConfig
from demiglace.console import say
from demiglace.data.rows.checks import (
    Faults,
    RawRows,
    check_duplicates,
    check_known,
    check_labels,
    check_texts,
    classes_without_rows,
    columns_of,
    describe,
    raise_or_drop,
    raw_rows,
    report_rows_in_texts,
)
from demiglace.data.rows.columns import Columns
from demiglace.data.rows.hub import is_hub, origin_of
from demiglace.data.rows.label_columns import label_columns, with_lists
from demiglace.data.rows.labels import encode, infer_task, label_space, plain_labels, split_labels
from demiglace.data.rows.schema import Dataset, LabelSpace, Split
from demiglace.data.rows.sources import read_source, read_training_rows, sources_of
from demiglace.data.rows.table import RowProblem, Table
from demiglace.errors import DataError
from demiglace.tasks.base import Label, RowTask
from demiglace.tasks.registry import recognized_task, row_task


def read_files(config: DataConfig) -> Dataset:
    """Read and check the files that `--data`, --validation and --test name; nothing is split off or sampled."""
    sources = sources_of(config)
    tables = {n: read_training_rows(s, config) if n == "train" else read_source(s) for n, s in sources.items()}
    kind = recognized_task(tables["train"].columns) if config.problem == "auto" else row_task(config.problem)
    sets, label = kind.label_columns if kind is not None and kind.has_label_sets else None, config.label_column
    if names := label_columns(tables["train"], config.text_columns, label, sets):
        label, tables = ",".join(names), {name: with_lists(table, names) for name, table in tables.items()}
    train = tables["train"]
    columns = columns_of(train, config.text_columns, label, **usual_columns(kind))
    tables = {name: table for name, table in tables.items() if name == "train" or _has_labels(table, columns)}
    for table in tables.values():
        columns_of(table, columns.texts, columns.label)
    say(f"{train.file}: text in {' and '.join(columns.texts)}, label in {columns.label}.")
    by_word = kind is not None and kind.unit == "word"
    raws = {name: raw_rows(name, table, columns, by_word=by_word) for name, table in tables.items()}
    raws = _plain(raws, config.problem)
    task = kind or infer_task([label for label in raws["train"].labels if label is not None])
    if task.takes_lists:
        raws = as_lists(raws, task)
    for rows in raws.values():
        report_rows_in_texts(rows)
    space, faults, lost = _check(raws, task)
    problems = [p for name, table in tables.items() for p in (*table.problems, *in_order(faults[name]))]
    raise_or_drop(problems, config.on_bad_rows, lost)
    splits = {name: as_split(usable(rows, faults[name]), space) for name, rows in raws.items()}
    _check_classes(space, train.file)
    drops, (name, hub, revision) = Counter(p.kind for p in problems), origin_of(config.data, train.file)
    return Dataset(name, space, splits, space.task.default_metrics, "", drops, hub=hub, revision=revision)


def _has_labels(table: Table, columns: Columns) -> bool:
    """Return whether rows may have labels: those of the hub's test splits are often not public."""
    hidden = is_hub(table.file) and all(value is None for value in table.columns.get(str(columns.label), [""]))
    if hidden:
        say(f"left out: {table.file} has no public labels.")
    return not hidden


def usual_columns(task: RowTask | None) -> dict[str, Sequence[str]]:
    """Return the usual names of the columns of a kind, None for one that is not known, as `find_columns` takes them."""
    return {} if task is None else {"usual_labels": task.label_columns, "usual_texts": task.text_columns}


def as_lists(raws: Mapping[str, RawRows], task: RowTask) -> dict[str, RawRows]:
    """Return the rows with lists as labels, those that are text divided alike in all splits; print by what."""
    divided, separator = split_labels([label for rows in raws.values() for label in rows.labels], task.label_separators)
    if separator is not None:
        say(f"labels: several in one cell, divided by {separator!r}.")
    return _with_labels(raws, divided)


def _plain(raws: Mapping[str, RawRows], problem: str) -> dict[str, RawRows]:
    """Return the rows with numbers written alike in all splits."""
    return _with_labels(raws, plain_labels([label for rows in raws.values() for label in rows.labels], problem))


def _with_labels(raws: Mapping[str, RawRows], together: Sequence[Label | None]) -> dict[str, RawRows]:
    """Return the rows with these labels, which are those of all splits one after the other."""
    ends = np.cumsum([len(rows) for rows in raws.values()])
    return {
        name: replace(rows, labels=together[end - len(rows) : end])
        for (name, rows), end in zip(raws.items(), ends, strict=True)
    }


def _check(raws: Mapping[str, RawRows], task: RowTask) -> tuple[LabelSpace, dict[str, Faults], list[RowProblem]]:
    """Return the label space of the usable training rows, the faults by split, and the classes without usable rows."""
    train = raws["train"]
    others = {name: rows for name, rows in raws.items() if name != "train"}
    faults = {name: check_labels(rows, task) | check_texts(rows) for name, rows in raws.items()}
    faults["train"] = check_duplicates(train, list(others.values())) | faults["train"]
    space = label_space(usable(train, faults["train"], allow_empty=True).labels, task)  # type: ignore[arg-type]
    if not space.names:
        return space, faults, []
    for name, rows in others.items():
        faults[name] = check_known(rows, space.names) | faults[name]
    return space, faults, classes_without_rows(train, faults["train"], space)


def in_order(faults: Faults) -> list[RowProblem]:
    """Return the faults of a split in the order of its rows."""
    return [faults[i] for i in sorted(faults)]


def usable(rows: RawRows, faults: Faults, *, allow_empty: bool = False) -> RawRows:
    """Return the rows without a fault. Raises `DataError` if there are none."""
    kept = rows.take([i for i in range(len(rows)) if i not in faults]) if faults else rows
    if not len(kept) and not allow_empty:
        raise DataError(f"no usable row is left among the {rows.name} rows:\n{describe(in_order(faults))}")
    return kept


def _check_classes(space: LabelSpace, file: str) -> None:
    if (space.task.has_classes or space.task.takes_lists) and len(space.names) < 2:
        only = repr(space.names[0]) if space.names else "empty lists"
        raise DataError(f"{file}: all labels are {only}; at least two classes are needed (--label-column?).")


def as_split(rows: RawRows, space: LabelSpace) -> Split:
    """Return checked rows with encoded labels."""
    return Split(rows.name, list(rows.texts), rows.pairs, encode(rows.labels, space), rows.lines, words=rows.words)  # type: ignore[arg-type] # checked
