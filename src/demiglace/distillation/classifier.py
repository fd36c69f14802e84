"""Distil a classifier or a regressor: train a student on rows and on the signals of a teacher."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.command_options import STATIC, DistillConfig
from demiglace.console import say
from demiglace.data.rows.schema import Dataset, LabelSpace, Split
from demiglace.data.rows.sources import check_source, fingerprint_sources, unlabelled_sources
from demiglace.data.tokenize import TokenizedSplit
from demiglace.distillation.sentence_encoder import for_embeddings, load_student, rows_for, with_teacher_outputs
from demiglace.distillation.static_student import check_static_method, check_static_student, static_student
from demiglace.distillation.student import (
    check_compile,
    cut_of,
    fingerprint_inputs,
    student_run,
    warn_of_first_token,
)
from demiglace.distillation.teacher_check import check_generator, check_teacher_accuracy, with_hidden_states
from demiglace.distillation.teacher_signals import attach_signal_source
from demiglace.distillation.vocabulary import (
    check_augmentation,
    say_other_tokens,
    student_tokens,
    teacher_rows,
    vocabulary_inputs,
)
from demiglace.distillation.without_labels import without_labels
from demiglace.errors import ConfigError, ModelError
from demiglace.evaluation.label_order import contradiction
from demiglace.evaluation.predict import check_lengths
from demiglace.evaluation.scores import predictions_of
from demiglace.labels import Match, listed, match_all, pair
from demiglace.methods.base import Method
from demiglace.methods.registry import build_method
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.compilation import compile_layers
from demiglace.models.labels import adopt_labels, label_space_of
from demiglace.models.language_model import is_masked
from demiglace.models.loading import (
    check_same_vocabulary,
    check_tokenizer,
    fingerprint_model,
    label_names_of,
    load_classifier,
    load_config,
    load_tokenizer,
    resolve_model,
)
from demiglace.models.masked_lm import lm_with_tied_head, load_masked_lm
from demiglace.models.sentence_encoder import SentenceEncoder
from demiglace.models.shape import ModelShape
from demiglace.models.vocabulary import TrimmedVocabulary
from demiglace.runs.directory import Run
from demiglace.runs.processes import processes
from demiglace.tasks.base import Task
from demiglace.tasks.sentence_embedding import SENTENCE_EMBEDDING
from demiglace.training.adversarial_generator import AdversarialGenerator, Vocabulary
from demiglace.training.datasets import choose_max_length, read_rows, splits_to_tokenize, tokenize_dataset
from demiglace.training.prepare import prepare_model
from demiglace.training.run import TrainingRun, check_training, open_shared, resolve_precision_and_attention, train
from demiglace.training.schedule import check_max_steps, check_phases


def distill_classifier(config: DistillConfig) -> Path:
    """Train a student on rows and on the signals of a teacher; return the run directory.

    See `demiglace.commands.distill.distill`.
    """
    source = rows_for(config.source, config.teacher)
    method, static = build_method(config.method, config.method_options), config.student == STATIC
    if static:
        check_static_method(config.method, method)
    check_generator_options(config, method)
    if config.training.max_steps is None:
        check_phases(config.method, method, config.training.epochs)
    dataset = read_rows(source, config.location, config.teacher, distilled=True)
    if source.problem == SENTENCE_EMBEDDING.name:
        method = for_embeddings(config.method, method)
    elif not dataset.labelled:
        method = without_labels(config.method, method)
    check_training(config.training, dataset)
    check_unit(config, method, dataset.labels.task)
    if static:
        check_static_student(dataset.labels.task)
    check_augmentation(config, method, trimmed=config.trimming.vocabulary == "trim")
    inputs = fingerprint_inputs(config) | {"data": dataset.fingerprint}
    generator = method.augmentation.generator if isinstance(method.augmentation, AdversarialMasking) else None
    if generator:
        inputs["generator"] = fingerprint_model(generator)
    if config.source.unlabelled:
        for spec in config.source.unlabelled:
            check_source(spec)
        inputs["unlabelled"] = fingerprint_sources(unlabelled_sources(config.source))
    inputs |= vocabulary_inputs(config)
    tokenizer = load_tokenizer(config.teacher)
    models = filter(None, (config.teacher, None if static else config.student))
    max_length, chosen = choose_max_length(source, dataset, tokenizer, *models)
    inputs |= chosen
    run = open_shared(config.output, "distill", config, inputs)
    if run is None:
        return config.output
    splits = splits_to_tokenize(dataset, source)
    tokens = student_tokens(config, run, tokenizer, load_tokenizer, splits)
    check_augmentation(config, method, trimmed=tokens.vocabulary is not None)
    if method.augmentation is not None:
        _check_masking(config, tokenizer, generator)
    teacher_labels = label_space_of(config.teacher)
    dataset = with_labels_of(teacher_labels, dataset)
    match = _match_labels(config, teacher_labels, dataset.labels)
    teacher, student, precision = _load_models(config, dataset.labels, match, tokenizer, tokens.vocabulary)
    check_tokenizer(teacher, tokenizer)
    if config.trimming.vocabulary == "trim" and not static:
        student = tokens.trim(student)
    check_tokenizer(student, tokens.tokenizer)
    cut = cut_of(config, student)
    shapes = cut.shape(student) if cut else ModelShape.of(student), ModelShape.of(teacher)
    warn_of_first_token(config.method, method, *shapes)
    requests = [method.requests(*shapes, phase).teacher for phase in range(len(method.phases))]
    check_compile(config, requests)
    data = tokenize_dataset(dataset, splits, max_length, tokens.tokenizer, [teacher, student])
    rows = data.examples if tokens.vocabulary is None else teacher_rows(splits, data, tokenizer, [teacher])
    check_max_steps(config.method, method, config.training, len(data.examples["train"]))
    training_run = student_run(config, run, method, cut, student, tokens, data, precision, shapes[1])
    training_run = _attach_generator(training_run, shapes, teacher, generator)
    if not reduce(or_, requests).is_empty:
        teacher.to(processes().device)
        if config.training.compile:
            compile_layers(teacher)
        if isinstance(teacher, SentenceEncoder) or not dataset.labelled:
            training_run = replace(training_run, data=with_teacher_outputs(data, teacher, precision, rows))
        else:
            _check_teacher(training_run, run, teacher, teacher_labels, match, rows)
    if tokens.vocabulary is not None and not reduce(or_, requests).is_cacheable:
        say_other_tokens(rows["train"], data.examples["train"], tokens.vocabulary)
        teacher, rows = tokens.trim(teacher), data.examples
    training_run = attach_signal_source(training_run, config, run, teacher, requests, match, rows["train"])
    training_run = with_hidden_states(training_run, teacher, requests, rows["train"])
    del teacher  # with a cache it is not needed again, and its memory is free for training
    train(run, training_run)
    return config.output


def check_generator_options(config: DistillConfig, method: Method) -> None:
    """Raise `ConfigError` if a method that rewrites text is combined with --sharding or fp16."""
    if method.augmentation is not None and config.training.precision == "fp16":
        raise ConfigError(
            f"method {config.method} trains a generator of text without loss scaling, and small gradients are 0 in "
            "fp16; give --precision bf16 or fp32."
        )
    if method.augmentation is not None and config.training.sharding != "none":
        raise ConfigError(
            f"method {config.method} rewrites text with the student's gradients, which --sharding "
            f"{config.training.sharding} splits over processes; give --sharding none."
        )


def check_unit(config: DistillConfig, method: Method, task: Task) -> None:
    """Raise `ConfigError` if a method needs logits of rows and the kind of problem has logits of words."""
    if task.unit == "word" and any(w.term.needs_rows for w in method.terms):
        raise ConfigError(
            f"method {config.method} relates the logits of a row to its hidden states, and {task.name} has logits for "
            "every word; take another method, such as rail-balanced or vanilla-kd."
        )


def _load_models(
    config: DistillConfig,
    labels: LabelSpace,
    match: Match,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: TrimmedVocabulary | None,
) -> tuple[PreTrainedModel, PreTrainedModel, str]:
    precision, attention = resolve_precision_and_attention(config.training, config.teacher)
    teacher = load_classifier(config.teacher, None, attention=attention, allow_pickle=config.allow_pickle)
    if isinstance(teacher, SentenceEncoder):
        encoder = load_student(config, teacher, attention)
        prepare_model(encoder, config.training)
        return teacher, encoder, precision
    adopt_labels(teacher, labels.names, match, labels.task)
    if config.student == STATIC:
        training = config.training
        static = static_student(
            teacher,
            tokenizer,
            config.embedding_size,
            vocabulary=vocabulary,
            dropout=training.dropout,
            seed=training.seed,
        )
        return teacher, static, precision
    student = load_classifier(
        config.student or config.teacher,
        labels.names if config.student else None,
        task=labels.task if config.student else None,
        dropout=config.training.dropout,
        attention=attention,
        allow_pickle=config.allow_pickle,
        seed=config.training.seed,
    )
    if not config.student:
        adopt_labels(student, labels.names, match, labels.task)
    prepare_model(student, config.training)  # refuse a name that no weight has before any work
    return teacher, student, precision


def _match_labels(config: DistillConfig, teacher: LabelSpace, labels: LabelSpace) -> Match:
    """Return the teacher's class of each of the rows' labels, and print how they were matched.

    Raises `ModelError` where they are not the same classes, and `DataError` for a wrong --label-map.
    """
    names = teacher.names
    if teacher.task.name != labels.task.name:
        raise ModelError(
            f"the teacher's labels are {_describe(teacher)}, the rows' are {_describe(labels)}, and signals of one "
            "kind of problem do not train another; take data of the teacher's kind, name the kind with --problem, or "
            "fine-tune a teacher on these rows with `demiglace finetune`."
        )
    match = match_all(labels.names, names, config.label_map)
    if match is None or len(labels.names) != len(names):
        raise ModelError(
            f"the teacher's labels are {listed(names)}, the rows' are {listed(labels.names)}; if they mean the same "
            "classes, give --label-map.ROW_LABEL TEACHER_LABEL for each. Otherwise take the data that the teacher was "
            "fine-tuned on, or fine-tune a teacher on these rows with `demiglace finetune`."
        )
    if line := match.line(labels.names, names):
        say(f"teacher: {line}")
    return match


def with_labels_of(teacher: LabelSpace, dataset: Dataset) -> Dataset:
    """Return the data set with the teacher's decision rule, by which its predictions become pseudo-labels.

    Where rows have any number of labels, those of the teacher's that no row has are added, and printed.
    """
    labels = dataset.labels
    labels = replace(labels, task=labels.task.with_decision_rule(teacher.task.decision_rule()))
    pairs, _ = pair(labels.names, teacher.names)
    more = tuple(name for name in teacher.names if name not in pairs.values())
    if not (labels.task.has_label_sets and teacher.task.has_label_sets and more and len(pairs) == len(labels.names)):
        return replace(dataset, labels=labels)
    say(f"no row has {len(more)} of the teacher's labels: {listed(more)}.")
    splits = {name: _widened(split, len(more)) for name, split in dataset.splits.items()}
    return replace(dataset, labels=replace(labels, names=labels.names + more), splits=splits)


def _widened(split: Split, count: int) -> Split:
    """Return the rows with `count` further labels that none of them has."""
    return replace(split, labels=np.pad(split.labels, ((0, 0), (0, count))))


def _describe(labels: LabelSpace) -> str:
    return f"{listed(labels.names) or labels.task.labels_in_words} ({labels.task.name})"


def _check_masking(config: DistillConfig, tokenizer: PreTrainedTokenizerBase, generator: str | None) -> None:
    """Raise `ModelError` unless the generator has the teacher's vocabulary and, if it is not causal, a mask token."""
    own = load_tokenizer(generator) if generator else tokenizer
    if generator:
        check_same_vocabulary(tokenizer, own, "generator", but_mask=True)
    if own.mask_token_id is None and is_masked(load_config(resolve_model(generator or config.teacher))):
        remedy = "generator" if generator else "teacher"
        raise ModelError(
            f"method {config.method} masks tokens, and the tokenizer of {generator or config.teacher} has no mask "
            f"token; take a {remedy} that has one, such as BERT, or that is causal, such as GPT-2; or another method."
        )


def _attach_generator(
    training_run: TrainingRun, shapes: tuple[ModelShape, ModelShape], teacher: PreTrainedModel, generator: str | None
) -> TrainingRun:
    """Return the training run with the generator of its perturbed text, if the method has one.

    Raises `ModelError` for a generator that is no better than noise.
    """
    options = training_run.method.augmentation
    if not isinstance(options, AdversarialMasking):
        return training_run
    model = load_masked_lm(generator) if generator else lm_with_tied_head(teacher)
    request = training_run.method.perturbed_requests(*shapes).teacher
    check_lengths(model.body, training_run.data.examples["train"])
    mask = (load_tokenizer(generator) if generator else training_run.tokenizer).mask_token_id
    vocabulary = Vocabulary(mask, tuple(training_run.tokenizer.all_special_ids), len(training_run.tokenizer))
    adversary = AdversarialGenerator(options, model, teacher, request, vocabulary, training_run.precision)
    adversary.to(processes().device)
    rows = training_run.data.examples
    skill = check_generator(adversary, rows["validation"], len(rows["train"]))
    return replace(training_run, adversary=adversary, findings={**training_run.findings, "generator": asdict(skill)})


def _check_teacher(
    training_run: TrainingRun,
    run: Run,
    teacher: PreTrainedModel,
    teacher_labels: LabelSpace,
    match: Match,
    rows: Mapping[str, TokenizedSplit],
) -> None:
    """Measure the teacher's accuracy before its signals are computed, if the run is new.

    rows: in the teacher's tokens. An assumed match of labels is always checked. Raises `ModelError` if another match
    fits the rows better.
    """
    if (run.path / "checkpoints").exists() or not processes().is_main_process:
        return
    if training_run.config.diagnostics == "off" and not match.assumed:
        return
    task = teacher_labels.task
    labels, logits = check_teacher_accuracy(
        teacher, rows["validation"], training_run.precision, len(rows["train"]), task
    )
    if match.assumed:
        names = label_names_of(teacher)
        predictions = predictions_of(logits, task)
        found = contradiction(labels, predictions, names, [teacher_labels.names[i] for i in match.ids])
        if found is not None:
            raise ModelError(f"teacher: {found}")
