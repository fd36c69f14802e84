"""Training data: rows that are read, checked and tokenized. A corpus has `training.lm_datasets`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.data import DataConfig, DataLocation
from demiglace.console import say
from demiglace.data.rows.dataset import load_dataset, load_unlabelled
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.schema import Dataset
from demiglace.data.rows.user_files import AGREEMENT
from demiglace.data.tokenize import TokenizedSplit, concatenate, tokenize
from demiglace.errors import DataError
from demiglace.evaluation.predict import check_lengths, predict
from demiglace.evaluation.scores import agreement, compute
from demiglace.models.labels import decision_rule_of, label_space_of, set_decision_rule
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
    teacher_logits: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By split, [N, C]: what the student is scored by where rows have no labels."""

    @property
    def task(self) -> RowTask:
        """Return the kind of problem."""
        return self.dataset.labels.task

    @property
    def selection_metrics(self) -> Mapping[str, bool]:
        """Return the data set's metrics, and whether higher is better."""
        known = self.task.metrics
        return {name: known[name].higher_is_better if name in known else True for name in self.dataset.metrics}

    @property
    def manifest_fields(self) -> dict[str, Any]:
        """Return name, Hub path, kind and labels of the data set, whether rows are pairs, and their number by split."""
        rows = {name: len(split) for name, split in self.dataset.splits.items()}
        return {
            "task": self.dataset.name,
            "hub": self.dataset.hub,
            "pairs": self.dataset.splits["train"].pairs is not None,
            "problem": self.task.name,
            "labels": list(self.dataset.labels.names),
            "rows": rows | ({"unlabelled": self.unlabelled} if self.unlabelled else {}),
            "drops": dict(self.dataset.drops),
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

    def with_teacher(self, teacher: PreTrainedModel, precision: str) -> "TaskData":
        """Return the data with the teacher's logits of all rows that the student is scored on, if none has a label."""
        if self.dataset.labelled:
            return self
        scored = {name: rows for name, rows in self.examples.items() if name != "train"}
        logits = {name: predict(teacher, rows, precision=precision) for name, rows in scored.items()}
        return replace(self, teacher_logits=logits)

    def metrics(self, split: str, model: PreTrainedModel, precision: str) -> dict[str, float]:
        """Return the data set's metrics of a model on one split; without labels, its agreement with the teacher.

        A decision rule is fitted to the validation rows; other rows are decided by the rule in the model's config.
        """
        examples = self.examples[split]
        logits = predict(model, examples, precision=precision)
        if not self.dataset.labelled:
            return {AGREEMENT: agreement(logits, self.teacher_logits[split], self.task)}
        if split == "validation":
            task = self.task.fitted(examples.labels, logits)
        else:
            task = self.task.with_decision_rule(decision_rule_of(model.config))
        return compute(self.dataset.metrics, examples.labels, logits, task)


def with_problem_of(source: DataConfig, model: str) -> DataConfig:
    """Return the options of the rows with the kind of the model, where only the model reveals it.

    A text cell of a file may be one label or several. It holds several for a model with multi_label_classification in
    its config, unless --problem is given.
    """
    if source.problem != "auto" or source.data in TASKS:
        return source
    task = label_space_of(model).task
    return replace(source, problem=task.name) if task.has_label_sets else source


def read_rows(source: DataConfig, location: DataLocation, model: str, *, distilled: bool = False) -> Dataset:
    """Read and check the rows, and print how many there are.

    model: the teacher, or the model to fine-tune, see `with_problem_of`; distilled: whether it is a teacher, so that
    rows need no labels. Raises `DataError` for rows with one label
    each that only the model turns into lists.
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


def tokenize_dataset(
    dataset: Dataset, source: DataConfig, tokenizer: PreTrainedTokenizerBase, models: Sequence[PreTrainedModel]
) -> TaskData:
    """Tokenize all splits; unlabelled rows are appended to the training rows.

    Raises `ConfigError` if a row is longer than one of the models allows.
    """
    examples = {name: tokenize(split, tokenizer, source.max_length) for name, split in dataset.splits.items()}
    lines = list(dataset.splits["train"].lines)
    unlabelled = 0
    if source.unlabelled and dataset.labelled:
        split = load_unlabelled(source, dataset)
        examples["train"] = concatenate(examples["train"], tokenize(split, tokenizer, source.max_length))
        lines += split.lines
        unlabelled = len(split)
        say(f"and {unlabelled:,} rows without labels")
    for model in models:
        for rows in examples.values():
            check_lengths(model, rows)
    return TaskData(dataset, examples, lines, unlabelled)
