"""Texts to train a sentence encoder on, without labels, and labelled pairs of texts to validate it on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from demiglace.config.data import DataConfig, DataLocation
from demiglace.console import say
from demiglace.data.rows.checks import check_labels, check_texts, columns_of, raise_or_drop, raw_rows
from demiglace.data.rows.labels import plain_labels
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.named_tasks import official_splits
from demiglace.data.rows.sampling import draw, select_rows, stratified_holdout
from demiglace.data.rows.schema import AGREEMENT, Dataset, LabelSpace, Split
from demiglace.data.rows.sources import read_source, sources_of
from demiglace.data.rows.units import units_of
from demiglace.data.rows.user_files import as_split, in_order, usable
from demiglace.errors import DataError
from demiglace.tasks.base import RowTask
from demiglace.tasks.regression import REGRESSION, number


def load_texts(config: DataConfig, location: DataLocation, task: RowTask) -> Dataset:
    """Load the texts that --data and its related options name, for a kind that reads texts one at a time.

    The training rows are distinct single texts without labels, none of which is in another split. A validation or test
    split has pairs with similarity scores where the data have them (STS-B), else texts without labels, on which a
    student is compared with its teacher. The fingerprint is not set. Raises `DataError` for rows and files that cannot
    be used.
    """
    name, splits, drops, hub = _splits(config, location, task)
    seed, unused = config.data_seed or 0, list[Split]()
    if config.holdout_from_train:
        unused = [split for split_name, split in splits.items() if split_name != "train"]
        splits = {"train": splits["train"]}
    if "validation" not in splits:
        splits = _split_off(splits, config.validation_fraction, seed)
    if config.max_rows is not None:
        splits["train"] = select_rows(splits["train"], draw(len(splits["train"]), config.max_rows, seed))
    scored = task.is_labelled(splits["validation"].labels).any()
    metrics = task.default_metrics if scored else (AGREEMENT,)
    return Dataset(name, LabelSpace(task), splits, metrics, "", drops, unused, hub)


def _splits(
    config: DataConfig, location: DataLocation, task: RowTask
) -> tuple[str, dict[str, Split], Counter[str], tuple[str, str | None] | None]:
    """Return name, splits, rows left out by reason, and Hub path of the texts."""
    if config.data in TASKS:
        named = TASKS[config.data]
        if "train" not in named.splits:
            raise DataError(f"task {config.data!r} has no training rows; it is for `demiglace evaluate`.")
        wanted = [name for name in ("train", "validation", "test") if name in named.splits]
        space, splits, drops = official_splits(config.data, wanted, location)
        scored = space.task is REGRESSION and len(named.text_columns) == 2
        splits = {name: split if scored else without_labels(split, task) for name, split in splits.items()}
        name, hub = config.data, named.hub
    else:
        name, splits, drops, hub = Path(config.data).name, {}, Counter(), None
        for split, path in sources_of(config).items():
            splits[split], left_out = read_texts(split, path, config, task)
            drops += left_out
    others = [split if task.is_labelled(split.labels).any() else units_of(split, task) for split in splits.values()]
    splits = dict(zip(splits, others, strict=True))
    splits["train"], repeated = _new_texts(splits["train"], [s for n, s in splits.items() if n != "train"], task)
    if repeated:
        say(f"left out {_counts(repeated)} of the training texts.")
    return name, splits, drops + repeated, hub


def _split_off(splits: Mapping[str, Split], fraction: float, seed: int) -> dict[str, Split]:
    """Return the splits with a validation split of this share of the training texts. Raises `DataError` for too few."""
    train = splits["train"]
    held = stratified_holdout(train.texts, np.zeros(len(train), dtype=np.int64), fraction, seed)
    if not held.any():
        raise DataError(
            f"no validation text can be split off from {len(train)} training texts by --validation-fraction "
            f"{fraction}; give --validation FILE, more texts or a larger fraction."
        )
    held_out = select_rows(train, np.flatnonzero(held), "validation")
    rest = select_rows(train, np.flatnonzero(~held))
    return {"train": rest, "validation": held_out} | {n: s for n, s in splits.items() if n != "train"}


def read_texts(name: str, path: Path | str, config: DataConfig, task: RowTask) -> tuple[Split, Counter[str]]:
    """Return a split of a user's file with its similarity scores, if it has any, and the rows left out by reason.

    Scores are numbers in a column of a usual name, or in --label-column, beside two columns of text.
    """
    table = read_source(path)
    texts = columns_of(table, config.text_columns, labelled=False).texts
    label = config.label_column if config.label_column in table.columns else None
    usual = [column for column in table.columns if column.lower() in task.label_columns and column not in texts]
    if config.label_column is None and usual and len(texts) == 2 and _are_numbers(table.columns[usual[0]]):
        label = usual[0]
    if name == "train" or len(texts) == 1:
        label = None
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


def _new_texts(train: Split, others: Sequence[Split], task: RowTask) -> tuple[Split, Counter[str]]:
    """Return the distinct texts that are in no other split, without labels, and the counts of those left out."""
    held = {text.strip() for split in others for texts in (split.texts, split.pairs or ()) for text in texts}
    single = without_labels(units_of(train, task), task)
    seen: set[str] = set()
    kept, drops = [], Counter[str]()
    for i, text in enumerate(single.texts):
        key = text.strip()
        if key in held:
            drops["texts that are in another split"] += 1
        elif key in seen:
            drops["repeated texts"] += 1
        elif not key:
            drops["empty texts"] += 1
        else:
            seen.add(key)
            kept.append(i)
    if not kept:
        raise DataError(f"{train.name}: no text is left to train on ({_counts(drops)}).")
    return select_rows(single, np.array(kept)), drops


def _counts(drops: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in drops.items())
