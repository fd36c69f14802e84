"""`demiglace distill --corpus`: train a small language model on text and on a large one's signals."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel

from demiglace.config.command_options import DistillConfig
from demiglace.data.text.blocks import Blocks
from demiglace.distillation.student import (
    check_compile,
    cut_of,
    fingerprint_inputs,
    student_run,
    warn_of_first_token,
)
from demiglace.distillation.teacher_check import with_hidden_states
from demiglace.distillation.teacher_signals import sparse_target_config, token_cache
from demiglace.distillation.vocabulary import kept_probability, student_tokens, vocabulary_inputs
from demiglace.errors import ConfigError, ModelError
from demiglace.methods.base import Method
from demiglace.methods.registry import build_method
from demiglace.models.compilation import compile_layers
from demiglace.models.language_model import is_masked, load_language_model, load_with_head
from demiglace.models.shape import ModelShape
from demiglace.models.tokenizer import check_ids, load_text_tokenizer
from demiglace.runs.directory import Run
from demiglace.runs.processes import processes
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest
from demiglace.signals.sparse_logit_cache import SparseLogitConfig
from demiglace.training.lm_datasets import block_size, check_training, corpus_inputs, make_blocks, masking_of
from demiglace.training.prepare import prepare_model
from demiglace.training.run import TrainingRun, open_shared, resolve_precision_and_attention, train
from demiglace.training.schedule import check_max_steps, phase_ends


def distill_language_model(config: DistillConfig) -> Path:
    """Train a language model on a corpus and a teacher's signals, online or from a cache; return the run directory.

    Terms on logits are computed in chunks of tokens, without all [B, L, V] logits in memory; terms on hidden states
    compare pooled blocks, or tokens, as the method defines.
    """
    method = text_method(config)
    check_training(config.training)
    inputs = corpus_inputs(config.text) | fingerprint_inputs(config) | vocabulary_inputs(config)
    run = open_shared(config.output, "distill", config, inputs)
    if run is None:
        return config.output
    tokenizer = load_text_tokenizer(config.teacher)
    tokens = student_tokens(config, run, tokenizer, load_text_tokenizer)
    (teacher, new_head), student, precision = _load_models(config)
    check_ids(teacher, tokenizer)
    if config.trimming.vocabulary == "trim":
        student = tokens.trim(student)
    full, teacher = teacher, tokens.trim(teacher)
    check_ids(student, tokens.tokenizer)
    cut = cut_of(config, student)
    shapes = cut.shape(student) if cut else ModelShape.of(student), ModelShape.of(teacher)
    warn_of_first_token(config.method, method, *shapes)
    check_outputs(method, *shapes)
    sparse = sparse_target_config(config, method, *shapes, masked=is_masked(student.config))
    size = block_size(config.text.block_size, shapes)
    requests = [method.requests(*shapes, phase).teacher for phase in range(len(method.phases))]
    if new_head and reduce(or_, requests).logits:
        raise ModelError(
            f"the teacher {config.teacher} has no language-model head, and method {config.method} learns from its "
            "logits: those of a new head are noise. Give a language model; or train a head with `demiglace pretrain "
            "--model`; or, for a classifier, distil on rows (--data)."
        )
    check_compile(config, requests)
    masking = masking_of(student.config, tokens.tokenizer, config.mlm_probability, config.training.seed)
    data = make_blocks(config.text, size, tokens.tokenizer, masking, run.path)
    check_max_steps(config.method, method, config.training, len(data.examples["train"]), least=1)
    training_run = student_run(config, run, method, cut, student, tokens, data, precision, shapes[1])
    if tokens.vocabulary is not None and reduce(or_, requests).logits:
        kept = {"kept_probability": kept_probability(full, data.examples["validation"], tokens.vocabulary)}
        training_run = replace(training_run, findings={**training_run.findings, **kept})
    del full
    training_run = _attach_signal_source(training_run, config, run, teacher, requests, sparse)
    training_run = with_hidden_states(training_run, teacher, requests, data.examples["train"])
    del teacher  # with a cache it is not needed again, and its memory is free for training
    train(run, training_run)
    return config.output


def check_outputs(method: Method, student: ModelShape, teacher: ModelShape) -> None:
    """Raise `ModelError` if logits of different widths would be compared; one model's vocabulary may be padded."""
    if method.requests(student, teacher).teacher.logits and student.vocab_size != teacher.vocab_size:
        raise ModelError(
            f"the student has outputs for {student.vocab_size:,} tokens and the teacher for {teacher.vocab_size:,}, so "
            "that they cannot be compared; pad one model's embeddings and head to the size of the other's."
        )


def _attach_signal_source(
    training_run: TrainingRun,
    config: DistillConfig,
    run: Run,
    teacher: PreTrainedModel,
    requests: Sequence[SignalRequest],
    sparse: SparseLogitConfig | None,
) -> TrainingRun:
    """Return the training run with its source of signals: none, the teacher online, or a cache of likely tokens."""
    request = reduce(or_, requests)
    if request.is_empty:
        return training_run
    teacher.to(processes().device)  # type: ignore[arg-type]
    if config.training.compile:
        compile_layers(teacher)
    if sparse is None:
        return replace(training_run, source=OnlineTeacher(teacher, requests, training_run.precision))
    blocks = training_run.data.examples["train"]
    assert isinstance(blocks, Blocks)
    source, seconds = token_cache(config, run, teacher, blocks, sparse, request, training_run.precision)
    return replace(training_run, source=source, capture_seconds=seconds)


def text_method(config: DistillConfig) -> Method:
    """Return the method.

    Raises `ConfigError` for a method that needs rows, for fewer epochs than phases, and for --data with --corpus.
    """
    if config.source.data:
        raise ConfigError(
            "--data and --corpus were both given; give --data for a task, or --corpus for a language model."
        )
    method = build_method(config.method, config.method_options)
    if method.augmentation is not None:
        raise ConfigError(f"method {config.method} rewrites the rows of a task; for --corpus take another method.")
    if any(w.term.needs_rows for w in method.terms):
        raise ConfigError(
            f"method {config.method} learns from the logits of a task's rows, where a language model has logits for "
            "every token; for --corpus take another method."
        )
    if config.training.max_steps is None:
        phase_ends(config.training.epochs, method.phases)  # one epoch of a corpus is enough
    return method


def check_same_kind(teacher: PreTrainedConfig, student: PreTrainedConfig) -> None:
    """Raise `ModelError` unless both are causal or both are masked language models."""
    if is_masked(teacher) != is_masked(student):
        raise ModelError("teacher and student are a causal and a masked language model; they predict different tokens.")


def _load_models(config: DistillConfig) -> tuple[tuple[PreTrainedModel, bool], PreTrainedModel, str]:
    """Return the teacher and whether its head is new, the student, and the precision."""
    training = config.training
    precision, attention = resolve_precision_and_attention(training, config.teacher)
    teacher = load_with_head(config.teacher, attention=attention, allow_pickle=config.allow_pickle)
    student = load_language_model(
        config.student or config.teacher,
        dropout=training.dropout,
        attention=attention,
        allow_pickle=config.allow_pickle,
        seed=training.seed,
    )
    check_same_kind(teacher[0].config, student.config)
    prepare_model(student, training)  # refuse a name that no weight has before any work
    return teacher, student, precision
