"""Estimate the cost of a run from shapes, lengths and speeds; nothing is loaded, run or written."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import or_
from typing import Literal

import numpy as np

from demiglace.config.training import TrainConfig
from demiglace.costs.flops import (
    BACKWARD,
    Memory,
    Passes,
    activation_bytes,
    forward_passes,
    head_bytes,
    padded_flops,
    padded_tokens,
    training_memory,
)
from demiglace.data.batching import epoch_steps, sorted_batches, split_by_tokens
from demiglace.methods.base import Method
from demiglace.methods.terms.adversarial_masking import AdversarialMasking
from demiglace.models.shape import ModelShape
from demiglace.runs.files import to_json
from demiglace.signals.hidden_state_cache import CacheKey
from demiglace.signals.request import SignalRequest
from demiglace.signals.shard_store import CacheSpec
from demiglace.signals.sparse_logit_cache import SparseLogitCacheKey, SparseLogitConfig
from demiglace.training.schedule import TrainingSchedule, epochs_of

# Numbers that a generator step keeps per vocabulary token at each sampled position: logits, noise, the soft sample, the
# hard sample, their sum and their difference.
_FLOATS_PER_SAMPLED_TOKEN = 6


@dataclass(frozen=True)
class Speed:
    """The speed of a machine."""

    forward: float  # sustained FLOP/s of forward passes without gradients
    training: float  # sustained FLOP/s of forward and backward passes
    update: float = 0.0  # seconds per optimizer update (clipping, AdamW), independent of the batch size


@dataclass(frozen=True)
class CostInputs:
    """The options of a run that its cost depends on."""

    method: Method
    training: TrainConfig
    precision: str = "fp32"
    attention: str = "sdpa"
    cache: bool = True  # the teacher's signals may be cached
    cache_dtype: Literal["float16", "float32"] = "float16"
    pass_tokens: int = 2048  # padded tokens of a forward pass without gradients
    devices: int = 1  # processes that share every step
    generator: ModelShape | None = None  # model that perturbs the text, if the method does; None: a copy of the teacher
    by_word: bool = False  # words have logits; a token is counted as a word, so that the cache is not underestimated
    predicted: float = 1.0  # language models: share of the tokens that are predicted
    sparse_logits: SparseLogitConfig | None = None  # language models: which of the teacher's logits are cached
    chunk: int = 1  # language models: tokens whose logits are in memory at once

    @property
    def student_passes(self) -> int:
        """Return the cost of the student's forward and backward pass, in forward passes."""
        return 1 + BACKWARD + self.training.gradient_checkpointing

    def requests(self, student: ModelShape, teacher: ModelShape) -> list[SignalRequest]:
        """Return the signals that each phase needs from the teacher."""
        return [self.method.requests(student, teacher, phase).teacher for phase in range(len(self.method.phases))]

    def request(self, student: ModelShape, teacher: ModelShape) -> SignalRequest:
        """Return the signals that all phases together need from the teacher."""
        return reduce(or_, self.requests(student, teacher))

    def cached(self, student: ModelShape, teacher: ModelShape) -> bool:
        """Return whether the teacher's signals for the unperturbed text are cached."""
        request = self.request(student, teacher)
        return self.cache and request.is_cacheable and not request.is_empty

    def epochs_of(self, phases: Iterable[bool], epoch_steps: int) -> float:
        """Count the epochs of the phases that `phases` selects; one that --max-steps ends early counts by its share."""
        schedule = TrainingSchedule.of(self.training, self.method.phases, epoch_steps)
        steps = sum(schedule.steps_of_phase(i) for i, counts in enumerate(phases) if counts)
        return steps / epoch_steps if steps % epoch_steps else steps // epoch_steps

    def perturbed_epochs(self, epoch_steps: int) -> float:
        """Count the epochs with perturbed text: those of the phases with a term on it."""
        method = self.method
        each = (zip(method.terms, method.active(phase), strict=True) for phase in range(len(method.phases)))
        return self.epochs_of((any(on and w.input == "perturbed" for w, on in terms) for terms in each), epoch_steps)


@dataclass(frozen=True)
class Seconds:
    """The wall time of a run in seconds."""

    capture: float  # filling the cache of the teacher's signals
    training: float  # the steps of all epochs
    validation: float  # after each epoch and at the end

    @property
    def total(self) -> float:
        """Return the total, without start-up, reading and tokenising."""
        return self.capture + self.training + self.validation


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a run."""

    teacher: ModelShape | None  # None if it is not used
    student: ModelShape
    rows: int  # for training
    tokens: int  # of the training rows, without padding
    padded_tokens: int  # computed per epoch
    steps: int  # per epoch
    epochs: float  # with --max-steps the last one counts by its share
    teacher_flops: int  # of one forward pass over the training rows
    teacher_passes: float  # number of these passes: 1 with a cache, otherwise one per epoch that uses the teacher
    student_flops: int  # per epoch on unperturbed text, forward and backward
    perturbed_flops: int  # per epoch with perturbed text, besides student_flops: generator, its steps, and teacher
    perturbed_passes: float  # number of epochs with perturbed text
    validation_flops: int  # of all validation, and of the test rows
    cache_bytes: int  # on disk
    memory: Memory
    seconds: Seconds | None  # None without a speed
    lines: tuple[str, ...] = ()  # the same in words

    def __str__(self) -> str:
        """Return the estimate in words."""
        return "\n".join(self.lines) or repr(self)

    def to_json(self) -> str:
        """Return all numbers as JSON."""
        return to_json({name: value for name, value in asdict(self).items() if name != "lines"})


def estimate(
    teacher: ModelShape | None,
    student: ModelShape,
    lengths: Mapping[str, np.ndarray],
    inputs: CostInputs,
    speed: Speed | None = None,
) -> Estimate:
    """Estimate the cost of a run.

    FLOPs: F(T) of `models.shape.forward_flops` for every row of every batch as the training loop makes it, padding
    included. The teacher costs F per row. The student costs 3 F per row and epoch, since a backward pass costs two
    forward passes, and 4 F with gradient checkpointing. Perturbed text costs the same again in each of its epochs, and
    is never cached; the generator's passes are added. An online teacher of a language model computes its logits in the
    loss, so they count as student FLOPs.
    Seconds: (teacher's + student's FLOPs) / (speed · devices) + updates. Every process validates all rows.

    Args:
        teacher: shape; None without a teacher.
        student: shape.
        lengths: split -> tokens of each row; "train", and "validation" and "test" if they exist.
        inputs: options of the run.
        speed: of the machine; None: no seconds are estimated.

    Raises:
        ConfigError, ModelError: the method does not fit the epochs or the models.
    """
    rows, training = lengths["train"], inputs.training
    steps, passes = epoch_passes(rows, training)
    cached = teacher is not None and inputs.cached(student, teacher)
    times = 0 if teacher is None else 1 if cached else _online_epochs(inputs, student, teacher, steps)
    perturbed = 0 if teacher is None else inputs.perturbed_epochs(steps)
    used_teacher = teacher if times or perturbed else None
    student_flops = inputs.student_passes * padded_flops(student, passes, inputs.predicted)
    teacher_flops = 0
    if used_teacher is not None:
        student_flops += teacher_head_flops(inputs, student, used_teacher, passes)
        teacher_passes, share = (_without_gradients(rows, inputs), 1.0) if cached else (passes, 0.0)
        teacher_flops = padded_flops(used_teacher, teacher_passes, share)
    perturbed_teacher = None if used_teacher is None or not perturbed else used_teacher  # needed even with a cache
    activations = _activations(inputs, student, rows, perturbed_teacher)
    memory = training_memory(student, activations, used_teacher, cached=cached and perturbed_teacher is None)
    perturbed_flops = 0
    if perturbed_teacher is not None:
        memory = replace(memory, generator=_generator_bytes(inputs, perturbed_teacher))
        perturbed_flops = _perturbed_flops(inputs, student, perturbed_teacher, passes)
    result = Estimate(
        teacher=used_teacher,
        student=student,
        rows=len(rows),
        tokens=int(rows.sum()),
        padded_tokens=padded_tokens(passes),
        steps=steps,
        epochs=inputs.epochs_of([True] * len(inputs.method.phases), steps),
        teacher_flops=teacher_flops,
        teacher_passes=times,
        student_flops=student_flops,
        perturbed_flops=perturbed_flops,
        perturbed_passes=perturbed,
        validation_flops=_validation_flops(inputs, student, lengths, epochs_of(training, steps)),
        cache_bytes=_cache_key(inputs, student, used_teacher, rows).bytes if cached and used_teacher else 0,
        memory=memory,
        seconds=None,
    )
    return result if speed is None else replace(result, seconds=_seconds(result, speed, inputs.devices))


def teacher_head_flops(inputs: CostInputs, student: ModelShape, teacher: ModelShape, passes: Passes) -> int:
    """Count the FLOPs of a language model's logits that an online teacher computes in the loss."""
    if inputs.sparse_logits is not None or not inputs.request(student, teacher).logits:
        return 0
    return padded_flops(teacher, passes, inputs.predicted) - padded_flops(teacher, passes, 0.0)


def epoch_passes(lengths: np.ndarray, training: TrainConfig) -> tuple[int, Passes]:
    """Return the number of steps of an epoch of these rows, and their forward passes with gradients."""
    if _is_uniform(lengths):
        full_steps, rest = divmod(len(lengths), training.batch_size)
        full, last = (_uniform_passes(n, int(lengths[0]), training.batch_tokens) for n in (training.batch_size, rest))
        return full_steps + bool(rest), Counter({size: n * full_steps for size, n in full.items()}) + last
    steps = epoch_steps(lengths, training.batch_size, training.seed, 0)
    parts = (part for step in steps for part in split_by_tokens(step, lengths, training.batch_tokens))
    return len(steps), forward_passes(lengths, parts)


def _without_gradients(lengths: np.ndarray, inputs: CostInputs) -> Passes:
    """Return the forward passes without gradients over all rows."""
    if _is_uniform(lengths):
        return _uniform_passes(len(lengths), int(lengths[0]), inputs.pass_tokens)
    return forward_passes(lengths, sorted_batches(lengths, inputs.pass_tokens))


def _is_uniform(lengths: np.ndarray) -> bool:
    """Return whether all rows have one length, as blocks have. Their passes are computed without a loop over rows."""
    return len(lengths) > 0 and lengths.min() == lengths.max()


def _uniform_passes(rows: int, tokens: int, max_tokens: int) -> Counter[tuple[int, int]]:
    """Return the passes of rows of one length, split as `split_by_tokens` does."""
    per_pass = max(1, max_tokens // tokens)
    full, rest = divmod(rows, per_pass)
    return +Counter({(per_pass, tokens): full}) + Counter({(rest, tokens): 1} if rest else {})


def _seconds(result: Estimate, speed: Speed, devices: int) -> Seconds:
    student_seconds = (result.epochs + result.perturbed_passes) * result.student_flops / (speed.training * devices)
    teacher_seconds = result.teacher_flops * result.teacher_passes / (speed.forward * devices)
    perturbed_seconds = result.perturbed_flops * result.perturbed_passes / (speed.forward * devices)
    cached = result.cache_bytes > 0
    update_seconds = result.epochs * result.steps * speed.update
    online_seconds = 0.0 if cached else teacher_seconds
    return Seconds(
        capture=teacher_seconds if cached else 0.0,
        training=student_seconds + update_seconds + perturbed_seconds + online_seconds,
        validation=result.validation_flops / speed.forward,
    )


def _online_epochs(inputs: CostInputs, student: ModelShape, teacher: ModelShape, epoch_steps: int) -> float:
    """Count the epochs in which an uncached teacher runs on unperturbed text."""
    return inputs.epochs_of((not request.is_empty for request in inputs.requests(student, teacher)), epoch_steps)


def _perturbed_flops(inputs: CostInputs, student: ModelShape, teacher: ModelShape, passes: Passes) -> int:
    """Count the FLOPs of an epoch's perturbed text: generating it, the teacher on it, and the generator's steps.

    In a generator step, the gradient flows through student and teacher to the generator: a forward and a backward pass
    (with respect to the input only) of student and teacher, and a full one of the generator.
    """
    options = inputs.method.augmentation
    assert isinstance(options, AdversarialMasking)
    student_pass, teacher_pass = (padded_flops(s, passes) for s in (student, teacher))
    generator_flops = padded_flops(_generator(inputs, teacher), passes, options.mask_share)
    share = min(1.0, options.generator_steps / options.student_steps) if options.train_generator else 0.0
    generator_step = 2 * student_pass + 2 * teacher_pass + (1 + BACKWARD) * generator_flops
    return generator_flops + teacher_pass + round(share * generator_step)


def _generator(inputs: CostInputs, teacher: ModelShape) -> ModelShape:
    """Return the shape of the generator: the named model, or the teacher with its embeddings as output layer."""
    if inputs.generator is not None:
        return inputs.generator
    head = teacher.vocab_size * teacher.hidden_size
    return replace(teacher, head_parameters=head, embedding_parameters=teacher.embedding_parameters - head)


def _generator_bytes(inputs: CostInputs, teacher: ModelShape) -> int:
    """Return the bytes of the generator in fp32, with gradients and AdamW's two moments if it is trained."""
    options = inputs.method.augmentation
    assert isinstance(options, AdversarialMasking)
    return (16 if options.train_generator else 4) * _generator(inputs, teacher).parameters


def _cache_key(inputs: CostInputs, student: ModelShape, teacher: ModelShape, lengths: np.ndarray) -> CacheSpec:
    """Return the spec of the cache of the teacher's signals, without fingerprints."""
    poolings = inputs.request(student, teacher).poolings
    if inputs.sparse_logits is not None:
        return SparseLogitCacheKey(
            teacher="",
            blocks="",
            rows=len(lengths),
            size=int(lengths[0]),
            vocabulary=teacher.vocab_size,
            sparse_logits=inputs.sparse_logits,
            layers=teacher.num_layers,
            width=teacher.hidden_size,
            poolings=poolings,
            dtype=inputs.cache_dtype,
            precision=inputs.precision,
        )
    return CacheKey(
        teacher="",
        tokens="",
        rows=len(lengths),
        outputs=teacher.num_labels,
        words=int(lengths.max()) if inputs.by_word else None,
        layers=teacher.num_layers,
        width=teacher.hidden_size,
        poolings=poolings,
        dtype=inputs.cache_dtype,
        precision=inputs.precision,
    )


def _activations(inputs: CostInputs, student: ModelShape, lengths: np.ndarray, teacher: ModelShape | None) -> int:
    """Return the bytes of activations of a process's largest forward pass, and of a language model's logits.

    With perturbed text, the activations of both texts are kept until the backward pass. A generator step keeps those of
    all three models, and some numbers per vocabulary token at each sampled position.

    Args:
        inputs: options of the run.
        student: shape.
        lengths: tokens of each training row.
        teacher: shape, if it runs on perturbed text.
    """
    share = replace(inputs.training, batch_size=-(-inputs.training.batch_size // inputs.devices))
    options = inputs.method.augmentation if teacher is not None else None
    peak = 0
    for rows, tokens in epoch_passes(lengths, share)[1]:

        def activations_of(shape: ModelShape, rows: int, tokens: int = tokens) -> int:
            checkpointing = inputs.training.gradient_checkpointing and shape is student
            return activation_bytes(
                shape, rows, tokens, inputs.precision, inputs.attention, checkpointing=checkpointing
            )

        peak = max(peak, activations_of(student, rows if options is None else 2 * rows))
        if isinstance(options, AdversarialMasking) and options.train_generator and teacher is not None:
            sampled_bytes = (
                4 * _FLOATS_PER_SAMPLED_TOKEN * round(options.mask_share * rows * tokens) * teacher.vocab_size
            )
            shapes = (student, teacher, _generator(inputs, teacher))
            peak = max(peak, sum(activations_of(shape, rows) for shape in shapes) + sampled_bytes)
    return peak + head_bytes(student, inputs.chunk)


def _validation_flops(inputs: CostInputs, student: ModelShape, lengths: Mapping[str, np.ndarray], epochs: int) -> int:
    """Count the FLOPs of validation after every epoch and of the best epoch, and of the test rows."""
    times = {"validation": epochs + 1, "test": 1}
    return sum(
        count * padded_flops(student, _without_gradients(lengths[name], inputs), inputs.predicted)
        for name, count in times.items()
        if name in lengths
    )
