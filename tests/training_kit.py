"""Helpers for tests of signals, methods and training: examples, models and loops without files."""

import copy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.config.training import TrainConfig
from demiglace.data.batching import Batch
from demiglace.data.tokenize import TokenizedSplit
from demiglace.methods.base import Epoch, TrainingProgress
from demiglace.methods.registry import build_method
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.masked_lm import lm_with_tied_head
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import truncate_model
from demiglace.signals.online import OnlineTeacher, SignalSource
from demiglace.tasks.base import RowTask
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.training.adversarial_generator import AdversarialGenerator, Vocabulary
from demiglace.training.loop import Loop, ModelSelection
from demiglace.training.objective import Objective
from factories import VOCABULARY, tiny_model

CLASSES = 3
ADVERSARIES: WeakKeyDictionary[Objective, AdversarialGenerator] = WeakKeyDictionary()  # of the objectives that have one


def random_examples(count: int, seed: int = 0, unlabelled: int = 0, regression: bool = False) -> TokenizedSplit:
    """Return rows of 3 to 12 random tokens with labels; the last `unlabelled` rows have none."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 13, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(5, 60, offsets[-1]).astype(np.int32)
    labels = generator.random(count).astype(np.float32) if regression else generator.integers(0, CLASSES, count)
    if unlabelled:
        labels[-unlabelled:] = np.nan if regression else -100
    return TokenizedSplit(ids, offsets, np.zeros_like(ids, np.int8), labels, pad_id=0, pad_left=False)


def teacher_and_student(
    regression: bool = False, layers: int = 3, arch: str = "bert"
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return a random teacher of 6 layers, and a student truncated from it."""
    return copy.deepcopy(_teacher_and_student(regression, layers, arch))


@cache  # truncation builds and compares several models; a copy takes a quarter of the time
def _teacher_and_student(regression: bool, layers: int, arch: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    teacher = tiny_model(arch, num_layers=6, num_labels=1 if regression else CLASSES)
    keep = tuple(range(0, 6, 6 // layers))
    return teacher, truncate_model(teacher, keep)


def objective_of(
    name: str,
    options: Mapping[str, Any],
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    task: RowTask = CLASSIFICATION,
) -> tuple[Objective, SignalSource]:
    """Return a method's objective, and an online teacher that returns only the requested signals."""
    method = build_method(name, options)
    torch.manual_seed(0)
    shapes = ModelShape.of(student), ModelShape.of(teacher)
    objective = Objective(student, method, shapes[1], task, "fp32")
    if isinstance(method.augmentation, AdversarialMasking):
        request, vocabulary = (
            method.perturbed_requests(*shapes).teacher,
            Vocabulary(4, (0, 1, 2, 3, 4), len(VOCABULARY)),
        )
        generator = lm_with_tied_head(teacher)
        ADVERSARIES[objective] = AdversarialGenerator(
            method.augmentation, generator, teacher, request, vocabulary, "fp32"
        )
    requests = [method.requests(*shapes, phase).teacher for phase in range(len(method.phases))]
    return objective, OnlineTeacher(teacher, requests, "fp32")


def loss_of(
    objective: Objective, source: SignalSource, batch: Batch, now: TrainingProgress, rows: float, labelled: float
) -> tuple[Tensor, Tensor]:
    """Compute the objective of a batch as the loop does, with the signals for its text and the perturbed one."""
    adversary = ADVERSARIES.get(objective)
    perturbed = adversary.perturb(batch, now) if adversary and objective.perturbs(now.phase) else None
    return objective(batch, source.fetch(batch, now.phase), now, rows, labelled, perturbed)  # type: ignore[no-any-return]


def make_loop(
    directory: Path,
    objective: Objective,
    source: SignalSource | None,
    examples: TokenizedSplit,
    selection: ModelSelection | None = None,
    starts_from: Epoch = "last",
    **options: Any,
) -> Loop:
    """Return a loop over these examples; starts_from as in `Method`, options as in `TrainConfig`."""
    directory.mkdir(exist_ok=True)
    settings = {
        "batch_size": 8,
        "epochs": 2,
        "learning_rate": 1e-3,
        "log_steps": 1,
        "checkpoint_seconds": 0.0,
    } | options
    lines = [("rows.csv", i + 2) for i in range(len(examples))]
    return Loop(
        objective=objective,
        examples=examples,
        source=source,
        selection=selection or ModelSelection(),
        config=TrainConfig(**settings),
        directory=directory,
        accelerator=Accelerator(cpu=True),
        source_locations=lines,
        adversary=ADVERSARIES.get(objective),
        starts_from=starts_from,
    )
