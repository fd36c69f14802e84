"""What a planned run is about, from configs of models and the lengths of rows: no weights, no writing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from demiglace.config.commands import DistillConfig, FinetuneConfig, PretrainConfig
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
from demiglace.data.tokenise import tokenise
from demiglace.distillation.classifier import check_sharding
from demiglace.distillation.language_model import check_outputs, check_same_kind, text_method
from demiglace.distillation.student import check_student_choice
from demiglace.distillation.teacher_signals import sparse_target_config
from demiglace.errors import ConfigError, DataError
from demiglace.evaluation.predict import check_longest
from demiglace.losses.language import chunk_size
from demiglace.methods.base import Problem
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
from demiglace.models.truncate import choose_layers, truncate_config
from demiglace.runs.processes import processes
from demiglace.training.datasets import read_rows
from demiglace.training.lm_datasets import block_size, blocks_held_back, blocks_to_train_on, check_training, masking_of
from demiglace.training.run import resolve_precision_and_attention
from demiglace.training.schedule import check_phases

_TOKENISED = 20_000  # rows of a split whose lengths are measured; those of more rows are drawn from them


@dataclass(frozen=True)
class Rows:
    """A data set as far as cost goes: tokens of each row by split (unlabelled ones among "train"), and its labels."""

    lengths: Mapping[str, np.ndarray]
    problem: Problem
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class RunSpec:
    """The models of a run, its rows, and how it is to go. teacher: none for `finetune` and `pretrain`."""

    teacher: PreTrainedConfig | None
    student: PreTrainedConfig
    rows: Rows
    setup: CostInputs

    @cached_property
    def shapes(self) -> tuple[ModelShape | None, ModelShape]:
        """Teacher's and student's."""
        student = shape_of_config(self.student, language=self.is_language)
        return None if self.teacher is None else shape_of_config(self.teacher, language=self.is_language), student

    @property
    def is_language(self) -> bool:
        """Whether it is on a corpus; its rows are then blocks of one length."""
        return self.rows.problem == "language"

    @property
    def poolings(self) -> tuple[HiddenStateKind, ...]:
        """How the hidden states that the method asks for are pooled."""
        teacher, student = self.shapes
        return () if teacher is None else self.setup.request(student, teacher).poolings

    def estimate(self, speed: Speed | None = None) -> Estimate:
        """What it costs; raises as `costs.estimate.estimate` does."""
        return estimate(*self.shapes, self.rows.lengths, self.setup, speed)


def run_spec(config: DistillConfig | FinetuneConfig, rows: Rows, devices: int = 1) -> RunSpec:
    """The subject of a run with this config. Raises the run's own `ConfigError`s and `ModelError`s where configs
    and lengths tell; what only weights tell (labels, names of --freeze, a generator) is left to the run.

    The teacher need not have a head for the rows' labels yet: it is counted with one.
    """
    if isinstance(config, FinetuneConfig):
        model = classifier_config(config.model, rows.label_names, config.training.dropout)
        return _checked(RunSpec(None, model, rows, setup_of("none", {}, config.training, config.model, devices)))
    check_student_choice(config)
    teacher = classifier_config(config.teacher, rows.label_names)
    student = classifier_config(config.student or config.teacher, rows.label_names, config.training.dropout)
    if not config.student:
        keep = choose_layers(teacher.num_hidden_layers, config.layers, config.strategy, config.keep)
        student = truncate_config(student, keep)
    setup = setup_of(config.method, config.method_options, config.training, config.teacher, devices)
    check_sharding(config, setup.method)
    check_phases(config.method, setup.method, config.training.epochs)
    named = setup.method.augmentation.generator if isinstance(setup.method.augmentation, AdversarialMasking) else None
    setup = replace(
        setup,
        cache=config.cache != "off",
        cache_dtype=config.cache_dtype,
        generator=shape_of_config(language_config(named), language=True) if named else None,
    )
    return _checked(RunSpec(teacher, student, rows, setup))


def _checked(subject: RunSpec) -> RunSpec:
    for shape in filter(None, subject.shapes):
        for lengths in subject.rows.lengths.values():
            check_longest(shape, lengths)
    return subject


def setup_of(
    method: str, options: Mapping[str, object], training: TrainConfig, model: str | PreTrainedConfig, devices: int
) -> CostInputs:
    """How a run goes whose numeric choices are those of `model`, a model or the config of a new one."""
    made = build_method(method, options)
    precision, attention = resolve_precision_and_attention(training, model)
    return CostInputs(
        method=made,
        training=training,
        precision=precision,
        attention=attention,
        pass_tokens=forward_tokens(processes().device),
        devices=devices,
    )


def token_lengths(source: DataConfig, location: DataLocation, model: str) -> Rows:
    """Read the rows and measure their lengths with the model's tokenizer; raises as `read_rows` does.

    Of a split of more than 20,000 rows as many are tokenised, and the lengths of all are drawn from theirs.
    """
    dataset, tokenizer = read_rows(source, location), load_tokenizer(model)

    def lengths(split: Split) -> np.ndarray:
        generator = np.random.default_rng(0)
        if len(split) <= _TOKENISED:
            return tokenise(split, tokenizer, source.max_length).lengths
        sample = select_rows(split, generator.permutation(len(split))[:_TOKENISED])
        return generator.choice(tokenise(sample, tokenizer, source.max_length).lengths, len(split))

    found = {name: lengths(split) for name, split in dataset.splits.items()}
    if source.unlabelled:
        found["train"] = np.concatenate([found["train"], lengths(load_unlabelled(source, dataset))])
    return Rows(found, dataset.labels.problem, dataset.labels.names)


def text_subject(config: DistillConfig | PretrainConfig, devices: int = 1) -> RunSpec:
    """The subject of a run on a corpus. Raises those `UserError`s of the run that need no weights.

    Of a corpus of more than a few megabytes the tokens are told from a part of it; the user hears how many.
    """
    if not config.text.corpus:
        raise ConfigError("--corpus must be given: files, folders or globs of documents.")
    check_training(config.training)
    return _of_distill(config, devices) if isinstance(config, DistillConfig) else _of_pretrain(config, devices)


def _of_pretrain(config: PretrainConfig, devices: int) -> RunSpec:
    check_model_choice(config)
    tokenizer = load_text_tokenizer(config.model or config.tokenizer or str(config.architecture))
    model = model_config(config, tokenizer)
    setup = setup_of("none", {}, config.training, model, devices)
    return _subject(None, model, config, tokenizer, setup, [_checked_shape(model, tokenizer)])


def _of_distill(config: DistillConfig, devices: int) -> RunSpec:
    check_student_choice(config)
    text_method(config)
    tokenizer = load_text_tokenizer(config.teacher)
    if config.student:
        check_same_vocabulary(tokenizer, load_text_tokenizer(config.student), padded=False)
    teacher = language_config(config.teacher)
    student = language_config(config.student or config.teacher, config.training.dropout)
    check_same_kind(teacher, student)
    if not config.student:
        keep = choose_layers(teacher.num_hidden_layers, config.layers, config.strategy, config.keep)
        student = truncate_config(student, keep)
    setup = setup_of(config.method, config.method_options, config.training, config.teacher, devices)
    shapes = _checked_shape(student, tokenizer), _checked_shape(teacher, tokenizer)
    check_outputs(setup.method, *shapes)
    telling = sparse_target_config(config, setup.method, *shapes, masked=is_masked(student))
    setup = replace(setup, cache=telling is not None, telling=telling, cache_dtype=config.cache_dtype)
    return _subject(teacher, student, config, tokenizer, setup, shapes)


def _subject(
    teacher: PreTrainedConfig | None,
    student: PreTrainedConfig,
    config: DistillConfig | PretrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    setup: CostInputs,
    shapes: Sequence[ModelShape],
) -> RunSpec:
    size = block_size(config.text.block_size, shapes)
    masking = masking_of(student, tokenizer, config.mlm_probability, config.training.seed)
    predicted = 1.0 if masking is None else max(1, round(masking.share * size)) / size
    chunk = chunk_size(student.vocab_size, processes().device.type)
    blocks = _blocks(config.text, size, tokenizer)
    lengths = {name: np.broadcast_to(np.int64(size), count) for name, count in blocks.items()}
    rows = Rows(lengths, "language", ())
    return RunSpec(teacher, student, rows, replace(setup, predicted=predicted, chunk=chunk))


def _checked_shape(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> ModelShape:
    """The shape of a language model that knows all of the tokenizer's tokens."""
    model = random_model(config, torch.device("meta"), language=True)
    check_ids(model, tokenizer)
    return ModelShape.of(model)


def _blocks(config: CorpusConfig, size: int, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Blocks by split, as `corpus_material.make_blocks` will make them."""
    blocks = _count(config.corpus, config, size, tokenizer)
    if config.validation_corpus:
        held = min(config.validation_blocks, _count(config.validation_corpus, config, size, tokenizer))
    else:
        held = blocks_held_back(blocks, size, config)
        blocks -= held
    return {"train": blocks_to_train_on(blocks, size, config), "validation": held}


def _count(given: tuple[str, ...], config: CorpusConfig, size: int, tokenizer: PreTrainedTokenizerBase) -> int:
    files = corpus_files(given)
    tokens, is_counted = estimate_tokens(files, tokenizer, config.reading)
    if not is_counted:
        say(f"{', '.join(given)}: about {tokens:,} tokens, told from a part of it")
    if tokens <= size:
        raise DataError(
            f"the corpus has {tokens:,} tokens, fewer than one block of {size} and the token behind it; give more text "
            "or a smaller --block-size."
        )
    return (tokens - 1) // size
