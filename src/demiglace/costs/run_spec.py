"""The inputs of a cost estimate: `RunSpec`, made from the config of a run, the models' configs and the lengths of rows.

`run_spec` is for `distill` and `finetune` on rows, `language_run_spec` for `distill` and `pretrain` on a corpus. No
weights are loaded, and nothing is written to the run directory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from demiglace.config.command_options import STATIC, DistillConfig, FinetuneConfig, PretrainConfig
from demiglace.config.data import CorpusConfig, DataConfig, DataLocation
from demiglace.config.training import TrainConfig
from demiglace.console import say
from demiglace.costs.corpus_size import estimate_tokens
from demiglace.costs.estimate import CostInputs, Estimate, Speed, estimate
from demiglace.data.batching import forward_tokens
from demiglace.data.rows.dataset import load_unlabelled
from demiglace.data.rows.sampling import select_rows
from demiglace.data.rows.schema import Split
from demiglace.data.text.sources import corpus_files
from demiglace.data.tokenize import tokenize
from demiglace.distillation.classifier import check_generator_options, check_unit
from demiglace.distillation.language_model import check_outputs, check_same_kind, text_method
from demiglace.distillation.static_student import check_static_method, check_static_student, static_config
from demiglace.distillation.student import check_student_choice
from demiglace.distillation.teacher_signals import sparse_target_config
from demiglace.errors import ConfigError, DataError
from demiglace.evaluation.predict import check_longest
from demiglace.losses.language import chunk_size
from demiglace.methods.registry import build_method
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.from_config import (
    check_model_choice,
    classifier_config,
    model_config,
    random_model,
    shape_of_config,
)
from demiglace.models.language_model import is_masked, language_config
from demiglace.models.loading import check_same_vocabulary
from demiglace.models.pooling import HiddenStateKind
from demiglace.models.shape import ModelShape
from demiglace.models.tokenizer import check_ids, load_text_tokenizer, load_tokenizer
from demiglace.models.trimmed_tokenizer import vocabulary_between
from demiglace.models.truncate import choose_layers, truncate_config
from demiglace.models.width import narrow_config
from demiglace.runs.processes import processes
from demiglace.tasks.base import RowTask, Task
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING
from demiglace.training.datasets import choose_max_length, read_rows
from demiglace.training.lm_datasets import block_size, blocks_held_back, blocks_to_train_on, check_training, masking_of
from demiglace.training.run import resolve_precision_and_attention
from demiglace.training.schedule import check_max_steps, check_phases

_MAX_TOKENIZED = 20_000  # rows of a split that are tokenized; the lengths of a larger split are sampled from these


@dataclass(frozen=True)
class Rows:
    """The size of a data set."""

    lengths: Mapping[str, np.ndarray]  # split -> tokens of each row; "train" includes unlabelled rows
    task: Task  # the kind of problem
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class RunSpec:
    """The models, the data and the options of a run."""

    teacher: PreTrainedConfig | None  # None for `finetune` and `pretrain`
    student: PreTrainedConfig
    rows: Rows
    inputs: CostInputs

    @cached_property
    def shapes(self) -> tuple[ModelShape | None, ModelShape]:
        """Return the shapes of teacher and student."""
        student = shape_of_config(self.student, language=self.is_language)
        return None if self.teacher is None else shape_of_config(self.teacher, language=self.is_language), student

    @property
    def is_language(self) -> bool:
        """Return whether the run is on a corpus; its rows are then blocks of equal length."""
        return self.rows.task.reads == "corpus"

    @property
    def poolings(self) -> tuple[HiddenStateKind, ...]:
        """Return how the hidden states that the method needs are pooled."""
        teacher, student = self.shapes
        return () if teacher is None else self.inputs.request(student, teacher).poolings

    def estimate(self, speed: Speed | None = None) -> Estimate:
        """Estimate the cost; raises as `costs.estimate.estimate` does."""
        return estimate(*self.shapes, self.rows.lengths, self.inputs, speed)


def run_spec(config: DistillConfig | FinetuneConfig, rows: Rows, devices: int = 1) -> RunSpec:
    """Return the spec of a run on rows.

    The teacher is counted with a head for the rows' labels, even if it has none yet.

    Args:
        config: of the run.
        rows: its data, as `token_lengths` returns it.
        devices: number of processes.

    Raises:
        ConfigError, ModelError: as the run would, for errors that configs and lengths reveal. Errors that only weights
            reveal (labels, names of --freeze, a generator) are not found.
    """
    task = rows.task
    assert isinstance(task, RowTask)
    if isinstance(config, FinetuneConfig):
        model = classifier_config(config.model, rows.label_names, config.training.dropout, task)
        return _check_lengths(
            RunSpec(None, model, rows, cost_inputs("none", {}, config.training, config.model, devices))
        )
    check_student_choice(config)
    _say_trimming(config)
    teacher = classifier_config(config.teacher, rows.label_names, task=task)
    student = _row_student_config(config, teacher, rows)
    inputs = cost_inputs(config.method, config.method_options, config.training, config.teacher, devices)
    check_generator_options(config, inputs.method)
    check_unit(config, inputs.method, task)
    if config.student == STATIC:
        check_static_method(config.method, inputs.method)
    if config.training.max_steps is None:
        check_phases(config.method, inputs.method, config.training.epochs)
    check_max_steps(config.method, inputs.method, config.training, len(rows.lengths["train"]))
    generator = (
        inputs.method.augmentation.generator if isinstance(inputs.method.augmentation, AdversarialMasking) else None
    )
    inputs = replace(
        inputs,
        cache=config.cache != "off",
        cache_dtype=config.cache_dtype,
        by_word=task.unit == "word",
        generator=shape_of_config(language_config(generator), language=True) if generator else None,
    )
    return _check_lengths(RunSpec(teacher, student, rows, inputs))


def _row_student_config(config: DistillConfig, teacher: PreTrainedConfig, rows: Rows) -> PreTrainedConfig:
    """Return the config of the student of a run on rows."""
    dropout = config.training.dropout
    assert isinstance(rows.task, RowTask)
    if config.student == STATIC:
        check_static_student(rows.task)
        return static_config(teacher, load_tokenizer(config.teacher), config.embedding_size, dropout)
    student = classifier_config(config.student or config.teacher, rows.label_names, dropout, rows.task)
    return student if config.student else _student_config(config, teacher, student)


def _student_config(config: DistillConfig, teacher: PreTrainedConfig, student: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of the student that is truncated and pruned from a model as large as the teacher."""
    sizes = config.width.sizes
    keep = choose_layers(teacher, config.layers, config.strategy, config.keep, all_by_default=bool(sizes))
    truncated = truncate_config(student, keep)
    return narrow_config(truncated, **sizes) if sizes else truncated


def _say_trimming(config: DistillConfig) -> None:
    """Print that the tokens which --vocabulary trim removes are counted."""
    if config.trimming.vocabulary == "trim":
        say("the estimate is for a student with the full vocabulary; with --vocabulary trim it is smaller.")


def _check_lengths(spec: RunSpec) -> RunSpec:
    """Return the spec. Raises `ConfigError` if a row is longer than a model allows."""
    for shape in filter(None, spec.shapes):
        for lengths in spec.rows.lengths.values():
            check_longest(shape.max_positions, lengths)
    return spec


def cost_inputs(
    method: str, options: Mapping[str, object], training: TrainConfig, model: str | PreTrainedConfig, devices: int
) -> CostInputs:
    """Return the cost inputs of a run.

    Args:
        method: name of the method.
        options: of the method.
        training: options of the training.
        model: the model, or the config of a new one, that decides precision and attention.
        devices: number of processes.
    """
    built = build_method(method, options)
    precision, attention = resolve_precision_and_attention(training, model)
    return CostInputs(
        method=built,
        training=training,
        precision=precision,
        attention=attention,
        pass_tokens=forward_tokens(processes().device),
        devices=devices,
    )


def models_of(config: DistillConfig | FinetuneConfig) -> tuple[str, ...]:
    """Return the models whose limits bound the rows of a run; the tokenizer is that of the first."""
    if isinstance(config, FinetuneConfig):
        return (config.model,)
    return (config.teacher, config.student) if config.student and config.student != STATIC else (config.teacher,)


def token_lengths(
    source: DataConfig, location: DataLocation, model: str, *others: str, distilled: bool = False
) -> Rows:
    """Read the rows and measure their lengths with the model's tokenizer; raises as `read_rows` does.

    others: further models that bound the default of --max-length.

    Of a split with more than 20,000 rows, 20,000 are tokenized and the lengths of all rows are sampled from these.
    """
    dataset, tokenizer = read_rows(source, location, model, distilled=distilled), load_tokenizer(model)
    max_length, _ = choose_max_length(source, dataset, tokenizer, model, *others)

    def lengths(split: Split) -> np.ndarray:
        generator = np.random.default_rng(0)
        if len(split) <= _MAX_TOKENIZED:
            return tokenize(split, tokenizer, max_length).lengths
        sample = select_rows(split, generator.permutation(len(split))[:_MAX_TOKENIZED])
        return generator.choice(tokenize(sample, tokenizer, max_length).lengths, len(split))

    by_split = {name: lengths(split) for name, split in dataset.splits.items()}
    if (more := load_unlabelled(source, dataset)) is not None:
        by_split["train"] = np.concatenate([by_split["train"], lengths(more)])
    return Rows(by_split, dataset.labels.task, dataset.labels.names)


def language_run_spec(config: DistillConfig | PretrainConfig, devices: int = 1) -> RunSpec:
    """Return the spec of a run on a corpus; log the number of tokens if it is estimated.

    The tokens of a corpus of more than a few megabytes are estimated from a part.

    Args:
        config: of the run.
        devices: number of processes.

    Raises:
        UserError: as the run would, for errors that do not need weights.
    """
    if not config.text.corpus:
        raise ConfigError("--corpus must be given: files, folders or globs of documents.")
    check_training(config.training)
    return _distill_spec(config, devices) if isinstance(config, DistillConfig) else _pretrain_spec(config, devices)


def _pretrain_spec(config: PretrainConfig, devices: int) -> RunSpec:
    check_model_choice(config)
    tokenizer = load_text_tokenizer(config.model or config.tokenizer or str(config.architecture))
    model = model_config(config, tokenizer)
    inputs = cost_inputs("none", {}, config.training, model, devices)
    return _language_spec(None, model, config, tokenizer, inputs, [_language_shape(model, tokenizer)])


def _distill_spec(config: DistillConfig, devices: int) -> RunSpec:
    check_student_choice(config)
    text_method(config)
    tokenizer = load_text_tokenizer(config.teacher)
    of_student = load_text_tokenizer(config.student) if config.student else tokenizer
    trimmed = vocabulary_between(tokenizer, of_student)
    if trimmed is None:
        check_same_vocabulary(tokenizer, of_student, padded=False)
    _say_trimming(config)
    teacher = language_config(config.teacher)
    if trimmed is not None:  # the teacher reads the student's tokens
        teacher.vocab_size, tokenizer = len(trimmed), of_student
    student = language_config(config.student or config.teacher, config.training.dropout)
    check_same_kind(teacher, student)
    if not config.student:
        student = _student_config(config, teacher, student)
    inputs = cost_inputs(config.method, config.method_options, config.training, config.teacher, devices)
    shapes = _language_shape(student, tokenizer), _language_shape(teacher, tokenizer)
    check_outputs(inputs.method, *shapes)
    sparse_logits = sparse_target_config(config, inputs.method, *shapes, masked=is_masked(student))
    inputs = replace(
        inputs, cache=sparse_logits is not None, sparse_logits=sparse_logits, cache_dtype=config.cache_dtype
    )
    return _language_spec(teacher, student, config, tokenizer, inputs, shapes)


def _language_spec(
    teacher: PreTrainedConfig | None,
    student: PreTrainedConfig,
    config: DistillConfig | PretrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    inputs: CostInputs,
    shapes: Sequence[ModelShape],
) -> RunSpec:
    size = block_size(config.text.block_size, shapes)
    masking = masking_of(student, tokenizer, config.mlm_probability, config.training.seed)
    predicted = 1.0 if masking is None else max(1, round(masking.share * size)) / size
    chunk = chunk_size(student.vocab_size, processes().device.type)
    blocks = _blocks(config.text, size, tokenizer)
    if isinstance(config, DistillConfig):
        check_max_steps(config.method, inputs.method, config.training, blocks["train"], least=1)
    lengths = {name: np.broadcast_to(np.int64(size), count) for name, count in blocks.items()}
    rows = Rows(lengths, LANGUAGE_MODELLING, ())
    return RunSpec(teacher, student, rows, replace(inputs, predicted=predicted, chunk=chunk))


def _language_shape(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> ModelShape:
    """Return the shape of a language model. Raises `ModelError` if its vocabulary lacks tokens of the tokenizer."""
    model = random_model(config, torch.device("meta"), language=True)
    check_ids(model, tokenizer)
    return ModelShape.of(model)


def _blocks(config: CorpusConfig, size: int, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return split -> number of blocks, as `training.lm_datasets` will make them."""
    blocks = _count_blocks(config.corpus, config, size, tokenizer)
    if config.validation_corpus:
        held = min(config.validation_blocks, _count_blocks(config.validation_corpus, config, size, tokenizer))
    else:
        held = blocks_held_back(blocks, size, config)
        blocks -= held
    return {"train": blocks_to_train_on(blocks, size, config), "validation": held}


def _count_blocks(given: tuple[str, ...], config: CorpusConfig, size: int, tokenizer: PreTrainedTokenizerBase) -> int:
    files = corpus_files(given)
    tokens, is_counted = estimate_tokens(files, tokenizer, config.reading)
    if not is_counted:
        say(f"{', '.join(given)}: about {tokens:,} tokens, estimated from a part")
    if tokens <= size:
        raise DataError(
            f"the corpus has {tokens:,} tokens, fewer than one block of {size} and one token to predict; give more "
            "text or a smaller --block-size."
        )
    return (tokens - 1) // size
