"""What a planned run is about, from configs of models and the lengths of rows: no weights, no writing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from transformers import PreTrainedConfig

from demiglace.config.commands import DistillConfig, FinetuneConfig
from demiglace.config.data import DataConfig, DataLocation
from demiglace.config.training import TrainConfig
from demiglace.costs.estimate import Estimate, Setup, Speed, estimate
from demiglace.data.batching import forward_tokens
from demiglace.data.rows.dataset import load_unlabelled
from demiglace.data.rows.sampling import take
from demiglace.data.rows.schema import Split
from demiglace.data.tokenise import tokenise
from demiglace.distillation.classifier import check_sharding, check_student_choice
from demiglace.evaluation.predict import check_longest
from demiglace.methods.base import Problem
from demiglace.methods.registry import build_method
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.from_config import classifier_config, shape_of_config
from demiglace.models.language_model import language_config
from demiglace.models.pooling import State
from demiglace.models.shape import ModelShape
from demiglace.models.tokenizer import load_tokenizer
from demiglace.models.truncate import choose_layers, truncate_config
from demiglace.training.datasets import read_rows
from demiglace.training.run import numeric_choices, processes
from demiglace.training.schedule import check_phases

_TOKENISED = 20_000  # rows of a split whose lengths are measured; those of more rows are drawn from them


@dataclass(frozen=True)
class Rows:
    """A data set as far as cost goes: tokens of each row by split (unlabelled ones among "train"), and its labels."""

    lengths: Mapping[str, np.ndarray]
    problem: Problem
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """The models of a run, its rows, and how it is to go. teacher: none for `finetune` and `pretrain`."""

    teacher: PreTrainedConfig | None
    student: PreTrainedConfig
    rows: Rows
    setup: Setup

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
    def poolings(self) -> tuple[State, ...]:
        """How the hidden states that the method asks for are pooled."""
        teacher, student = self.shapes
        return () if teacher is None else self.setup.request(student, teacher).poolings

    def estimate(self, speed: Speed | None = None) -> Estimate:
        """What it costs; raises as `stages.estimate.estimate` does."""
        return estimate(*self.shapes, self.rows.lengths, self.setup, speed)


def subject_of(config: DistillConfig | FinetuneConfig, rows: Rows, devices: int = 1) -> Subject:
    """The subject of a run with this config. Raises the run's own `ConfigError`s and `ModelError`s where configs
    and lengths tell; what only weights tell (labels, names of --freeze, a generator) is left to the run.

    The teacher need not have a head for the rows' labels yet: it is counted with one.
    """
    if isinstance(config, FinetuneConfig):
        model = classifier_config(config.model, rows.label_names, config.training.dropout)
        return _checked(Subject(None, model, rows, setup_of("none", {}, config.training, config.model, devices)))
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
    return _checked(Subject(teacher, student, rows, setup))


def _checked(subject: Subject) -> Subject:
    for shape in filter(None, subject.shapes):
        for lengths in subject.rows.lengths.values():
            check_longest(shape, lengths)
    return subject


def setup_of(
    method: str, options: Mapping[str, object], training: TrainConfig, model: str | PreTrainedConfig, devices: int
) -> Setup:
    """How a run goes whose numeric choices are those of `model`, a model or the config of a new one."""
    made = build_method(method, options)
    precision, attention = numeric_choices(training, model)
    return Setup(
        method=made,
        training=training,
        precision=precision,
        attention=attention,
        pass_tokens=forward_tokens(processes().device),
        devices=devices,
    )


def read_lengths(source: DataConfig, location: DataLocation, model: str) -> Rows:
    """Read the rows and measure their lengths with the model's tokenizer; raises as `read_rows` does.

    Of a split of more than 20,000 rows as many are tokenised, and the lengths of all are drawn from theirs.
    """
    dataset, tokenizer = read_rows(source, location), load_tokenizer(model)

    def lengths(split: Split) -> np.ndarray:
        generator = np.random.default_rng(0)
        if len(split) <= _TOKENISED:
            return tokenise(split, tokenizer, source.max_length).lengths
        sample = take(split, generator.permutation(len(split))[:_TOKENISED])
        return generator.choice(tokenise(sample, tokenizer, source.max_length).lengths, len(split))

    found = {name: lengths(split) for name, split in dataset.splits.items()}
    if source.unlabelled:
        found["train"] = np.concatenate([found["train"], lengths(load_unlabelled(source, dataset))])
    return Rows(found, dataset.labels.problem, dataset.labels.names)
