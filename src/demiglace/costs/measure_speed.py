"""Measure the speed of this machine for a run: time some of its real steps on models with random weights."""

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
from demiglace.costs.flops import Passes, forward_passes, padded_flops
from demiglace.costs.run_spec import RunSpec
from demiglace.data.batching import Batch, collate, epoch_steps, sorted_batches, split_by_tokens
from demiglace.data.text.blocks import Blocks, Masking, all_blocks
from demiglace.data.text.token_shards import Corpus
from demiglace.data.tokenize import TokenizedSplit
from demiglace.methods.base import TrainingProgress
from demiglace.models.from_config import random_model
from demiglace.models.loading import seeded
from demiglace.runs.processes import processes
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest, Signals, SparseLogits
from demiglace.tasks.base import RowTask
from demiglace.training.objective import Objective, PerturbedBatch
from demiglace.training.optimizer import make_optimizer
from demiglace.training.prepare import prepare_model

T = TypeVar("T")
_FORWARD_SHARE = 0.3  # of the seconds, for forward passes without gradients
_ROWS = 50_000  # rows of which the steps consist
_TOKENS = 4_000_000  # tokens of a corpus of which the steps consist


def time_steps(spec: RunSpec, seconds: float = 10.0) -> Speed:
    """Time forward passes without gradients and training steps for about `seconds`, at least one of each.

    The steps are real: the method's terms with the signals of a teacher with random weights, AdamW, batches of the
    rows' lengths, the run's precision and attention. Reading signals from a cache is not timed.
    """
    device = processes().device
    examples = _random_batches(spec)
    teacher, student = (
        random_model(config, device, spec.inputs.attention, language=spec.is_language)
        for config in (spec.teacher or spec.student, spec.student)
    )
    with seeded(0):  # for dropout and the weights of the terms
        forward = _forward_speed(spec, teacher, examples, seconds * _FORWARD_SHARE)
        training, update = _training_speed(spec, teacher, student, examples, seconds * (1 - _FORWARD_SHARE))
    return Speed(forward, training, update)


def _random_batches(spec: RunSpec) -> TokenizedSplit | Blocks:
    """Return random tokens in rows with the lengths of the training rows."""
    lengths = spec.rows.lengths["train"][:_ROWS]
    generator = np.random.default_rng(0)
    if spec.is_language:
        size, vocab_size = int(lengths[0]), spec.student.vocab_size
        count = min(len(lengths), max(spec.inputs.training.batch_size, _TOKENS // size))
        tokens = generator.integers(0, vocab_size, count * size + 1).astype(np.uint32)
        share = spec.inputs.predicted
        masking = Masking(share, mask_id=0, vocabulary=(0, vocab_size), seed=0) if share < 1 else None
        return all_blocks(Corpus((tokens,), ("random",), 1, 0, 0, {}, ""), size, masking)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(0, spec.student.vocab_size, offsets[-1]).astype(np.int32)
    task = spec.rows.task
    assert isinstance(task, RowTask)
    if task.unit == "word":  # every token is a word
        places = np.arange(lengths.max(), dtype=np.int32)
        starts = np.where(places < lengths[:, None], places, np.int32(-1))
        labels = np.zeros(starts.shape, task.label_dtype)
        return TokenizedSplit(ids, offsets, None, labels, pad_id=0, pad_left=False, starts=starts)
    labels = task.encode([None] * len(lengths), spec.rows.label_names)
    return TokenizedSplit(ids, offsets, None, labels, pad_id=0, pad_left=False)


def _forward_speed(spec: RunSpec, model: PreTrainedModel, examples: TokenizedSplit | Blocks, seconds: float) -> float:
    """Return the FLOP/s of the teacher's forward passes, or of the student's validation if there is no teacher.

    The logits of a language model are not included, since they are computed in the losses.
    """
    inputs, lengths = spec.inputs, examples.lengths
    teacher, student = spec.shapes
    request = SignalRequest(logits=True)
    batches = sorted_batches(lengths, inputs.pass_tokens)
    if teacher is not None:
        request = inputs.method.requests(student, teacher).teacher | request
        batches = batches if inputs.cached(student, teacher) else [p for step in _steps(spec, examples) for p in step]
    source, stopwatch = OnlineTeacher(model, request, inputs.precision), _Stopwatch(model.device)
    order = np.random.default_rng(0).permutation(len(batches)).tolist()
    for i in _until(seconds, order):
        batch = collate(examples, batches[i], model.device)
        with stopwatch:
            source.fetch(batch)
    shape, done = teacher or student, [batches[i] for i in itertools.islice(itertools.cycle(order), stopwatch.laps)]
    return _rate([padded_flops(shape, forward_passes(lengths, [batch]), 0.0) for batch in done], stopwatch.seconds)


def _training_speed(
    spec: RunSpec,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    examples: TokenizedSplit | Blocks,
    seconds: float,
) -> tuple[float, float]:
    """Return the FLOP/s of forward and backward passes, and the seconds of an update."""
    inputs, (teacher_shape, shape) = spec.inputs, spec.shapes
    prepare_model(student, inputs.training)
    objective = Objective(student, inputs.method, teacher_shape or shape, spec.rows.task, inputs.precision)
    optimizer = make_optimizer(objective.to(student.device).train(), inputs.training)
    signal_source = _FakeTeacher(spec, teacher)
    passes, updates, flops = _Stopwatch(student.device), _Stopwatch(student.device), []
    for step, parts in enumerate(_until(seconds, _steps(spec, examples))):
        rows, units = float(sum(map(len, parts))), float(sum(examples.units[part].sum() for part in parts))
        progress = TrainingProgress(seed=0, epoch=0, step=step, phase=step % len(inputs.method.phases))
        for part in parts:
            batch = collate(examples, part, student.device)
            signals, perturbed = signal_source.fetch(batch, progress.phase)
            with passes:
                objective(batch, signals, progress, rows, units, perturbed, units)[0].backward()
            flops.append(signal_source.flops(forward_passes(examples.lengths, [part])))
        with updates:
            torch.nn.utils.clip_grad_norm_(objective.parameters(), inputs.training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
    return _rate(flops, passes.seconds), float(np.mean(updates.seconds[1:] or updates.seconds))


class _FakeTeacher:
    """Computes the teacher's signals with random weights, on the text and on perturbed text of the same length."""

    def __init__(self, spec: RunSpec, model: PreTrainedModel):
        self._spec = spec
        teacher_shape, shape = spec.shapes
        method, precision = spec.inputs.method, spec.inputs.precision
        self.texts = 1 if method.augmentation is None else 2
        self._text = self._perturbed = None
        if teacher_shape is not None:
            self._text = OnlineTeacher(model, spec.inputs.requests(shape, teacher_shape), precision)
            self._perturbed = OnlineTeacher(model, method.perturbed_requests(shape, teacher_shape).teacher, precision)

    def flops(self, passes: Passes) -> int:
        """Count the FLOPs of the student's forward and backward passes, and of the teacher's logits in the loss."""
        teacher, shape = self._spec.shapes
        flops = self._spec.inputs.student_passes * self.texts * padded_flops(shape, passes, self._spec.inputs.predicted)
        return flops + (teacher_head_flops(self._spec.inputs, shape, teacher, passes) if teacher else 0)

    def fetch(self, batch: Batch, phase: int) -> tuple[Signals, PerturbedBatch | None]:
        """Return the teacher's signals for a batch, and the perturbed batch if the method has one."""
        if self._text is None or self._perturbed is None:
            return Signals(), None
        perturbed = PerturbedBatch(batch, self._perturbed.fetch(batch)) if self.texts > 1 else None
        signals = self._text.fetch(batch, phase)
        if self._spec.inputs.sparse_logits is not None and signals.head is not None:
            signals = replace(signals, head=_some_tokens(batch, self._spec.inputs.sparse_logits.count))
        return signals, perturbed


def _some_tokens(batch: Batch, count: int) -> SparseLogits:
    """Return sparse logits of the same shape and cost as those of a cache."""
    ids = batch.labels[..., None].expand(*batch.labels.shape, count)
    entropy = torch.zeros_like(batch.labels, dtype=torch.float32)
    return SparseLogits(ids, torch.full_like(ids, 1 / count, dtype=torch.float32), entropy)


def _steps(spec: RunSpec, examples: TokenizedSplit | Blocks) -> list[list[np.ndarray]]:
    """Return the forward passes of each step of an epoch that one process runs."""
    inputs, lengths = spec.inputs, examples.lengths
    steps = epoch_steps(lengths, inputs.training.batch_size, inputs.training.seed, 0)
    return [split_by_tokens(rows[:: inputs.devices], lengths, inputs.training.batch_tokens) for rows in steps]


def _until(seconds: float, items: Sequence[T]) -> Iterator[T]:
    """Cycle through the items until this much time has passed; yield at least one."""
    start = time.perf_counter()
    for item in itertools.cycle(items):
        yield item
        if time.perf_counter() - start >= seconds:
            return


def _rate(flops: list[int], seconds: list[float]) -> float:
    """Return FLOP/s. The first lap is a warm-up, which counts only if there is no other."""
    first = 1 if len(flops) > 1 else 0
    return sum(flops[first:]) / sum(seconds[first:])


class _Stopwatch:
    """A context manager that times laps, waiting for the device; `seconds` holds the laps."""

    def __init__(self, device: torch.device):
        self._device, self.seconds = device, list[float]()

    @property
    def laps(self) -> int:
        """Return the number of laps."""
        return len(self.seconds)

    def __enter__(self) -> None:
        self._begun = self._now()

    def __exit__(self, *_: object) -> None:
        self.seconds.append(self._now() - self._begun)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def measure_speed(spec: RunSpec, seconds: float) -> Speed | None:
    """Measure this machine's speed for a run for about `seconds`; log and return None if the run does not fit here."""
    needed = spec.estimate().memory.total
    if needed > free_memory():
        say(
            f"the run needs {size(needed)} of memory, more than is free here, so its time is not estimated; "
            "give `plan --flops` to assume a speed."
        )
        return None
    return time_steps(spec, seconds)
