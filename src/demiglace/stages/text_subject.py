"""What a planned run on a corpus is about, from configs of models and the beginnings of its files."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from demiglace.commands.pretrain import check_model_choice, model_config
from demiglace.config.commands import DistillConfig, PretrainConfig
from demiglace.console import say
from demiglace.costs.corpus_size import estimate_tokens
from demiglace.costs.run_spec import Rows, Setup, Subject, setup_of
from demiglace.data.corpus_config import CorpusConfig
from demiglace.data.text.sources import corpus_files
from demiglace.distillation.classifier import check_student_choice
from demiglace.distillation.language_model import check_outputs, check_same_kind, text_method
from demiglace.errors import ConfigError, DataError
from demiglace.losses.language import chunk_size
from demiglace.models.from_config import random_model
from demiglace.models.language_model import is_masked, language_config
from demiglace.models.loading import check_same_vocabulary
from demiglace.models.shape import ModelShape
from demiglace.models.tokenizer import check_ids, load_text_tokenizer
from demiglace.models.truncate import choose_layers, truncate_config
from demiglace.stages.cached_tokens import telling_of
from demiglace.training.lm_datasets import block_size, blocks_held_back, blocks_to_train_on, check_training, masking_of
from demiglace.training.run import processes


def text_subject(config: DistillConfig | PretrainConfig, devices: int = 1) -> Subject:
    """The subject of a run on a corpus. Raises those `UserError`s of the run that need no weights.

    Of a corpus of more than a few megabytes the tokens are told from a part of it; the user hears how many.
    """
    if not config.text.corpus:
        raise ConfigError("--corpus must be given: files, folders or globs of documents.")
    check_training(config.training)
    return _of_distill(config, devices) if isinstance(config, DistillConfig) else _of_pretrain(config, devices)


def _of_pretrain(config: PretrainConfig, devices: int) -> Subject:
    check_model_choice(config)
    tokenizer = load_text_tokenizer(config.model or config.tokenizer or str(config.config_of))
    model = model_config(config, tokenizer)
    setup = setup_of("none", {}, config.training, model, devices)
    return _subject(None, model, config, tokenizer, setup, [_checked_shape(model, tokenizer)])


def _of_distill(config: DistillConfig, devices: int) -> Subject:
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
    telling = telling_of(config, setup.method, *shapes, masked=is_masked(student))
    setup = replace(setup, cache=telling is not None, telling=telling, cache_dtype=config.cache_dtype)
    return _subject(teacher, student, config, tokenizer, setup, shapes)


def _subject(
    teacher: PreTrainedConfig | None,
    student: PreTrainedConfig,
    config: DistillConfig | PretrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    setup: Setup,
    shapes: Sequence[ModelShape],
) -> Subject:
    size = block_size(config.text.block_size, shapes)
    masking = masking_of(student, tokenizer, config.masked_share, config.training.seed)
    predicted = 1.0 if masking is None else max(1, round(masking.share * size)) / size
    chunk = chunk_size(student.vocab_size, processes().device.type)
    blocks = _blocks(config.text, size, tokenizer)
    lengths = {name: np.broadcast_to(np.int64(size), count) for name, count in blocks.items()}
    rows = Rows(lengths, "language", ())
    return Subject(teacher, student, rows, replace(setup, predicted=predicted, chunk=chunk))


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
