"""How fast the present machine is at a planned run: some of its real steps, on models with random weights."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel

from demiglace.console import say
from demiglace.costs.describe import free_memory, size
from demiglace.costs.estimate import Speed, teacher_head_flops
from demiglace.costs.flops import BACKWARD, Passes, padded_flops, passes_of
from demiglace.costs.run_spec import RunSpec
from demiglace.data.batching import Batch, collate, epoch_steps, sorted_batches, split_by_tokens
from demiglace.data.text.blocks import Blocks, Masking, all_blocks
from demiglace.data.text.token_shards import Corpus
from demiglace.data.tokenise import TokenizedSplit
from demiglace.methods.base import TrainingProgress
from demiglace.models.from_config import random_model
from demiglace.models.loading import seeded
from demiglace.runs.processes import processes
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest, Signals, SparseLogits
from demiglace.training.objective import Objective, PerturbedBatch
from demiglace.training.optimiser import make_optimiser

T = TypeVar("T")
_FORWARD_SHARE = 0.3  # of the seconds, for forward passes without gradients
_ROWS = 50_000  # from which the steps are taken
_TOKENS = 4_000_000  # of a corpus


def calibrate(subject: RunSpec, seconds: float = 10.0) -> Speed:
    """Time forward passes without gradients and training steps for about `seconds`, at least one of each.

    The steps are real ones: the method's terms on the signals of a teacher with random weights, AdamW, batches of the
    rows' lengths, the run's precision and attention. Reading signals from a cache is left out.
    """
    device = processes().device
    examples = _random_batches(subject)
    teacher, student = (
        random_model(config, device, subject.setup.attention, language=subject.is_language)
        for config in (subject.teacher or subject.student, subject.student)
    )
    with seeded(0):  # dropout, and the terms' own weights
        forward = _forward_speed(subject, teacher, examples, seconds * _FORWARD_SHARE)
        training, update = _training_speed(subject, teacher, student, examples, seconds * (1 - _FORWARD_SHARE))
    return Speed(forward, training, update)


def _random_batches(subject: RunSpec) -> TokenizedSplit | Blocks:
    """Random tokens in rows of the training rows' lengths."""
    lengths = subject.rows.lengths["train"][:_ROWS]
    generator = np.random.default_rng(0)
    if subject.is_language:
        size, words = int(lengths[0]), subject.student.vocab_size
        count = min(len(lengths), max(subject.setup.training.batch_size, _TOKENS // size))
        tokens = generator.integers(0, words, count * size + 1).astype(np.uint32)
        share = subject.setup.predicted
        masking = Masking(share, mask_id=0, vocabulary=(0, words), seed=0) if share < 1 else None
        return all_blocks(Corpus((tokens,), ("made up",), 1, 0, 0, {}, ""), size, masking)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(0, subject.student.vocab_size, offsets[-1]).astype(np.int32)
    labels = np.zeros(len(lengths), np.float32 if subject.rows.problem == "regression" else np.int64)
    return TokenizedSplit(ids, offsets, None, labels, pad_id=0, pad_left=False)


def _forward_speed(
    subject: RunSpec, model: PreTrainedModel, examples: TokenizedSplit | Blocks, seconds: float
) -> float:
    """Operations a second of a teacher at work; of the student's validation where there is no teacher.

    A language model's logits are no part of it: they are made with the losses.
    """
    setup, lengths = subject.setup, examples.lengths
    teacher, student = subject.shapes
    request = SignalRequest(logits=True)
    batches = sorted_batches(lengths, setup.pass_tokens)
    if teacher is not None:
        request = setup.method.requests(student, teacher).teacher | request
        batches = batches if setup.cached(student, teacher) else [p for step in _steps(subject, examples) for p in step]
    source, watch = OnlineTeacher(model, request, setup.precision), _Stopwatch(model.device)
    order = np.random.default_rng(0).permutation(len(batches)).tolist()
    for i in _until(seconds, order):
        batch = collate(examples, batches[i], model.device)
        with watch:
            source.fetch(batch)
    shape, done = teacher or student, [batches[i] for i in itertools.islice(itertools.cycle(order), watch.laps)]
    return _rate([padded_flops(shape, passes_of(lengths, [batch]), 0.0) for batch in done], watch.seconds)


def _training_speed(
    subject: RunSpec,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    examples: TokenizedSplit | Blocks,
    seconds: float,
) -> tuple[float, float]:
    """Operations a second of forward and backward passes, and seconds of an update."""
    setup, (other, shape) = subject.setup, subject.shapes
    objective = Objective(student, setup.method, other or shape, subject.rows.problem, setup.precision)
    optimiser = make_optimiser(objective.to(student.device).train(), setup.training)
    said = _FakeTeacher(subject, teacher)
    passes, updates, flops = _Stopwatch(student.device), _Stopwatch(student.device), []
    for step, parts in enumerate(_until(seconds, _steps(subject, examples))):
        rows = float(sum(map(len, parts)))
        now = TrainingProgress(seed=0, epoch=0, step=step, phase=step % len(setup.method.phases))
        for part in parts:
            batch = collate(examples, part, student.device)
            signals, perturbed = said.of(batch, now.phase)
            with passes:
                objective(batch, signals, now, rows, rows, perturbed)[0].backward()
            flops.append(said.flops(passes_of(examples.lengths, [part])))
        with updates:
            torch.nn.utils.clip_grad_norm_(objective.parameters(), setup.training.max_grad_norm)
            optimiser.step()
            optimiser.zero_grad()
    return _rate(flops, passes.seconds), float(np.mean(updates.seconds[1:] or updates.seconds))


class _FakeTeacher:
    """What the method's terms hear of a teacher, of the rows' text and of a perturbed one of the same length."""

    def __init__(self, subject: RunSpec, model: PreTrainedModel):
        self._subject = subject
        other, shape = subject.shapes
        method, precision = subject.setup.method, subject.setup.precision
        self.texts = 1 if method.augmentation is None else 2
        self._text = self._perturbed = None
        if other is not None:
            self._text = OnlineTeacher(model, subject.setup.requests(shape, other), precision)
            self._perturbed = OnlineTeacher(model, method.perturbed_requests(shape, other).teacher, precision)

    def flops(self, passes: Passes) -> int:
        """Operations of the student's passes, forward and backward, and of the teacher's logits beside them."""
        teacher, shape = self._subject.shapes
        found = (1 + BACKWARD) * self.texts * padded_flops(shape, passes, self._subject.setup.predicted)
        return found + (teacher_head_flops(self._subject.setup, shape, teacher, passes) if teacher else 0)

    def of(self, batch: Batch, phase: int) -> tuple[Signals, PerturbedBatch | None]:
        """The teacher's signals of a batch."""
        if self._text is None or self._perturbed is None:
            return Signals(), None
        perturbed = PerturbedBatch(batch, self._perturbed.fetch(batch)) if self.texts > 1 else None
        signals = self._text.fetch(batch, phase)
        if self._subject.setup.telling is not None and signals.head is not None:
            signals = replace(signals, head=_some_tokens(batch, self._subject.setup.telling.count))
        return signals, perturbed


def _some_tokens(batch: Batch, count: int) -> SparseLogits:
    """What a cache of tokens would say of a batch, as far as its cost goes."""
    ids = batch.labels[..., None].expand(*batch.labels.shape, count)
    entropy = torch.zeros_like(batch.labels, dtype=torch.float32)
    return SparseLogits(ids, torch.full_like(ids, 1 / count, dtype=torch.float32), entropy)


def _steps(subject: RunSpec, examples: TokenizedSplit | Blocks) -> list[list[np.ndarray]]:
    """The forward passes of each step of an epoch, one process's share of them."""
    setup, lengths = subject.setup, examples.lengths
    plan = epoch_steps(lengths, setup.training.batch_size, setup.training.seed, 0)
    return [split_by_tokens(rows[:: setup.devices], lengths, setup.training.batch_tokens) for rows in plan]


def _until(seconds: float, items: Sequence[T]) -> Iterator[T]:
    """The items over and over until that much time has passed, at least the first."""
    begun = time.perf_counter()
    for item in itertools.cycle(items):
        yield item
        if time.perf_counter() - begun >= seconds:
            return


def _rate(flops: list[int], seconds: list[float]) -> float:
    """Operations a second; the first lap warms up and does not count where there are others."""
    first = 1 if len(flops) > 1 else 0
    return sum(flops[first:]) / sum(seconds[first:])


class _Stopwatch:
    """A stopwatch that waits for the device, used as a context; `seconds` holds its laps."""

    def __init__(self, device: torch.device):
        self._device, self.seconds = device, list[float]()

    @property
    def laps(self) -> int:
        """How many laps there were."""
        return len(self.seconds)

    def __enter__(self) -> None:
        self._begun = self._now()

    def __exit__(self, *_: object) -> None:
        self.seconds.append(self._now() - self._begun)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def measure_speed(subject: RunSpec, seconds: float) -> Speed | None:
    """This machine's speed at a run, measured for about `seconds`; none, and said so, where the run does not fit."""
    needed = subject.estimate().memory.total
    if needed > free_memory():
        say(f"{size(needed)} do not fit the memory here, so no time can be told; `plan --flops` assumes a speed.")
        return None
    return calibrate(subject, seconds)
