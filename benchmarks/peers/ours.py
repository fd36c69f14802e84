"""demiglace: the loop and the signal cache, as `demiglace distill` runs them; the cache is filled within the time."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any
from unittest import mock

from accelerate import Accelerator
from entry import Entry
from material import Material
from meter import Meter
from transformers import PreTrainedModel

from demiglace.config.training import TrainConfig
from demiglace.data.tokenize import TokenizedSplit
from demiglace.methods.base import Method
from demiglace.methods.registry import build_method
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.masked_lm import lm_with_tied_head
from demiglace.models.shape import ModelShape
from demiglace.signals.hidden_state_cache import CacheKey, SignalCache, fill_cache
from demiglace.signals.online import OnlineTeacher, SignalSource
from demiglace.signals.shard_store import prepare_cache
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.training import loop
from demiglace.training.adversarial_generator import AdversarialGenerator, Vocabulary
from demiglace.training.checkpoint import save_checkpoint
from demiglace.training.loop import ModelSelection
from demiglace.training.objective import Objective

BERTS = Vocabulary(mask=103, special=(0, 100, 101, 102, 103), size=30_522)  # of the vocabulary of bert-base-uncased


def train(material: Material, entry: Entry, meter: Meter) -> None:
    """Distil with the method that the entry names."""
    race, examples = material.race, material.examples(entry.rows(material.race))
    method = build_method(entry.method, {})
    config = replace(
        TrainConfig(),
        epochs=race.epochs,
        batch_size=race.batch_size,
        learning_rate=race.lr,
        max_grad_norm=race.clip,
        seed=race.seed,
    )
    with tempfile.TemporaryDirectory() as directory:
        models = [material.teacher()]
        student, shape = material.student(), ModelShape.of(models[0])
        meter.mark()
        adversary = _adversary(method, student, models[0], entry.precision)
        with meter.capturing():
            source = _source(method, ModelShape.of(student), models.pop(), examples, entry.precision, Path(directory))
        objective = Objective(student, method, shape, CLASSIFICATION, entry.precision)
        lines = [("rows", i) for i in range(len(examples))]
        accelerator = Accelerator(cpu=True)
        run = loop.Loop(
            objective,
            examples,
            source,
            ModelSelection(),
            config,
            Path(directory),
            accelerator,
            lines,
            adversary=adversary,
        )
        with (
            mock.patch.object(loop, "save_checkpoint", meter.timed_saving(save_checkpoint)),
            mock.patch.object(run, "_end_epoch", _watched(run._end_epoch, meter)),
        ):
            run.run()


def _adversary(
    method: Method, student: PreTrainedModel, teacher: PreTrainedModel, precision: str
) -> AdversarialGenerator | None:
    """The generator of the methods that have one, and the teacher, which is then kept."""
    options = method.augmentation
    if not isinstance(options, AdversarialMasking):
        return None
    request = method.perturbed_requests(ModelShape.of(student), ModelShape.of(teacher)).teacher
    return AdversarialGenerator(options, lm_with_tied_head(teacher), teacher, request, BERTS, precision)


def _source(
    method: Method,
    student: ModelShape,
    teacher: PreTrainedModel,
    examples: TokenizedSplit,
    precision: str,
    directory: Path,
) -> SignalSource | None:
    """The cache, filled, where the method's signals can be kept; else the teacher."""
    shape = ModelShape.of(teacher)
    requests = [method.requests(student, shape, phase).teacher for phase in range(len(method.phases))]
    request = reduce(or_, requests)
    if request.is_empty:
        return None
    if not request.is_cacheable:
        return OnlineTeacher(teacher, requests, precision)
    key = CacheKey.of("peers", shape, examples, request, "float16", precision)
    prepare_cache(directory / "signals", key)
    fill_cache(directory / "signals", key, teacher, examples)
    return SignalCache(directory / "signals", key)


def _watched(end_epoch: Callable[..., None], meter: Meter) -> Callable[..., None]:
    """The end of an epoch, and a mark there."""

    def ended(*args: Any) -> None:
        end_epoch(*args)
        meter.mark()

    return ended
