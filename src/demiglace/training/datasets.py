"""Training data: rows that are read, checked and tokenized. A corpus has `training.lm_datasets`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.data import DataConfig, DataLocation
from demiglace.console import say
from demiglace.data.lengths import default_max_length, report_cut
from demiglace.data.rows.dataset import load_dataset, load_unlabelled
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.schema import AGREEMENT, Dataset, Split
from demiglace.data.rows.units import outputs_of_rows, units_of
from demiglace.data.tokenize import TokenizedSplit, concatenate, tokenize
from demiglace.errors import DataError, ModelError
from demiglace.evaluation.predict import check_lengths, predict
from demiglace.evaluation.scores import agreement, compute
from demiglace.models.labels import decision_rule_of, label_space_of, set_decision_rule
from demiglace.models.max_length import most_tokens
from demiglace.tasks.base import RowTask, Task


class TrainingData(Protocol):
    """Examples to train on and to evaluate on: rows or blocks of a corpus."""

    @property
    def task(self) -> Task:
        """Return the kind of problem."""

    @property
    def examples(self) -> Mapping[str, Any]:
        """Return the examples of each split, in the form that `training.loop` takes."""

    @property
    def lines(self) -> Sequence[tuple[str, int]]:
        """Return where each training example was read: file, line."""

    @property
    def selection_metrics(self) -> Mapping[str, bool]:
        """Return the metrics that can select the best epoch, the default first, and whether higher is better."""

    @property
    def manifest_fields(self) -> dict[str, Any]:
        """Return the fields of the manifest that describe the data."""

    def fit_decision_rule(self, model: PreTrainedModel, precision: str) -> dict[str, Any]:
        """Fit the kind's decision rule to the validation rows, keep it in the model's config, and return it."""

    def metrics(self, split: str, model: PreTrainedModel, precision: str) -> dict[str, float]:
        """Return the metrics of a model on one split."""


@dataclass(frozen=True)
class TaskData:
    """A data set, tokenized for one tokenizer."""

    dataset: Dataset
    examples: Mapping[str, TokenizedSplit]
    lines: Sequence[tuple[str, int]]
    unlabelled: int
    max_length: int  # tokens
    cut: Mapping[str, Mapping[str, int]]  # of each split: rows longer than that, tokens that are not read
    teacher_outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Logits [N, C] of the teacher by split, where a student is validated by its agreement with them."""

    @property
    def task(self) -> RowTask:
        """Return the kind of problem."""
        return self.dataset.labels.task

    @property
    def selection_metrics(self) -> Mapping[str, bool]:
        """Return the data set's metrics, and whether higher is better."""
        metrics = self.task.metrics
        return {name: name == AGREEMENT or metrics[name].higher_is_better for name in self.dataset.metrics}

    @property
    def manifest_fields(self) -> dict[str, Any]:
        """Return name, Hub path, kind and labels of the data set, whether rows are pairs, and their number by split."""
        rows = {name: len(split) for name, split in self.dataset.splits.items()}
        return {
            "task": self.dataset.name,
            "hub": self.dataset.hub,
            **({"data_revision": self.dataset.revision} if self.dataset.revision else {}),
            "pairs": self.dataset.splits["train"].pairs is not None,
            "problem": self.task.name,
            "labels": list(self.dataset.labels.names),
            "rows": rows | ({"unlabelled": self.unlabelled} if self.unlabelled else {}),
            "drops": dict(self.dataset.drops),
            "max_length": self.max_length,
            **({"cut": {name: dict(found) for name, found in self.cut.items()}} if self.cut else {}),
            **_words(self.examples),
        } | ({} if self.dataset.labelled else {"labelled": False})

    def fit_decision_rule(self, model: PreTrainedModel, precision: str) -> dict[str, Any]:
        """Fit the kind's decision rule to the validation rows, keep it in the model's config, and return it.

        Without effect on a kind whose rule is fixed.
        """
        if not (self.task.fits_decision_rule and self.dataset.labelled):
            return {}
        examples = self.examples["validation"]
        task = self.task.fitted(examples.labels, predict(model, examples, precision=precision))
        set_decision_rule(model.config, task)
        return task.decision_rule()

    def metrics(self, split: str, model: PreTrainedModel, precision: str) -> dict[str, float]:
        """Return the data set's metrics of a model on one split; without labels, its agreement with the teacher.

        A decision rule is fitted to the validation rows; other rows are decided by the rule in the model's config.
        """
        logits = predict(model, self.examples[split], precision=precision)
        if split == "validation" and self.dataset.labelled:
            task = self.task.fitted(self.examples[split].labels, logits)
        else:
            task = self.task.with_decision_rule(decision_rule_of(model.config))
        return self.scores(split, logits, task.with_names(self.dataset.labels.names))

    def scores(self, split: str, logits: np.ndarray, task: RowTask) -> dict[str, float]:
        """Return the metrics of a model's logits for a split, and its agreement with the teacher's, if these are here.

        task: with the model's decision rule. Texts without labels have only the agreement.
        """
        rows = self.dataset.splits[split]
        logits, labels = outputs_of_rows(rows, logits), self.examples[split].labels[:: len(logits) // len(rows)]
        names = [name for name in self.dataset.metrics if name != AGREEMENT]
        scores = compute(names, labels, logits, task) if names else {}
        if split in self.teacher_outputs:
            scores[AGREEMENT] = agreement(logits, outputs_of_rows(rows, self.teacher_outputs[split]), task)
        return scores


def _words(examples: Mapping[str, TokenizedSplit]) -> dict[str, Any]:
    """Return by split how many words there are, and how many of them have no token; {} where rows have the labels."""
    by_split = {name: {"total": rows.num_words, "lost": rows.lost_words} for name, rows in examples.items()}
    return {} if any(rows.starts is None for rows in examples.values()) else {"words": by_split}


def with_problem_of(source: DataConfig, model: str) -> DataConfig:
    """Return the options of the rows with the kind of the model, where only the model reveals it.

    A text cell of a file may be one label or several. It holds several for a model with multi_label_classification in
    its config, unless --problem is given.
    """
    if source.problem != "auto" or source.data in TASKS:
        return source
    try:
        task = label_space_of(model).task
    except ModelError:  # reported when the model is loaded, after the rows
        return source
    return replace(source, problem=task.name) if task.has_label_sets else source


def read_rows(source: DataConfig, location: DataLocation, model: str, *, distilled: bool = False) -> Dataset:
    """Read and check the rows, and print how many there are.

    model: the teacher, or the model to fine-tune, see `with_problem_of`; distilled: whether it is a teacher, so that
    rows need no labels. Raises `DataError` for rows with one label each that only the model turns into lists.
    """
    known = with_problem_of(source, model)
    if known is not source:
        say(f"the config of {model} has the problem type of {known.problem} data: labels are read as lists.")
    dataset = load_dataset(known, location, teacher=label_space_of(model) if distilled else None)
    if known is not source and dataset.labelled and (dataset.splits["train"].labels.sum(axis=1) == 1).all():
        raise DataError(
            f"{source.data}: every row has one label, and the config of {model} names a model for rows with any number "
            "of labels (multi_label_classification), whose outputs are independent. For rows of one class each take a "
            "model for classification; to train on lists of one label give --problem multi-label."
        )
    counts = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    say(f"{dataset.name}: {counts} rows, {dataset.labels.task.name}" + ("" if dataset.labelled else ", without labels"))
    return dataset


def choose_max_length(
    source: DataConfig, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *models: str
) -> tuple[int, dict[str, str]]:
    """Return --max-length, by default that of the training rows and the models (`data.lengths`), which is printed.

    Also returns the default as an input of the run, so that a run resumes with the same one only.
    """
    if source.max_length is not None:
        return source.max_length, {}
    units = units_of(dataset.splits["train"], dataset.labels.task)
    length, line = default_max_length(units, tokenizer, most_tokens(*models))
    say(line)
    return length, {"max_length": str(length)}


def splits_to_tokenize(dataset: Dataset, source: DataConfig) -> dict[str, Split]:
    """Return the rows as models read them, by split; the rows of --unlabelled, if there are any, as "unlabelled"."""
    splits = {name: units_of(split, dataset.labels.task) for name, split in dataset.splits.items()}
    if (more := load_unlabelled(source, dataset)) is not None:
        splits["unlabelled"] = more
        say(f"and {len(more):,} rows without labels")
    return splits


def tokenize_splits(
    splits: Mapping[str, Split],
    max_length: int,
    tokenizer: PreTrainedTokenizerBase,
    models: Sequence[PreTrainedModel],
) -> dict[str, TokenizedSplit]:
    """Tokenize all splits, truncated to `max_length` tokens. Raises `ConfigError` as `tokenize_dataset` does."""
    examples = {name: tokenize(split, tokenizer, max_length) for name, split in splits.items()}
    for model in models:
        for rows in examples.values():
            check_lengths(model, rows)
    return examples


def with_unlabelled(examples: Mapping[str, TokenizedSplit]) -> dict[str, TokenizedSplit]:
    """Return the rows by split, with the unlabelled ones appended to the training rows."""
    joined = dict(examples)
    if more := joined.pop("unlabelled", None):
        joined["train"] = concatenate(joined["train"], more)
    return joined


def tokenize_dataset(
    dataset: Dataset,
    splits: Mapping[str, Split],
    max_length: int,
    tokenizer: PreTrainedTokenizerBase,
    models: Sequence[PreTrainedModel],
) -> TaskData:
    """Tokenize all splits, truncated to `max_length` tokens; unlabelled rows are appended to the training rows.

    splits: of `splits_to_tokenize`. Raises `ConfigError` if a row is longer than one of the models allows.
    """
    examples = tokenize_splits(splits, max_length, tokenizer, models)
    cut = report_cut(splits, examples, tokenizer, max_length)
    more = splits["unlabelled"].lines if "unlabelled" in splits else ()
    lines, unlabelled = [*dataset.splits["train"].lines, *more], len(more)
    examples = with_unlabelled(examples)
    for name, rows in examples.items():
        if line := rows.lost_words_line(max_length):
            say(f"{name}: {line}")
    return TaskData(dataset, examples, lines, unlabelled, max_length, cut)
