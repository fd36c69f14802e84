"""Load the rows that `--data` and its related options name: a named task or the user's files."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from demiglace.config.data import DataConfig, DataLocation
from demiglace.console import say
from demiglace.data.rows.checks import RawRows, check_duplicates, check_texts, report_contradictions, row_keys
from demiglace.data.rows.columns import MissingLabelColumnError
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.named_tasks import official_splits
from demiglace.data.rows.sampling import draw, select_rows, stratified_holdout
from demiglace.data.rows.schema import Dataset, LabelSpace, Split
from demiglace.data.rows.texts import load_texts, read_unlabelled, read_without_labels
from demiglace.data.rows.user_files import as_split, read_files
from demiglace.errors import ConfigError, DataError
from demiglace.tasks.registry import row_task
from demiglace.tasks.regression import REGRESSION


def load_dataset(config: DataConfig, location: DataLocation, *, teacher: LabelSpace | None = None) -> Dataset:
    """Load the labelled rows of a named task or of the user's files, checked, with a validation split.

    teacher: what the outputs of a teacher mean. With it, the rows of `--data` may have no label column, and rows of
    `--unlabelled` may be all there are; the labels are then the teacher's, and no row has one.

    A named task takes precedence over a file of the same name. With `holdout_from_train`, the validation split is held
    out of the training rows, and the other splits are unused: options must not be chosen on rows that results are
    reported on.
    Rows without labels are loaded by `load_unlabelled`. Raises `DataError` for rows and files that cannot be used, and
    `ConfigError` for options that do not go together.
    """
    if not config.data and (teacher is None or not config.unlabelled):
        raise ConfigError("--data must be given.")
    _check_options(config)
    dataset = _read(config, location, teacher)
    dataset.labels.task.require_packages()
    splits, drops, seed = dict(dataset.splits), Counter(dataset.drops), config.data_seed or 0
    if "validation" not in splits:
        splits = _split_off(splits, dataset.labels, config.validation_fraction, seed)
    if config.max_rows is not None:
        splits["train"] = select_rows(splits["train"], draw(len(splits["train"]), config.max_rows, seed))
        if dataset.labelled:
            _warn_of_absent(splits["train"], dataset.labels)
    unused: list[Split] = []
    if config.holdout_from_train:
        unused = [split for name, split in splits.items() if name != "train"]
        splits = _split_off({"train": splits["train"]}, dataset.labels, config.validation_fraction, seed)
    for split in splits.values():
        report_contradictions(split, split.name)
    mark = fingerprint(dataset.labels, splits.values())
    if not config.score_test and "test" in splits:
        unused.append(splits.pop("test"))
    return replace(dataset, splits=splits, fingerprint=mark, drops=dict(+drops), unused_splits=unused)


def load_unlabelled(config: DataConfig, dataset: Dataset) -> Split | None:
    """Load the rows of `--unlabelled`, with as many texts per row as those of `dataset`; their labels are missing.

    None if there are none, or if the training rows have no labels either: those of `--unlabelled` are among them.

    Rows that occur in a split, also an unused one, are left out: they would be trained on twice, or be evaluated on.
    Training rows that `--max-rows` did not sample may be used here without their labels. Raises `DataError` as
    `load_dataset` does.
    """
    train = dataset.splits["train"]
    if not config.unlabelled or not dataset.labels.task.is_labelled(train.labels).any():
        return None
    rows = read_unlabelled(config, dataset.labels.task, paired=train.pairs is not None)
    splits = (*dataset.splits.values(), *dataset.unused_splits)
    held = {key for split in splits for key in row_keys(split.texts, split.pairs)}
    new = [i for i, key in enumerate(rows.keys()) if key not in held]
    if not new:
        raise DataError(f"--unlabelled {', '.join(config.unlabelled)}: every row is in the labelled data already.")
    if len(new) < len(rows):
        say(f"left out {len(rows) - len(new):,} unlabelled rows that are in the labelled data already.")
    return as_split(rows.take(new), dataset.labels)


def fingerprint(labels: LabelSpace, splits: Iterable[Split]) -> str:
    """Return SHA-256 over the label space and the texts, pairs, labels and order of the splits (16 hex digits)."""
    digest = hashlib.sha256("\0".join((labels.task.name, *labels.names)).encode())
    for split in splits:
        digest.update(f"\0{split.name} {len(split)} {split.pairs is not None}\0".encode())
        for texts in (split.texts, split.pairs or ()):
            digest.update(np.array([len(t) for t in texts], dtype=np.int64).tobytes())
            digest.update("".join(texts).encode())
        if split.words is not None:
            digest.update(np.array([len(w) for words in split.words for w in words], dtype=np.int64).tobytes())
        digest.update(split.labels.tobytes())
    return digest.hexdigest()[:16]


def text_fingerprint(split: Split) -> str:
    """Return the fingerprint of a split's texts and their order, whatever the labels and their names."""
    return fingerprint(LabelSpace(REGRESSION), [replace(split, labels=np.zeros(len(split), dtype=np.float32))])


def _check_options(config: DataConfig) -> None:
    if config.problem != "auto":
        row_task(config.problem)
    if config.data not in TASKS:
        return
    of_files = {"--validation": config.validation, "--test": config.test, "--label-column": config.label_column}
    given = [flag for flag, value in of_files.items() if value is not None]
    if given:
        raise ConfigError(f"{', '.join(given)}: only for files, and --data {config.data} is a named task.")


def _read(config: DataConfig, location: DataLocation, teacher: LabelSpace | None) -> Dataset:
    """Return the rows of all splits that there are, checked; nothing is split off or sampled."""
    if config.problem != "auto" and (task := row_task(config.problem)).separate_texts:
        return load_texts(config, location, task)
    return _from_task(config, location) if config.data in TASKS else _from_files(config, teacher)


def _from_files(config: DataConfig, teacher: LabelSpace | None) -> Dataset:
    if teacher is None:
        return read_files(config)
    try:
        return read_files(config) if config.data else read_without_labels(config, teacher)
    except MissingLabelColumnError:
        return read_without_labels(config, teacher)


def _from_task(config: DataConfig, location: DataLocation) -> Dataset:
    task = TASKS[config.data]
    if "train" not in task.splits:
        raise DataError(f"task {config.data!r} has no training rows; it is for `demiglace evaluate`.")
    wanted = [name for name in ("train", "validation", "test") if name in task.splits]
    space, splits, drops = official_splits(config.data, wanted, location)
    _count_odd_rows(config.data, splits)
    return Dataset(config.data, space, splits, task.metrics, "", drops, hub=task.hub)


def _count_odd_rows(name: str, splits: Mapping[str, Split]) -> None:
    raws = {n: RawRows(n, s.texts, s.pairs, [None] * len(s), s.lines) for n, s in splits.items()}
    odd = [p for rows in raws.values() for p in check_texts(rows).values()]
    odd += check_duplicates(raws["train"], [r for n, r in raws.items() if n != "train"]).values()
    kinds = Counter(p.kind for p in odd)
    if kinds:
        counts = ", ".join(f"{kind}: {count:,}" for kind, count in kinds.items())
        say(f"{name}: official rows are kept as they are ({counts}).")


def _split_off(splits: Mapping[str, Split], space: LabelSpace, fraction: float, seed: int) -> dict[str, Split]:
    train = splits["train"]
    held = stratified_holdout(row_keys(train.texts, train.pairs), space.task.strata(train.labels), fraction, seed)
    if not held.any():
        raise DataError(
            f"no validation row can be split off from {len(train)} training rows by --validation-fraction {fraction}; "
            "give --validation FILE, more rows or a larger fraction."
        )
    parts = {
        "train": select_rows(train, np.flatnonzero(~held)),
        "validation": select_rows(train, np.flatnonzero(held), "validation"),
    }
    return parts | {name: split for name, split in splits.items() if name != "train"}


def _warn_of_absent(train: Split, space: LabelSpace) -> None:
    absent = int((space.task.rows_by_name(train.labels, space.names) == 0).sum())
    if absent:
        say(f"{absent} of {space.size} classes have no row among the {len(train)} drawn by --max-rows.")
