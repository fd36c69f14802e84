"""Texts without labels: to train on in place of labelled rows, or beside them, and those of sentence encoders."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from demiglace.config.data import DataConfig, DataLocation
from demiglace.console import say
from demiglace.data.rows.checks import RawRows, check_labels, check_texts, columns_of, raise_or_drop, raw_rows, row_keys
from demiglace.data.rows.hub import origin_of
from demiglace.data.rows.labels import plain_labels
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.named_tasks import official_splits
from demiglace.data.rows.sampling import select_rows
from demiglace.data.rows.schema import AGREEMENT, Dataset, LabelSpace, Split
from demiglace.data.rows.sources import read_source, read_training_rows, text_sources_of, unlabelled_sources
from demiglace.data.rows.table import Table
from demiglace.data.rows.units import units_of
from demiglace.data.rows.user_files import as_split, in_order, usable
from demiglace.errors import DataError
from demiglace.tasks.base import RowTask
from demiglace.tasks.label_kinds import number
from demiglace.tasks.regression import REGRESSION


def load_texts(config: DataConfig, location: DataLocation, task: RowTask) -> Dataset:
    """Load the texts that --data and its related options name, for a kind that reads texts one at a time.

    The training rows are distinct single texts without labels, none of which is in another split. A validation or test
    split has pairs with similarity scores where the data have them (STS-B), else texts without labels, on which a
    student is compared with its teacher. Nothing is split off or sampled. Raises `DataError` for rows and files that
    cannot be used.
    """
    if config.data in TASKS:
        parts, drops = _texts_of_task(config.data, location, task)
        others = replace(config, data="", max_rows=None)  # sampled later, together with the task's rows
        more, left_out = _texts_of_files(text_sources_of(others), others, task)
        parts, drops = {name: [*each, *more.get(name, ())] for name, each in parts.items()}, drops + left_out
        name, hub, revision = config.data, TASKS[config.data].hub, None
    else:
        files = text_sources_of(config)
        parts, drops = _texts_of_files(files, config, task)
        name, hub, revision = _origin(config, files)
    splits = {n: _units_without_scores(split, task) for n, (split, *_) in parts.items() if n != "train"}
    train, repeated = _new_rows(_single_texts(parts["train"], task), [*splits.values()], task)
    scored = "validation" in splits and not config.holdout_from_train and _has_scores(splits["validation"], task)
    return Dataset(
        name,
        LabelSpace(task),
        {"train": train} | splits,
        task.default_metrics if scored else (AGREEMENT,),
        "",
        drops + repeated,
        hub=hub,
        revision=revision,
        labelled=scored,
    )


def _texts_of_files(
    files: Mapping[str, Sequence[Path | str]], config: DataConfig, task: RowTask
) -> tuple[dict[str, list[Split]], Counter[str]]:
    """Return the rows of each split by file, and the rows left out by reason."""
    tables = {name: [_read(name, file, each, config) for file in each] for name, each in files.items()}
    read = {name: [read_texts(name, table, config, task) for table in each] for name, each in tables.items()}
    drops = sum((left_out for each in read.values() for _, left_out in each), Counter[str]())
    return {name: [split for split, _ in each] for name, each in read.items()}, drops


def _texts_of_task(name: str, location: DataLocation, task: RowTask) -> tuple[dict[str, list[Split]], Counter[str]]:
    """Return the splits of a named task, with labels where they are similarities of pairs, and the rows left out."""
    named = TASKS[name]
    if "train" not in named.splits:
        raise DataError(f"task {name!r} has no training rows; it is for `demiglace evaluate`.")
    wanted = [split for split in ("train", "validation", "test") if split in named.splits]
    space, splits, drops = official_splits(name, wanted, location)
    scored = space.task is REGRESSION and len(named.text_columns) == 2
    return {n: [split if scored else without_labels(split, task)] for n, split in splits.items()}, drops


def _origin(
    config: DataConfig, files: Mapping[str, Sequence[Path | str]]
) -> tuple[str, tuple[str, str | None] | None, str | None]:
    """Return name, hub and revision of the data set, see `hub.origin_of`; it is named after the first training rows."""
    return origin_of(config.data or (config.unlabelled or ("",))[0], files["train"][0])


def _has_scores(split: Split, task: RowTask) -> bool:
    return bool(task.is_labelled(split.labels).any())


def _units_without_scores(split: Split, task: RowTask) -> Split:
    """Return pairs with similarity scores as they are, and each text of other rows."""
    return split if _has_scores(split, task) else units_of(split, task)


def _single_texts(parts: Sequence[Split], task: RowTask) -> Split:
    """Return the single texts of all parts as training rows without labels."""
    units = [units_of(part, task) for part in parts]
    texts = [text for part in units for text in part.texts]
    lines = [line for part in units for line in part.lines]
    return Split("train", texts, None, task.encode([None] * len(texts), ()), lines)


def read_texts(name: str, table: Table, config: DataConfig, task: RowTask) -> tuple[Split, Counter[str]]:
    """Return a split of a user's file with its similarity scores, if it has any, and the rows left out by reason.

    Scores are numbers in a column of a usual name, or in --label-column, beside two columns of text. Raises `DataError`
    for rows that cannot be used, and for pairs without the column that --label-column names.
    """
    texts = columns_of(table, config.text_columns, labelled=False).texts
    usual = [column for column in table.columns if column.lower() in task.label_columns and column not in texts]
    label = config.label_column
    if name == "train" or len(texts) == 1:
        label = None
    elif label is None and usual and _are_numbers(table.columns[usual[0]]):
        label = usual[0]
    rows = raw_rows(name, table, columns_of(table, texts, label, labelled=label is not None))
    if label is not None:
        rows = replace(rows, labels=plain_labels(rows.labels, REGRESSION.name))
    faults = (check_labels(rows, task) if label is not None else {}) | check_texts(rows)
    problems = [*table.problems, *in_order(faults)]
    raise_or_drop(problems, config.on_bad_rows)
    with_label = f", similarity in {label}" if label else ""
    say(f"{table.file}: text in {' and '.join(texts)}{with_label}.")
    return as_split(usable(rows, faults), LabelSpace(task)), Counter(p.kind for p in problems)


def _are_numbers(values: Iterable[object]) -> bool:
    return all(number(str(value)) is not None for value in values if value is not None)


def without_labels(split: Split, task: RowTask) -> Split:
    """Return a split whose rows have no label."""
    return replace(split, labels=task.encode([None] * len(split), ()))


def read_without_labels(config: DataConfig, labels: LabelSpace) -> Dataset:
    """Read and check rows without labels: those of --data and --unlabelled to train on, of --validation and --test.

    labels: what the outputs of the teacher mean. Training rows that occur twice, or in another split, are left out.
    Raises `DataError` for rows that cannot be used, and for a teacher whose rows have labels of words.
    """
    if labels.task.unit != "row":
        raise DataError(f"the rows have no labels, and {labels.task.name} needs rows of labelled words to train on.")
    files = text_sources_of(config)
    tables = {name: [_read(name, file, paths, config) for file in paths] for name, paths in files.items()}
    first = tables["train"][0]
    columns = columns_of(first, config.text_columns, labelled=False)
    _say_columns(first, columns.texts)
    raws = {
        name: _joined(name, [raw_rows(name, t, columns_of(t, columns.texts, labelled=False)) for t in each])
        for name, each in tables.items()
    }
    faults = {name: check_texts(rows) for name, rows in raws.items()}
    unreadable = [problem for each in tables.values() for table in each for problem in table.problems]
    problems = [*unreadable, *(p for each in faults.values() for p in in_order(each))]
    raise_or_drop(problems, config.on_bad_rows)
    raws = {name: usable(rows, faults[name]) for name, rows in raws.items()}
    splits = {name: as_split(rows, labels) for name, rows in raws.items()}
    others = [split for name, split in splits.items() if name != "train"]
    splits["train"], repeated = _new_rows(splits["train"], others, labels.task)
    drops = Counter(p.kind for p in problems) + repeated
    name, hub, revision = _origin(config, files)
    return Dataset(name, labels, splits, (AGREEMENT,), "", drops, hub=hub, revision=revision, labelled=False)


def _read(name: str, file: Path | str, files: Sequence[Path | str], config: DataConfig) -> Table:
    """Read a file of a split; of several files to train on, which are sampled together, all rows."""
    return read_training_rows(file, config) if name == "train" and len(files) == 1 else read_source(file)


def _say_columns(table: Table, texts: Sequence[str]) -> None:
    others = [name for name in table.columns if name not in texts]
    unread = f" Not read: {', '.join(others)}; --label-column names a column of labels." if others else ""
    say(
        f"{table.file}: text in {' and '.join(texts)}, no labels. The student learns from the teacher's outputs, and "
        f"is scored by its agreement with the teacher.{unread}"
    )


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


def _new_rows(train: Split, others: Sequence[Split], task: RowTask) -> tuple[Split, Counter[str]]:
    """Return the distinct training rows that are in no other split, and the counts of those left out, printed.

    Raises `DataError` if none is left.
    """
    units = [units_of(split, task) for split in others]
    held = {key for split in units for key in row_keys(split.texts, split.pairs)}
    seen, kept, drops = set[tuple[str, str]](), list[int](), Counter[str]()
    for i, key in enumerate(row_keys(train.texts, train.pairs)):
        if key in held:
            drops["texts that are in another split"] += 1
        elif key in seen:
            drops["repeated texts"] += 1
        elif not any(key):
            drops["empty texts"] += 1  # of named tasks; those of files are faults
        else:
            seen.add(key)
            kept.append(i)
    counts = ", ".join(f"{count:,} {reason}" for reason, count in drops.items())
    if not kept:
        raise DataError(f"{train.name}: no text is left to train on ({counts}).")
    if drops:
        say(f"left out {counts} of the training texts.")
    return select_rows(train, np.array(kept)) if drops else train, drops


def read_unlabelled(config: DataConfig, task: RowTask, *, paired: bool) -> RawRows:
    """Read and check the rows of `--unlabelled` for a kind of problem; paired: whether rows have two texts."""
    tables = [read_source(source) for source in unlabelled_sources(config)]
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
