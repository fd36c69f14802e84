"""The inputs of a compression, read and checked before anything is measured: model, rows, tokenizer."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from demiglace.compress.candidates import Vocabulary
from demiglace.config.command_options import CompressConfig
from demiglace.config.data import ReadConfig
from demiglace.console import notice, say
from demiglace.data.rows.dataset import load_unlabelled
from demiglace.data.rows.hub import is_hub
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.readers import check_is_file
from demiglace.data.rows.sampling import draw, select_rows
from demiglace.data.rows.schema import Dataset
from demiglace.data.rows.units import units_of
from demiglace.data.text.vocabulary_texts import vocabulary_files, vocabulary_texts
from demiglace.data.tokenize import tokenize
from demiglace.distillation.vocabulary import texts_of
from demiglace.errors import ConfigError, ModelError
from demiglace.export.base import Inputs
from demiglace.export.parity import numpy_batches
from demiglace.labels import match_teacher
from demiglace.models.files import fingerprint_model, load_config, resolve_model
from demiglace.models.from_config import classifier_config
from demiglace.models.labels import label_space_of
from demiglace.models.sentence_modules import module_directory
from demiglace.models.shape import HEADS
from demiglace.models.tokenizer import load_tokenizer
from demiglace.models.trimmed_tokenizer import trim_tokenizer
from demiglace.models.vocabulary import TrimmedVocabulary, token_counts, trim_vocabulary
from demiglace.runs.files import fingerprint, write_atomically
from demiglace.tasks.base import RowTask
from demiglace.training.datasets import choose_max_length, read_rows

MEASURED_ROWS = 256  # validation rows whose latency is measured, as in `demiglace export`


@dataclass(frozen=True)
class StudentTokens:
    """The tokens of students, and rows in them."""

    tokenizer: PreTrainedTokenizerBase
    rows: list[Inputs]  # validation rows on which latency is measured, one in each batch
    vocabulary: TrimmedVocabulary | None = None  # which of the model's tokens they are; None: all


@dataclass(frozen=True)
class CompressionInputs:
    """The model to compress and the rows of its task."""

    path: str  # of the model
    is_classifier: bool  # whether it is the teacher; otherwise it is fine-tuned first
    config: PreTrainedConfig  # of the teacher, with the head for the labels of the rows
    tokenizer: PreTrainedTokenizerBase
    dataset: Dataset
    max_length: int  # tokens of a row

    @property
    def task(self) -> RowTask:
        """Return the kind of problem."""
        return self.dataset.labels.task

    @property
    def metric(self) -> str:
        """Return the metric that chooses."""
        return self.dataset.metrics[0]

    def tokens(self, config: CompressConfig) -> dict[Vocabulary, StudentTokens]:
        """Return the tokens of students with the full vocabulary and, unless it is excluded, with a trimmed one.

        The trimmed vocabulary is that of `demiglace distill --vocabulary trim`. A tokenizer that cannot be trimmed
        leaves the full one alone, with a line that says why, unless --vocabulary trim was given.
        """
        found: dict[Vocabulary, StudentTokens] = {"full": self._tokens(self.tokenizer)}
        if config.vocabulary == "full":
            return found
        try:
            used = token_counts(self.tokenizer, self._training_texts(config))
            vocabulary = trim_vocabulary(self.tokenizer, used, self.config, size=config.vocabulary_size)
            found["trim"] = self._tokens(trim_tokenizer(self.tokenizer, vocabulary), vocabulary)
        except ModelError as error:
            if config.vocabulary == "trim":
                raise
            notice("vocabulary", f"The vocabulary is not trimmed: {error}")
            return found
        say(vocabulary.line)
        return found

    def _tokens(self, tokenizer: PreTrainedTokenizerBase, vocabulary: TrimmedVocabulary | None = None) -> StudentTokens:
        rows = self.dataset.splits["validation"]
        rows = units_of(select_rows(rows, draw(len(rows), MEASURED_ROWS)), self.task)
        return StudentTokens(tokenizer, numpy_batches(tokenize(rows, tokenizer, self.max_length), 1), vocabulary)

    def _training_texts(self, config: CompressConfig) -> Iterator[str]:
        unlabelled = load_unlabelled(config.source, self.dataset)
        yield from texts_of([self.dataset.splits["train"], *([] if unlabelled is None else [unlabelled])])
        yield from vocabulary_texts(vocabulary_files(config.vocabulary_corpus or ()), ReadConfig(), Counter())

    def write_validation(self, file: Path) -> str:
        """Write the validation rows, without labels, as JSON lines with columns of usual names; return the path."""
        rows = self.dataset.splits["validation"]
        if rows.words is not None:
            return _write_lines(({"tokens": list(words)} for words in rows.words), file)
        if rows.pairs is not None:
            pairs = zip(rows.texts, rows.pairs, strict=True)
            return _write_lines(({"sentence1": first, "sentence2": second} for first, second in pairs), file)
        return _write_lines(({"text": text} for text in rows.texts), file)

    def write_unlabelled(self, config: CompressConfig, file: Path) -> str:
        """Write the texts of --unlabelled that students train on as JSON lines; return the path."""
        unlabelled = load_unlabelled(config.source, self.dataset)
        return _write_lines(({"text": text} for text in texts_of([unlabelled] if unlabelled else [])), file)

    def fingerprints(self, config: CompressConfig) -> dict[str, str]:
        """Return the fingerprint of each input, for the run directory."""
        found = {"model": fingerprint_model(self.path), "data": self.dataset.fingerprint}
        if config.source.unlabelled:
            found["unlabelled"] = fingerprint(config.source.unlabelled)
        return found | {"max_length": str(self.max_length)}


def read_inputs(config: CompressConfig) -> CompressionInputs:
    """Read model config, tokenizer and rows.

    Raises `ModelError` for a classifier of other labels, `ConfigError` for rows without labels, and other `UserError`s
    as reading model and rows does.
    """
    path = resolve_model(config.model)
    model = load_config(path)
    if not config.source.data:
        raise ConfigError("compress needs rows with labels, to train and to choose on; give --data TASK_OR_FILE.")
    for spec in config.source.unlabelled or ():
        if is_hub(spec):  # its texts also choose the kept tokens, and those are read from files
            raise ConfigError(f"--unlabelled {spec} was given, and compress reads unlabelled rows from files.")
        check_is_file(spec)
    dataset = read_rows(config.source, config.location, config.model)
    task = dataset.labels.task
    if task.separate_texts:
        raise ConfigError(
            f"--problem {task.name} was given, and compress is for tasks with labels; compress a sentence encoder with "
            "`demiglace distill` and `demiglace export`."
        )
    is_classifier = has_head(path, model)
    if is_classifier:
        labels = label_space_of(path)
        if labels.task.name != task.name:
            raise ModelError(
                f"{config.model} is a model for {labels.task.name}, and the rows are for {task.name}; give rows of the "
                "model's kind, or an encoder without a head, which is fine-tuned on the rows."
            )
        if task.has_classes or task.has_label_sets:
            match_teacher(dataset.labels.names, labels.names, config.label_map)
        _warn_of_split_off(config)
    else:
        say(f"{config.model} has no head for a task yet: it is fine-tuned on the rows first, and becomes the teacher.")
    head = classifier_config(path, dataset.labels.names, None, task)
    tokenizer = load_tokenizer(path)
    max_length, _ = choose_max_length(config.source, dataset, tokenizer, config.model)
    return CompressionInputs(path, is_classifier, head, tokenizer, dataset, max_length)


def _write_lines(rows: Iterable[dict[str, Any]], file: Path) -> str:
    write_atomically(file, "\n".join(map(json.dumps, rows)).encode())
    return str(file)


def has_head(path: str, config: PreTrainedConfig) -> bool:
    """Return whether a model has a head of a task; one of sentence-transformers has none."""
    return module_directory(path) is None and str((config.architectures or [""])[0]).endswith(HEADS)


def _warn_of_split_off(config: CompressConfig) -> None:
    """Warn if the validation rows are split off rows on which the given model may have been trained."""
    source = config.source
    if source.validation is None and source.data not in TASKS:
        notice(
            "validation rows",
            f"the validation rows are split off {source.data}. If {config.model} was trained on all rows of that file, "
            "it knows them, and its quality is overestimated; give rows that it does not know as --validation.",
        )
