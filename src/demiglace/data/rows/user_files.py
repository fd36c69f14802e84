"""Read and check the rows of a user's files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

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
    row_keys,
)
from demiglace.data.rows.columns import Columns
from demiglace.data.rows.hub import is_hub, parse_hub
from demiglace.data.rows.label_columns import label_columns, with_lists
from demiglace.data.rows.labels import encode, infer_task, label_space, plain_labels, split_labels
from demiglace.data.rows.readers import read_table
from demiglace.data.rows.schema import AGREEMENT, Dataset, LabelSpace, Split
from demiglace.data.rows.sources import read_source, sources_of
from demiglace.data.rows.table import RowProblem, Table
from demiglace.errors import DataError
from demiglace.tasks.base import Label, RowTask
from demiglace.tasks.registry import recognized_task, row_task


def read_files(config: DataConfig) -> Dataset:
    """Read and check the files that `--data`, --validation and --test name; nothing is split off or sampled."""
    tables = {name: read_source(source) for name, source in sources_of(config).items()}
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
    drops = Counter(p.kind for p in problems)
    if not is_hub(config.data):
        return Dataset(Path(config.data).name, space, splits, space.task.default_metrics, "", drops)
    hub = parse_hub(train.file)
    name, known = hub.path.partition("/")[2], (hub.path, hub.config)
    return Dataset(name, space, splits, space.task.default_metrics, "", drops, hub=known, revision=hub.revision)


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


def read_without_labels(config: DataConfig, labels: LabelSpace) -> Dataset:
    """Read and check rows without labels: those of --data and --unlabelled to train on, of --validation and --test.

    labels: what the outputs of the teacher mean. Training rows that occur twice, or in another split, are left out.
    Raises `DataError` for rows that cannot be used, and for a teacher whose rows have labels of words.
    """
    if labels.task.unit != "row":
        raise DataError(f"the rows have no labels, and {labels.task.name} needs rows of labelled words to train on.")
    files = _text_files(config)
    tables = {name: [read_source(file) for file in paths] for name, paths in files.items()}
    first = tables["train"][0]
    columns = columns_of(first, config.text_columns, labelled=False)
    _say_columns(first, columns.texts)
    raws = {name: _joined(name, [_text_rows(t, columns.texts) for t in each]) for name, each in tables.items()}
    faults = {name: check_texts(rows) for name, rows in raws.items()}
    unreadable = [problem for each in tables.values() for table in each for problem in table.problems]
    problems = [*unreadable, *(p for each in faults.values() for p in in_order(each))]
    raise_or_drop(problems, config.on_bad_rows)
    raws = {name: usable(rows, faults[name]) for name, rows in raws.items()}
    train, repeated = _distinct(raws["train"], [rows for name, rows in raws.items() if name != "train"])
    splits = {name: as_split(rows, labels) for name, rows in (raws | {"train": train}).items()}
    drops = Counter(p.kind for p in problems) + Counter({"repeated text": repeated})
    name = Path(config.data or (config.unlabelled or ())[0]).name
    return Dataset(name, labels, splits, (AGREEMENT,), "", drops, labelled=False)


def _text_files(config: DataConfig) -> dict[str, list[Path | str]]:
    """Return the files of texts by split, or their addresses on the hub."""
    if config.data:
        named = sources_of(config)
    else:
        named = {n: Path(f) for n, f in (("validation", config.validation), ("test", config.test)) if f is not None}
    training = [named["train"]] if "train" in named else []
    return {"train": [*training, *map(Path, config.unlabelled or ())]} | {
        name: [file] for name, file in named.items() if name != "train"
    }


def _say_columns(table: Table, texts: Sequence[str]) -> None:
    others = [name for name in table.columns if name not in texts]
    unread = f" Not read: {', '.join(others)}; --label-column names a column of labels." if others else ""
    say(
        f"{table.file}: text in {' and '.join(texts)}, no labels. The student learns from the teacher's outputs, and "
        f"is scored by its agreement with the teacher.{unread}"
    )


def _text_rows(table: Table, texts: Sequence[str]) -> RawRows:
    return raw_rows("train", table, columns_of(table, texts, labelled=False))


def _joined(name: str, parts: Sequence[RawRows]) -> RawRows:
    """Return the rows of all parts, without labels."""
    return RawRows(
        name,
        [text for part in parts for text in part.texts],
        None if parts[0].pairs is None else [text for part in parts for text in part.pairs or ()],
        [None for part in parts for _ in part.texts],
        [line for part in parts for line in part.lines],
        None if parts[0].words is None else [words for part in parts for words in part.words or ()],
    )


def _distinct(train: RawRows, others: Sequence[RawRows]) -> tuple[RawRows, int]:
    """Return the training rows without those that occur twice or in another split, and the number of these."""
    seen = {key for rows in others for key in row_keys(rows.texts, rows.pairs)}
    kept = []
    for i, key in enumerate(row_keys(train.texts, train.pairs)):
        if key not in seen:
            seen.add(key)
            kept.append(i)
    repeated = len(train) - len(kept)
    if repeated:
        say(f"left out {repeated:,} rows whose text occurs twice, or in another split.")
    return train.take(kept), repeated


def read_unlabelled(config: DataConfig, task: RowTask, *, paired: bool) -> RawRows:
    """Read and check the rows of `--unlabelled` for a kind of problem; paired: whether rows have two texts."""
    tables = [read_table(file) for file in config.unlabelled or ()]
    rows = _joined("unlabelled", [_unlabelled_rows(table, task, paired, config.text_columns) for table in tables])
    faults = check_texts(rows)
    raise_or_drop([*(p for table in tables for p in table.problems), *in_order(faults)], config.on_bad_rows)
    return usable(rows, faults)


def _unlabelled_rows(table: Table, task: RowTask, paired: bool, text_columns: Sequence[str] | None) -> RawRows:
    columns = columns_of(table, text_columns, labelled=False, usual_texts=task.text_columns)
    if paired != (len(columns.texts) == 2):
        wanted = "two text columns" if paired else "one text column"
        raise DataError(
            f"--unlabelled {table.file} was read with {' and '.join(columns.texts)}; the labelled rows have {wanted}. "
            "Name the columns with --text-columns."
        )
    return raw_rows("unlabelled", table, columns, by_word=task.unit == "word")
