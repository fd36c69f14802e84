"""Rows made ready to be trained on: read, checked, tokenised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.console import say
from demiglace.data.config import DataConfig, DataLocation
from demiglace.data.dataset import load_dataset, load_unlabelled
from demiglace.data.rows import Dataset
from demiglace.data.tokenise import Examples, concatenate, tokenise
from demiglace.evaluation.metrics import compute
from demiglace.evaluation.predict import check_lengths, predict


@dataclass(frozen=True)
class Material:
    """A data set made ready for one tokenizer. lines: where each training example was read, as (file, line)."""

    dataset: Dataset
    examples: Mapping[str, Examples]
    lines: Sequence[tuple[str, int]]
    unlabelled: int

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


def make_material(
    dataset: Dataset, source: DataConfig, tokenizer: PreTrainedTokenizerBase, models: Sequence[PreTrainedModel]
) -> Material:
    """Tokenise all splits; unlabelled rows follow the training rows.

    Raises `ConfigError` where a row is longer than one of the models takes.
    """
    examples = {name: tokenise(split, tokenizer, source.max_length) for name, split in dataset.splits.items()}
    lines = list(dataset.splits["train"].lines)
    unlabelled = 0
    if source.unlabelled:
        split = load_unlabelled(source, dataset)
        examples["train"] = concatenate(examples["train"], tokenise(split, tokenizer, source.max_length))
        lines += split.lines
        unlabelled = len(split)
        say(f"and {unlabelled:,} rows without labels")
    for model in models:
        for rows in examples.values():
            check_lengths(model, rows)
    return Material(dataset, examples, lines, unlabelled)
