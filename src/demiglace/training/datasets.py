"""Training data: rows that are read, checked and tokenized. A corpus has `training.lm_datasets`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.data import DataConfig, DataLocation
from demiglace.console import say
from demiglace.data.rows.dataset import load_dataset, load_unlabelled
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.schema import Dataset
from demiglace.data.tokenize import TokenizedSplit, concatenate, tokenize
from demiglace.errors import DataError, ModelError
from demiglace.evaluation.predict import check_lengths, predict
from demiglace.evaluation.scores import compute
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

    @property
    def task(self) -> RowTask:
        """Return the kind of problem."""
        return self.dataset.labels.task

    @property
    def selection_metrics(self) -> Mapping[str, bool]:
        """Return the data set's metrics, and whether higher is better."""
        return {name: self.task.metrics[name].higher_is_better for name in self.dataset.metrics}

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
            **_words(self.examples),
        }

    def fit_decision_rule(self, model: PreTrainedModel, precision: str) -> dict[str, Any]:
        """Fit the kind's decision rule to the validation rows, keep it in the model's config, and return it.

        Without effect on a kind whose rule is fixed.
        """
        if not self.task.fits_decision_rule:
            return {}
        examples = self.examples["validation"]
        task = self.task.fitted(examples.labels, predict(model, examples, precision=precision))
        set_decision_rule(model.config, task)
        return task.decision_rule()

    def metrics(self, split: str, model: PreTrainedModel, precision: str) -> dict[str, float]:
        """Return the data set's metrics of a model on one split.

        A decision rule is fitted to the validation rows; other rows are decided by the rule in the model's config.
        """
        examples = self.examples[split]
        logits = predict(model, examples, precision=precision)
        if split == "validation":
            task = self.task.fitted(examples.labels, logits)
        else:
            task = self.task.with_decision_rule(decision_rule_of(model.config))
        return compute(self.dataset.metrics, examples.labels, logits, task.with_names(self.dataset.labels.names))


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


def read_rows(source: DataConfig, location: DataLocation, model: str) -> Dataset:
    """Read and check the labelled rows, and print how many there are.

    model: the teacher, or the model to fine-tune, see `with_problem_of`. Raises `DataError` for rows with one label
    each that only the model turns into lists.
    """
    known = with_problem_of(source, model)
    if known is not source:
        say(f"the config of {model} has the problem type of {known.problem} data: labels are read as lists.")
    dataset = load_dataset(known, location)
    if known is not source and (dataset.splits["train"].labels.sum(axis=1) == 1).all():
        raise DataError(
            f"{source.data}: every row has one label, and the config of {model} names a model for rows with any number "
            "of labels (multi_label_classification), whose outputs are independent. For rows of one class each take a "
            "model for classification; to train on lists of one label give --problem multi-label."
        )
    counts = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    say(f"{dataset.name}: {counts} rows, {dataset.labels.task.name}")
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
    if source.unlabelled:
        split = load_unlabelled(source, dataset)
        examples["train"] = concatenate(examples["train"], tokenize(split, tokenizer, source.max_length))
        lines += split.lines
        unlabelled = len(split)
        say(f"and {unlabelled:,} rows without labels")
    for model in models:
        for rows in examples.values():
            check_lengths(model, rows)
    for name, rows in examples.items():
        if line := rows.lost_words_line(source.max_length):
            say(f"{name}: {line}")
    return TaskData(dataset, examples, lines, unlabelled)
