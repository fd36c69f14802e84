"""Evaluation sets: a named task's split or a file, with labels that are matched to the model's."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from demiglace.config.data import DataConfig, DataLocation
from demiglace.console import say
from demiglace.data.rows.checks import (
    check_known,
    check_labels,
    check_texts,
    columns_of,
    raise_or_drop,
    raw_rows,
    report_contradictions,
)
from demiglace.data.rows.dataset import fingerprint, load_dataset
from demiglace.data.rows.hub import hub_set, is_hub, parse_hub
from demiglace.data.rows.label_columns import label_columns, with_lists
from demiglace.data.rows.label_maps import LabelFit, fit_labels, label_mismatch_message
from demiglace.data.rows.labels import label_space, plain_labels
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.named_tasks import official_splits
from demiglace.data.rows.sampling import draw, select_rows
from demiglace.data.rows.schema import AGREEMENT, LabelSpace, Split
from demiglace.data.rows.sources import files_in, missing, read_source
from demiglace.data.rows.texts import read_texts, without_labels
from demiglace.data.rows.user_files import as_lists, as_split, in_order, usable, usual_columns
from demiglace.errors import DataError, unknown
from demiglace.labels import Match, is_generic, match_by_number, match_by_order, numbered, pair
from demiglace.tasks.base import Label, RowTask
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.regression import REGRESSION
from demiglace.tasks.sentence_embedding import RETRIEVAL

_LEFT_OUT = "left out by the label map"
_NOT_SAMPLED = "not drawn"


@dataclass(frozen=True)
class EvaluationSet:
    """Rows to evaluate a model on."""

    name: str
    split: Split  # its labels are ids in `classes`
    metrics: tuple[str, ...]  # the main one first
    classes: LabelSpace  # the model's labels, merged where the set does not distinguish them
    class_map: np.ndarray | None = None
    """int64 [C], the id in `classes` of each of the model's C classes, so that a prediction is
    `class_map[argmax(logits)]`; None for a kind of problem without classes."""
    drops: Mapping[str, int] = field(default_factory=dict)  # reason -> number of rows left out
    assumed: tuple[str, ...] = ()
    """The set's label of each class, if they were matched with the model's by position alone; else empty."""

    task: RowTask | None = None
    """The kind that scores the set, where it is not the model's."""

    revision: str | None = None  # of a set that is named by its address on the hub: the commit

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the rows and of the classes that they are counted in."""
        return fingerprint(self.classes, [self.split])


def load_set(
    spec: str,
    labels: LabelSpace,
    location: DataLocation,
    *,
    label_map: Mapping[str, Any] | None = None,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    on_bad_rows: Literal["error", "drop"] = "error",
) -> EvaluationSet:
    """Load the rows that `spec` names, for a model with these labels.

    spec: a file, a folder with a test or validation file, TASK or TASK:SPLIT; without a split, test if its labels are
    public, else validation. label_map: see `label_maps.fit_labels`; without one, names are matched, then the task's
    own map is used. Integer labels in a file are the model's class ids; classes that a model does not name are matched
    by position. The match is printed. group_column: the column of a file that names the group of each row.
    Raises `DataError` if rows or labels do not match the model.
    """
    labels.task.require_packages()
    name, _, split = spec.partition(":")
    if name in TASKS:
        return _of_task(spec, name, split, labels, location, label_map or {})
    path = _source_of(spec)
    if labels.task.separate_texts:
        given = None if text_columns is None else tuple(text_columns)
        config = DataConfig(text_columns=given, label_column=label_column, on_bad_rows=on_bad_rows)
        found = _of_texts(str(path), *read_texts("test", read_source(path), config, labels.task), labels.task)
    else:
        found = _of_file(path, labels, label_map or {}, text_columns, label_column, on_bad_rows)
    report_contradictions(found.split, spec)
    if is_hub(path):
        found = replace(found, revision=parse_hub(str(path)).revision)
    return found if group_column is None else _grouped(found, path, group_column)


def set_of_split(split: Split, metrics: tuple[str, ...], labels: LabelSpace) -> EvaluationSet | None:
    """Return a split of the data set that a model was trained on as an evaluation set; `labels`: of the model.

    None for a split without labels.
    """
    return EvaluationSet(split.name, split, metrics, labels) if AGREEMENT not in metrics else None


def texts_of(spec: str, location: DataLocation, task: RowTask = CLASSIFICATION) -> Split:
    """Return the texts that `spec` names, as `load_set` reads them for this kind; a file needs no labels here.

    Raises `DataError` if rows cannot be read.
    """
    name, _, split = spec.partition(":")
    if name in TASKS:
        return _task_rows(name, split, location)[1]
    table = read_source(_source_of(spec))
    columns = columns_of(table, labelled=False, usual_texts=task.text_columns)
    rows = raw_rows("test", table, columns, by_word=task.unit == "word")
    faults = check_texts(rows)
    raise_or_drop([*table.problems, *in_order(faults)], "drop")
    return as_split(usable(rows, faults), LabelSpace(task))


def sample_rows(found: EvaluationSet, count: int) -> EvaluationSet:
    """Return the set with `count` of its rows, sampled with seed 0 and in their order; the same for every model."""
    if len(found.split) <= count:
        return found
    drops = {**found.drops, _NOT_SAMPLED: len(found.split) - count}
    return replace(found, split=select_rows(found.split, draw(len(found.split), count)), drops=drops)


def _grouped(found: EvaluationSet, path: Path | str, column: str) -> EvaluationSet:
    table = read_source(path)
    if column not in table.columns:
        raise DataError(f"{path}: {unknown('column', column, table.columns)}")
    group_of = dict(zip(table.lines, table.columns[column], strict=True))
    groups = [str(group_of[line]) for _, line in found.split.lines]
    return replace(found, split=replace(found.split, groups=groups))


def _of_task(
    spec: str, name: str, split: str, labels: LabelSpace, location: DataLocation, label_map: Mapping[str, Any]
) -> EvaluationSet:
    task = TASKS[name]
    space, rows, drops = _task_rows(name, split, location)
    if labels.task.separate_texts:
        relevant = space.task is REGRESSION or (space.size == 2 and "f1" in task.metrics)  # F1 is of class 1
        return _of_texts(spec, rows if relevant else without_labels(rows, labels.task), drops, labels.task)
    _check_kind(spec, space, labels)
    if space.task.has_label_sets:
        columns = _columns_of(fit_labels(space.names, labels.names, label_map, task.label_maps, set_order=False), spec)
        return EvaluationSet(spec, _placed(rows, columns, labels.size), task.metrics, labels, None, dict(drops))
    if not space.task.has_classes:
        return EvaluationSet(spec, rows, task.metrics, space, None, dict(drops))
    model_names = labels.names if label_map else _assumed_names(spec, labels, space)
    fit = fit_labels(space.names, model_names, label_map, task.label_maps)
    if space.task.unit == "word":
        fit = _tags_of_set(fit, labels)
    _say_line(spec, fit)
    rows, left = _relabel(rows, [fit.ids[n] for n in space.names])
    drops[_LEFT_OUT] += left
    assumed = () if model_names == labels.names or fit.classes.size < labels.size else fit.classes.names
    return EvaluationSet(spec, rows, task.metrics, fit.classes, fit.class_map, dict(+drops), assumed)


def _of_texts(spec: str, rows: Split, drops: Counter[str], task: RowTask) -> EvaluationSet:
    """Return a set for a sentence encoder: pairs with scores, or with 0 and 1, or texts without labels.

    Pairs with the labels 0 and 1 are scored by retrieval. A line says how a set is scored.
    """
    labels = rows.labels.astype(task.label_dtype)
    known = labels[task.is_labelled(labels)]
    kind = RETRIEVAL if {*np.unique(known).tolist()} <= {0.0, 1.0} else task
    metrics = kind.default_metrics
    if rows.pairs is None or not len(known):
        labels, kind, metrics = without_labels(rows, task).labels, task, ()
    ways = {RETRIEVAL.name: f"retrieval among {len(rows):,} second texts", task.name: "similarity of pairs"}
    say(f"{spec}: {ways[kind.name] if metrics else 'texts without similarity labels'}.")
    return EvaluationSet(spec, replace(rows, labels=labels), metrics, LabelSpace(kind), None, dict(+drops), task=kind)


def _columns_of(fit: LabelFit, spec: str) -> list[int]:
    """Return the model's output for each label of a set whose rows have lists of labels, and print the match.

    Raises `DataError` where a map merges labels or leaves one out, which has no meaning for rows with several.
    """
    columns = [i for i in fit.ids.values() if i is not None]
    if len(columns) < len(fit.ids) or len(fit.class_map) > fit.classes.size:
        raise DataError(
            f"{spec}: --label-map merges labels or leaves some out; for rows with lists of labels, give one of the "
            "model's labels for each of the set's."
        )
    _say_line(spec, fit)
    return columns


def _placed(rows: Split, columns: Sequence[int], size: int) -> Split:
    """Return rows with the k-th of their labels [N, K] at columns[k] of [N, size]; the other columns are 0."""
    labels = np.zeros((len(rows), size), dtype=rows.labels.dtype)
    labels[:, columns] = rows.labels
    return replace(rows, labels=labels)


def _say_line(spec: str, fit: LabelFit) -> None:
    if fit.line is not None:
        say(f"{spec}: {fit.line}")


def _task_rows(name: str, split: str, location: DataLocation) -> tuple[LabelSpace, Split, Counter[str]]:
    task = TASKS[name]
    check_split(name, split)
    if split == "validation" and split not in task.splits:
        dataset = load_dataset(DataConfig(data=name), location)  # the part that training splits off by default
        return dataset.labels, dataset.splits[split], Counter(dataset.drops)
    for choice in [split] if split else [s for s in ("test", "validation") if s in task.splits]:
        space, splits, drops = official_splits(name, [choice], location, for_source=True)
        if choice in splits:
            return space, splits[choice], drops
    raise DataError(f"{name}:{split or 'test'} has no public labels; name another split: {', '.join(task.splits)}.")


def check_split(name: str, split: str) -> None:
    """Raise `DataError` if a named task has no such split; an empty name is allowed.

    A task without a validation split has the one that training holds out of its training rows.
    """
    splits = TASKS[name].splits
    if split and split not in splits and not (split == "validation" and "train" in splits):
        raise DataError(unknown(f"split of {name}:", split, splits))


def _assumed_names(spec: str, labels: LabelSpace, space: LabelSpace) -> Sequence[str]:
    """Return names for a model with LABEL_0, LABEL_1, … only: the set's or its source task's, if there are as many."""
    name = spec.partition(":")[0]
    candidates = [space.names, *(TASKS[source].labels for source in TASKS[name].sources)]
    fitting = [names for names in candidates if len(names) == labels.size]
    if not is_generic(labels.names) or not fitting:
        return labels.names
    assumed = Match(tuple(range(labels.size)), "order")
    say(f"{spec}: {assumed.line(fitting[0], labels.names)}")
    return fitting[0]


def _relabel(rows: Split, ids: Sequence[int | None]) -> tuple[Split, int]:
    """Return the rows with the class id of each label, without rows whose label has none, and the number of those."""
    lookup = np.array([-1 if i is None else i for i in ids], dtype=np.int64)
    counted = replace(rows, labels=np.where(rows.labels < 0, rows.labels, lookup[np.maximum(rows.labels, 0)]))
    kept = np.flatnonzero((counted.labels != -1).reshape(len(rows), -1).all(axis=1))
    return (counted, 0) if len(kept) == len(rows) else (select_rows(counted, kept), len(rows) - len(kept))


def _source_of(spec: str) -> Path | str:
    if is_hub(spec):
        return hub_set(spec)
    path = Path(spec)
    if path.is_dir():
        files = files_in(path)
        if "test" not in files and "validation" not in files:
            raise DataError(f"{path} holds neither a test nor a validation file; name the file itself.")
        return files.get("test") or files["validation"]
    if not path.is_file():
        raise DataError(missing(spec))
    return path


def _of_file(
    path: Path | str,
    labels: LabelSpace,
    label_map: Mapping[str, Any],
    text_columns: Sequence[str] | None,
    label_column: str | None,
    on_bad_rows: Literal["error", "drop"],
) -> EvaluationSet:
    table = read_source(path)
    sets = labels.task.label_columns if labels.task.has_label_sets else None
    if names := label_columns(table, text_columns, label_column, sets):
        label_column, table = ",".join(names), with_lists(table, names)
    columns = columns_of(table, text_columns, label_column, **usual_columns(labels.task))
    read = raw_rows("test", table, columns, by_word=labels.task.unit == "word")
    rows = replace(read, labels=plain_labels(read.labels, labels.task.name))
    if labels.task.takes_lists:
        rows = as_lists({rows.name: rows}, labels.task)[rows.name]
    named = labels.task.has_classes or labels.task.has_label_sets
    fit, assumed = _fit_file(rows.labels, labels, label_map) if named else (None, ())
    if fit is not None and labels.task.unit == "word":
        fit = _tags_of_set(fit, labels)
    if fit is not None and not labels.task.has_label_sets:
        _say_line(str(path), fit)
    faults = ({} if fit is None else check_known(rows, fit.ids)) | check_labels(rows, labels.task) | check_texts(rows)
    problems = [*table.problems, *in_order(faults)]
    raise_or_drop(problems, on_bad_rows)
    drops = Counter(p.kind for p in problems)
    metrics, good = labels.task.default_metrics, usable(rows, faults)
    if fit is None:
        return EvaluationSet(str(path), as_split(good, labels), metrics, labels, None, dict(drops))
    found = as_split(good, LabelSpace(labels.task, tuple(fit.ids)))
    if labels.task.has_label_sets:
        split = _placed(found, _columns_of(fit, str(path)), labels.size)
        return EvaluationSet(str(path), split, metrics, labels, None, dict(drops), assumed)
    split, drops[_LEFT_OUT] = _relabel(found, list(fit.ids.values()))
    return EvaluationSet(str(path), split, metrics, fit.classes, fit.class_map, dict(+drops), assumed)


def _tags_of_set(fit: LabelFit, labels: LabelSpace) -> LabelFit:
    """Return the fit with the set's tag as the name of several of the model's: "B-X or B-Y" would be no tag."""
    of_set = {k: label for label, k in fit.ids.items() if k is not None}
    names = [name if name in labels.names else of_set.get(k, name) for k, name in enumerate(fit.classes.names)]
    return replace(fit, classes=LabelSpace(labels.task, tuple(names)))


def _fit_file(
    names: Sequence[Label | None], labels: LabelSpace, label_map: Mapping[str, Any]
) -> tuple[LabelFit, tuple[str, ...]]:
    """Return the fit of the labels in a file that the model or the map has, and `EvaluationSet.assumed`.

    Other labels are faults of their rows. If no label has the name of a class, all are matched by position.
    """
    found = label_space([n for n in names if n is not None], labels.task).names
    named, _ = pair([str(key) for key in label_map], found)
    given = {str(k): v for k, v in label_map.items() if str(k) in named}
    same, _ = pair(found, labels.names)
    known = {*same, *named.values()}
    if fitting := tuple(n for n in found if n in known):
        return fit_labels(fitting, labels.names, given, set_order=False), ()
    fitting = tuple(numbered(found, labels.names)) or found
    match = match_by_number(fitting, labels.names) or match_by_order(fitting, labels.names)
    if match is None:
        raise DataError(label_mismatch_message(found, labels.names))
    given = {label: labels.names[i] for label, i in zip(fitting, match.ids, strict=True)}
    fit = fit_labels(fitting, labels.names, given, set_order=False)
    return replace(fit, line=match.line(fitting, labels.names)), tuple(sorted(fitting, key=lambda n: fit.ids[n] or 0))


def _check_kind(spec: str, space: LabelSpace, labels: LabelSpace) -> None:
    if space.task.name != labels.task.name:
        raise DataError(
            f"{spec} is a {space.task.name} set, and the model does {labels.task.name}; choose a set of that kind."
        )
