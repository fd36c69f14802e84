"""Which teacher layers meet which student layers.

Layers count as in `SignalRequest`: 1 is the output of the first layer, n that of the last. Mappings with an option
`final_layer` leave the last layers out unless it is true, since the output term already works on them. A student of one
layer has no other layer, so its last one is matched. `UniformMapping`, `Final` and `ExplicitMapping` always match the
last layers.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np

from demiglace.config.options import option
from demiglace.errors import ModelError
from demiglace.methods.base import TrainingProgress
from demiglace.models.shape import ModelShape


@dataclass(frozen=True)
class MatchedLayers:
    """The layers that take part: `student` in order, and all `teacher` layers that may meet them."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    final: bool = True  # whether the last layers take part


class LayerMapping(ABC):
    """A rule by which teacher layers are chosen for the student's layers."""

    final_layer: bool

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """The layers of two models that take part; `ModelError` where there are too few."""
        final = self.final_layer or student.num_layers == 1
        extra = 1 if final else 0
        own = tuple(range(1, student.num_layers + extra))
        others = tuple(range(1, teacher.num_layers + extra))
        if not own or len(own) > len(others):
            raise ModelError(
                f"a student of {student.num_layers} and a teacher of {teacher.num_layers} layers leave "
                f"{len(own)} student and {len(others)} teacher layers to match; at least 1 student layer and as many "
                "teacher layers are needed: take another student, or final_layer=true."
            )
        return MatchedLayers(own, others, final)

    @abstractmethod
    def choose(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return the teacher layers in use at this point: the i-th for the i-th student layer, or all of them."""

    def is_paired(self, layers: MatchedLayers) -> bool:
        """Whether there is one teacher layer in use for each student layer."""
        return len(self.choose(layers, TrainingProgress(0, 0, 0))) == len(layers.student)


@dataclass(frozen=True)
class Skip(LayerMapping):
    """Every (n/m)-th teacher layer: 2 4 6 8 10 for 12 → 6 (PKD-Skip, arXiv 1908.09355)."""

    final_layer: bool = False

    def choose(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Teacher layer ⌊i·n/m⌋ for student layer i, n and m being the layers of the whole models."""
        hidden = 0 if layers.final else 1
        n, m = len(layers.teacher) + hidden, len(layers.student) + hidden
        return tuple(i * n // m for i in layers.student)


@dataclass(frozen=True)
class Last(LayerMapping):
    """The last teacher layers: 7 8 9 10 11 for 12 → 6 (PKD-Last, arXiv 1908.09355)."""

    final_layer: bool = False

    def choose(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """As many of the last ones as the student has."""
        return layers.teacher[-len(layers.student) :]


@dataclass(frozen=True)
class AllLayersMapping(LayerMapping):
    """All teacher layers, for terms that weigh them by themselves (ALP-KD)."""

    final_layer: bool = False

    def choose(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Every one."""
        return layers.teacher


@dataclass(frozen=True)
class Reverse(LayerMapping):
    """The layers of `Skip` in reverse: the first student layer meets the last of them (arXiv 2502.04499, sec. 3)."""

    final_layer: bool = False

    def choose(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Those layers, falling."""
        return Skip(self.final_layer).choose(layers, progress)[::-1]


@dataclass(frozen=True)
class AllToOne(LayerMapping):
    """Every student layer meets the same teacher layer, none = the last that takes part (arXiv 2502.04499, sec. 3)."""

    teacher_layer: int | None = None
    final_layer: bool = False

    def choose(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """That layer, once for each student layer."""
        layer = layers.teacher[-1] if self.teacher_layer is None else self.teacher_layer
        return (layer,) * len(layers.student)

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """As every mapping's. Raises `ModelError` where the teacher has no such layer."""
        if self.teacher_layer is not None:
            _check_layers("teacher_layer", (self.teacher_layer,), teacher.num_layers)
        found = super().layers(student, teacher)
        return found if self.teacher_layer is None else MatchedLayers(found.student, (self.teacher_layer,))


@dataclass(frozen=True)
class ExplicitMapping(LayerMapping):
    """The i-th of these student layers meets the i-th of these teacher layers; layers count from 1, 0 = embeddings."""

    student_layers: tuple[int, ...]
    teacher_layers: tuple[int, ...]
    final_layer = True

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """The lists. Raises `ModelError` where they differ in length or name a layer that is not there."""
        if len(self.student_layers) != len(self.teacher_layers) or not self.student_layers:
            raise ModelError(
                f"{len(self.student_layers)} student_layers and {len(self.teacher_layers)} teacher_layers were given; "
                "one teacher layer is needed for each student layer, and at least one pair."
            )
        _check_layers("student_layers", self.student_layers, student.num_layers)
        _check_layers("teacher_layers", self.teacher_layers, teacher.num_layers)
        return MatchedLayers(self.student_layers, self.teacher_layers)

    def choose(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """The list."""
        return self.teacher_layers


def _check_layers(option: str, layers: tuple[int, ...], count: int) -> None:
    missing = [layer for layer in layers if not 0 <= layer <= count]
    if missing:
        raise ModelError(f"{option} names layer {missing[0]}; that model's layers are 0 (embeddings) to {count}.")


@dataclass(frozen=True)
class UniformMapping(LayerMapping):
    """Every student layer, the last one too, with every (n/m)-th teacher layer (TinyBERT, arXiv 1909.10351, sec. 3)."""

    final_layer = True

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """Student layer i and teacher layer ⌊i·n/m⌋; no other teacher layer is asked for."""
        layers = super().layers(student, teacher)
        n, m = teacher.num_layers, student.num_layers
        return MatchedLayers(layers.student, tuple(i * n // m for i in layers.student))

    def choose(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Always the same."""
        return layers.teacher


@dataclass(frozen=True)
class Final(LayerMapping):
    """The student's last layer and one teacher layer, none = the last (MiniLM, arXiv 2002.10957; MiniLMv2)."""

    teacher_layer: int | None = None
    final_layer = True

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """One pair. Raises `ModelError` where the teacher has no such layer."""
        layer = teacher.num_layers if self.teacher_layer is None else self.teacher_layer
        if not 1 <= layer <= teacher.num_layers:
            raise ModelError(f"teacher_layer={layer} was given; the teacher's layers are 1 to {teacher.num_layers}.")
        return MatchedLayers((student.num_layers,), (layer,))

    def choose(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Always the same."""
        return layers.teacher


Sampling = Literal["epoch", "step", "block", "once"]


@dataclass(frozen=True)
class RandomSorted(LayerMapping):
    """As many teacher layers as student layers, drawn without replacement and sorted (RAIL-KD, arXiv 2109.10164).

    sampling: a new draw every `epoch` (the paper) or `step`; `block`: every epoch one layer out of each of m
    consecutive blocks of teacher layers; `once`: one draw for the whole training. count: how many student layers take
    part, spread evenly and the last of them always; none = all.
    """

    sampling: Sampling = "epoch"
    final_layer: bool = False
    count: int | None = option("how many student layers take part; none: all", None, at_least=1)

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """As every mapping's, with `count` of the student's. Raises `ModelError` where it has not as many."""
        found = super().layers(student, teacher)
        m = len(found.student)
        if self.count is None:
            return found
        if self.count > m:
            raise ModelError(f"count={self.count} was given, and {m} student layer(s) can take part; give at most {m}.")
        return MatchedLayers(
            tuple(found.student[i * m // self.count - 1] for i in range(1, self.count + 1)), found.teacher, found.final
        )

    def choose(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """A pure function of (seed, epoch), and of the step where each step draws."""
        when = {"once": (), "step": (progress.epoch, progress.step)}.get(self.sampling, (progress.epoch,))
        generator = np.random.default_rng((progress.seed, *when))
        count = len(layers.student)
        if self.sampling == "block":
            return tuple(int(generator.choice(b)) for b in np.array_split(np.array(layers.teacher), count))
        return tuple(sorted(generator.choice(layers.teacher, count, replace=False).tolist()))
