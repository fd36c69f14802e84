"""What is trained on, made ready: rows read, checked and tokenized, or a corpus as blocks of tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.data import DataConfig, DataLocation
from demiglace.console import say
from demiglace.data.rows.dataset import load_dataset, load_unlabelled
from demiglace.data.rows.schema import Dataset
from demiglace.data.tokenize import TokenizedSplit, concatenate, tokenize
from demiglace.evaluation.metrics import METRICS, compute
from demiglace.evaluation.predict import check_lengths, predict
from demiglace.methods.base import Problem


class TrainingData(Protocol):
    """Examples to train and to measure on, whatever they are."""

    @property
    def problem(self) -> Problem:
        """What is to be predicted."""

    @property
    def examples(self) -> Mapping[str, Any]:
        """By split, as `training.loop` takes them."""

    @property
    def lines(self) -> Sequence[tuple[str, int]]:
        """Where each training example was read, as (file, line)."""

    @property
    def choices(self) -> Mapping[str, bool]:
        """The metrics that can choose the best epoch, the usual one first, and whether higher is better."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""

    def metrics(self, split: str, model: PreTrainedModel, precision: str) -> dict[str, float]:
        """The metrics of a model on one split."""


@dataclass(frozen=True)
class TaskData:
    """A data set made ready for one tokenizer."""

    dataset: Dataset
    examples: Mapping[str, TokenizedSplit]
    lines: Sequence[tuple[str, int]]
    unlabelled: int

    @property
    def problem(self) -> Problem:
        """Classification or regression."""
        return self.dataset.labels.problem

    @property
    def choices(self) -> Mapping[str, bool]:
        """The data set's metrics."""
        return {name: METRICS[name].higher_is_better for name in self.dataset.metrics}

    @property
    def facts(self) -> dict[str, Any]:
        """The task, where the hub has it, its labels, whether rows are pairs of texts, and their number by split."""
        rows = {name: len(split) for name, split in self.dataset.splits.items()}
        return {
            "task": self.dataset.name,
            "hub": self.dataset.hub,
            "pairs": self.dataset.splits["train"].pairs is not None,
            "problem": self.problem,
            "labels": list(self.dataset.labels.names),
            "rows": rows | ({"unlabelled": self.unlabelled} if self.unlabelled else {}),
            "drops": dict(self.dataset.drops),
        }

    def metrics(self, split: str, model: PreTrainedModel, precision: str) -> dict[str, float]:
        """The data set's metrics of a model on one split."""
        examples = self.examples[split]
        logits = predict(model, examples, precision=precision)
        return compute(self.dataset.metrics, examples.labels, logits, self.dataset.labels.problem)


def read_rows(source: DataConfig, location: DataLocation) -> Dataset:
    """Read and check the rows; the unlabelled ones are read later, when the columns are known."""
    dataset = load_dataset(source, location)
    counts = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    say(f"{dataset.name}: {counts} rows, {dataset.labels.problem}")
    return dataset


def tokenize_dataset(
    dataset: Dataset, source: DataConfig, tokenizer: PreTrainedTokenizerBase, models: Sequence[PreTrainedModel]
) -> TaskData:
    """Tokenize all splits; unlabelled rows follow the training rows.

    Raises `ConfigError` where a row is longer than one of the models takes.
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
    return TaskData(dataset, examples, lines, unlabelled)
