"""What a run will cost, from shapes, lengths and speeds alone: nothing is loaded, run or written here."""

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
    head_bytes,
    padded_flops,
    padded_tokens,
    passes_of,
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
from demiglace.training.schedule import phase_ends

# of a generator's step, numbers for each token of the vocabulary at a refilled place: logits, noise, the soft choice,
# the hard one, their sum and its difference
_FLOATS_PER_SAMPLED_TOKEN = 6


@dataclass(frozen=True)
class Speed:
    """How fast a machine is: sustained operations a second without and with gradients, seconds of an update.

    An update (clipping, AdamW) costs the same however few rows its step has.
    """

    forward: float
    training: float
    update: float = 0.0


@dataclass(frozen=True)
class CostInputs:
    """A run as far as its cost goes. pass_tokens: padded tokens of a forward pass without gradients.

    cache: whether the teacher's signals may be kept on disk; devices: processes that share every step; generator: what
    refills text in methods that ask for it, none = a copy of the teacher. Of language models, predicted: share of the
    tokens that are predicted; telling: which of the teacher's tokens are kept, if any; chunk: tokens whose logits live
    at a time.
    """

    method: Method
    training: TrainConfig
    precision: str = "fp32"
    attention: str = "sdpa"
    cache: bool = True
    cache_dtype: Literal["float16", "float32"] = "float16"
    pass_tokens: int = 2048
    devices: int = 1
    generator: ModelShape | None = None
    predicted: float = 1.0
    telling: SparseLogitConfig | None = None
    chunk: int = 1

    def requests(self, student: ModelShape, teacher: ModelShape) -> list[SignalRequest]:
        """What each phase asks of the teacher."""
        return [self.method.requests(student, teacher, phase).teacher for phase in range(len(self.method.phases))]

    def request(self, student: ModelShape, teacher: ModelShape) -> SignalRequest:
        """What all phases together ask of the teacher."""
        return reduce(or_, self.requests(student, teacher))

    def cached(self, student: ModelShape, teacher: ModelShape) -> bool:
        """Whether the teacher answers about the rows' own text once and for all."""
        request = self.request(student, teacher)
        return self.cache and request.cacheable and not request.empty

    def epochs_of(self, phases: Iterable[bool]) -> int:
        """Epochs of the phases for which that is true."""
        ends = phase_ends(self.training.epochs, self.method.phases)
        begins = (0, *ends[:-1])
        return sum(end - begin for begin, end, counts in zip(begins, ends, phases, strict=True) if counts)

    @property
    def perturbed_epochs(self) -> int:
        """Epochs in which the rows' text is refilled: those of the phases with a term on it."""
        method = self.method
        each = (zip(method.terms, method.active(phase), strict=True) for phase in range(len(method.phases)))
        return self.epochs_of(any(on and w.on == "perturbed" for w, on in terms) for terms in each)


@dataclass(frozen=True)
class Seconds:
    """Wall-clock: the capture, the steps of all epochs, and validation after each of them and at the end."""

    capture: float
    training: float
    validation: float

    @property
    def total(self) -> float:
        """All of it; start-up, reading and tokenising come on top."""
        return self.capture + self.training + self.validation


@dataclass(frozen=True)
class Estimate:
    """What a run will cost. teacher: none where it is asked nothing.

    tokens: real ones of the training rows; padded_tokens: those computed in an epoch. teacher_flops: of asking it about
    every training row, `teacher_passes` times (1 with a cache); student_flops: of one epoch on the rows' own text,
    forward and backward; validation_flops: of all validation in the run, and of the test rows. In `perturbed_passes`
    epochs there is perturbed text too, which costs student_flops once more, and perturbed_flops: of the generator, its
    steps, and the teacher.
    """

    teacher: ModelShape | None
    student: ModelShape
    rows: int
    tokens: int
    padded_tokens: int
    steps: int
    epochs: int
    teacher_flops: int
    teacher_passes: int
    student_flops: int
    perturbed_flops: int
    perturbed_passes: int
    validation_flops: int
    cache_bytes: int
    memory: Memory
    seconds: Seconds | None
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
    setup: CostInputs,
    speed: Speed | None = None,
) -> Estimate:
    """The cost of training `student` on rows of these lengths, by split: "train", and "validation" and "test" if any.

    Arithmetic: F(T) of `models.shape.forward_flops` for every row of every batch as the loop will make it, padding
    included; the teacher F once a row, the student 3 F an epoch (a backward pass is two forward passes). Perturbed text
    costs the same again in each of its epochs, never cached, and the generator's passes. The logits of a language
    model's teacher that is online are made beside the student's, and count with them. Seconds: (teacher's + student's
    operations) / (speed · devices) + updates; every process validates alone. Without a speed no seconds are told.
    Raises `ConfigError` and `ModelError` where the method does not suit epochs or models.
    """
    rows, training = lengths["train"], setup.training
    steps, passes = epoch_passes(rows, training)
    cached = teacher is not None and setup.cached(student, teacher)
    times = 0 if teacher is None else 1 if cached else _online_epochs(setup, student, teacher)
    perturbed = 0 if teacher is None else setup.perturbed_epochs
    held = teacher if times or perturbed else None
    learning = (1 + BACKWARD) * padded_flops(student, passes, setup.predicted)
    asking = 0
    if held is not None:
        learning += teacher_head_flops(setup, student, held, passes)
        asked, share = (_without_gradients(rows, setup), 1.0) if cached else (passes, 0.0)
        asking = padded_flops(held, asked, share)
    stays = None if held is None or not perturbed else held  # beside a cache too
    memory = training_memory(student, _activations(setup, student, rows, stays), held, cached=cached and stays is None)
    found = Estimate(
        teacher=held,
        student=student,
        rows=len(rows),
        tokens=int(rows.sum()),
        padded_tokens=padded_tokens(passes),
        steps=steps,
        epochs=training.epochs,
        teacher_flops=asking,
        teacher_passes=times,
        student_flops=learning,
        perturbed_flops=0 if stays is None else _perturbed_flops(setup, student, stays, passes),
        perturbed_passes=perturbed,
        validation_flops=_validation_flops(setup, student, lengths),
        cache_bytes=_cache_key(setup, student, held, rows).bytes if cached and held else 0,
        memory=memory if stays is None else replace(memory, generator=_generator_bytes(setup, stays)),
        seconds=None,
    )
    return found if speed is None else replace(found, seconds=_seconds(found, speed, setup.devices))


def teacher_head_flops(setup: CostInputs, student: ModelShape, teacher: ModelShape, passes: Passes) -> int:
    """Operations of a language model's logits that a teacher who is online makes beside the student's."""
    if setup.telling is not None or not setup.request(student, teacher).logits:
        return 0
    return padded_flops(teacher, passes, setup.predicted) - padded_flops(teacher, passes, 0.0)


def epoch_passes(lengths: np.ndarray, training: TrainConfig) -> tuple[int, Passes]:
    """How many steps an epoch of these rows has, and their forward passes with gradients."""
    if _is_even(lengths):
        whole, rest = divmod(len(lengths), training.batch_size)
        full, last = (_even_passes(n, int(lengths[0]), training.batch_tokens) for n in (training.batch_size, rest))
        return whole + bool(rest), Counter({size: n * whole for size, n in full.items()}) + last
    steps = epoch_steps(lengths, training.batch_size, training.seed, 0)
    parts = (part for step in steps for part in split_by_tokens(step, lengths, training.batch_tokens))
    return len(steps), passes_of(lengths, parts)


def _without_gradients(lengths: np.ndarray, setup: CostInputs) -> Passes:
    """The forward passes of asking a model once about every row."""
    if _is_even(lengths):
        return _even_passes(len(lengths), int(lengths[0]), setup.pass_tokens)
    return passes_of(lengths, sorted_batches(lengths, setup.pass_tokens))


def _is_even(lengths: np.ndarray) -> bool:
    """Whether all rows are of one length, as blocks of text are, of which there may be too many to plan one by one."""
    return len(lengths) > 0 and lengths.min() == lengths.max()


def _even_passes(rows: int, tokens: int, most: int) -> Counter[tuple[int, int]]:
    """Rows of one length, cut as `split_by_tokens` cuts them."""
    together = max(1, most // tokens)
    whole, rest = divmod(rows, together)
    return +Counter({(together, tokens): whole}) + Counter({(rest, tokens): 1} if rest else {})


def _seconds(found: Estimate, speed: Speed, devices: int) -> Seconds:
    learning = (found.epochs + found.perturbed_passes) * found.student_flops / (speed.training * devices)
    teaching = found.teacher_flops * found.teacher_passes / (speed.forward * devices)
    refilling = found.perturbed_flops * found.perturbed_passes / (speed.forward * devices)
    cached = found.cache_bytes > 0
    return Seconds(
        capture=teaching if cached else 0.0,
        training=learning + found.epochs * found.steps * speed.update + refilling + (0.0 if cached else teaching),
        validation=found.validation_flops / speed.forward,
    )


def _online_epochs(setup: CostInputs, student: ModelShape, teacher: ModelShape) -> int:
    """Epochs in which a teacher that is not cached is asked anything about the rows' own text."""
    return setup.epochs_of(not request.empty for request in setup.requests(student, teacher))


def _perturbed_flops(setup: CostInputs, student: ModelShape, teacher: ModelShape, passes: Passes) -> int:
    """Operations of making an epoch's perturbed text and asking the teacher about it, and of the generator's steps.

    In those the gradient goes through student and teacher to the generator: one more pass of each, and two of its own.
    """
    options = setup.method.augmentation
    assert isinstance(options, AdversarialMasking)
    own, other = (padded_flops(s, passes) for s in (student, teacher))
    making = padded_flops(_generator(setup, teacher), passes, options.mask_share)
    share = min(1.0, options.generator_steps / options.student_steps) if options.train_generator else 0.0
    return making + other + round(share * (2 * own + 2 * other + (1 + BACKWARD) * making))


def _generator(setup: CostInputs, teacher: ModelShape) -> ModelShape:
    """What refills text: the named model, or the teacher's body with its embeddings as output layer."""
    if setup.generator is not None:
        return setup.generator
    head = teacher.vocab_size * teacher.hidden_size
    return replace(teacher, head_parameters=head, embedding_parameters=teacher.embedding_parameters - head)


def _generator_bytes(setup: CostInputs, teacher: ModelShape) -> int:
    """A generator in fp32; where it is trained with its gradients and AdamW's two moments."""
    options = setup.method.augmentation
    assert isinstance(options, AdversarialMasking)
    return (16 if options.train_generator else 4) * _generator(setup, teacher).parameters


def _cache_key(setup: CostInputs, student: ModelShape, teacher: ModelShape, lengths: np.ndarray) -> CacheSpec:
    """What is kept of the teacher, without its fingerprints."""
    poolings = setup.request(student, teacher).poolings
    if setup.telling is not None:
        return SparseLogitCacheKey(
            teacher="",
            blocks="",
            rows=len(lengths),
            size=int(lengths[0]),
            vocabulary=teacher.vocab_size,
            telling=setup.telling,
            layers=teacher.num_layers,
            width=teacher.hidden_size,
            poolings=poolings,
            dtype=setup.cache_dtype,
            precision=setup.precision,
        )
    return CacheKey(
        teacher="",
        tokens="",
        rows=len(lengths),
        outputs=teacher.num_labels,
        layers=teacher.num_layers,
        width=teacher.hidden_size,
        poolings=poolings,
        dtype=setup.cache_dtype,
        precision=setup.precision,
    )


def _activations(setup: CostInputs, student: ModelShape, lengths: np.ndarray, teacher: ModelShape | None) -> int:
    """Of the largest forward pass of a process, and of a language model's logits.

    teacher: where it is asked about perturbed text. Both texts then live until the backward pass; and a step of the
    generator keeps those of all three models, and of each refilled place some numbers for every token.
    """
    share = replace(setup.training, batch_size=-(-setup.training.batch_size // setup.devices))
    options = setup.method.augmentation if teacher is not None else None
    most = 0
    for rows, tokens in epoch_passes(lengths, share)[1]:

        def kept(shape: ModelShape, rows: int, tokens: int = tokens) -> int:
            return activation_bytes(shape, rows, tokens, setup.precision, setup.attention)

        most = max(most, kept(student, rows if options is None else 2 * rows))
        if isinstance(options, AdversarialMasking) and options.train_generator and teacher is not None:
            refilled = 4 * _FLOATS_PER_SAMPLED_TOKEN * round(options.mask_share * rows * tokens) * teacher.vocab_size
            most = max(most, sum(kept(s, rows) for s in (student, teacher, _generator(setup, teacher))) + refilled)
    return most + head_bytes(student, setup.chunk)


def _validation_flops(setup: CostInputs, student: ModelShape, lengths: Mapping[str, np.ndarray]) -> int:
    """Validation rows after every epoch and, with test rows, once more for the best one."""
    times = {"validation": setup.training.epochs + 1, "test": 1}
    return sum(
        count * padded_flops(student, _without_gradients(lengths[name], setup), setup.predicted)
        for name, count in times.items()
        if name in lengths
    )
