"""Which teacher layers meet which student layers.

Layers count as in `SignalRequest`: 1 is the output of the first layer, n that of the last. All mappings leave the
last layers out unless told otherwise, since the output term already works on them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np

from demiglace.errors import ModelError
from demiglace.methods.base import Progress
from demiglace.models.shape import ModelShape


@dataclass(frozen=True)
class Layers:
    """The layers that take part: `student` in order, and all `teacher` layers that may meet them."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]


class LayerMapping(ABC):
    """A rule by which teacher layers are chosen for the student's layers."""

    final_layer: bool

    def layers(self, student: ModelShape, teacher: ModelShape) -> Layers:
        """The layers of two models that take part; `ModelError` where there are too few."""
        extra = 1 if self.final_layer else 0
        own = tuple(range(1, student.num_layers + extra))
        others = tuple(range(1, teacher.num_layers + extra))
        if not own or len(own) > len(others):
            raise ModelError(
                f"a student of {student.num_layers} and a teacher of {teacher.num_layers} layers leave "
                f"{len(own)} student and {len(others)} teacher layers to match; at least 1 student layer and as many "
                "teacher layers are needed: take another student, or final_layer=true."
            )
        return Layers(own, others)

    @abstractmethod
    def choose(self, layers: Layers, progress: Progress) -> tuple[int, ...]:
        """The teacher layers in use at this point of training, in rising order."""


@dataclass(frozen=True)
class Skip(LayerMapping):
    """Every (n/m)-th teacher layer: 2 4 6 8 10 for 12 → 6 (PKD-Skip, arXiv 1908.09355)."""

    final_layer: bool = False

    def choose(self, layers: Layers, progress: Progress) -> tuple[int, ...]:
        """Teacher layer ⌊i·n/m⌋ for student layer i, n and m being the layers of the whole models."""
        hidden = 0 if self.final_layer else 1
        n, m = len(layers.teacher) + hidden, len(layers.student) + hidden
        return tuple(i * n // m for i in layers.student)


@dataclass(frozen=True)
class Last(LayerMapping):
    """The last teacher layers: 7 8 9 10 11 for 12 → 6 (PKD-Last, arXiv 1908.09355)."""

    final_layer: bool = False

    def choose(self, layers: Layers, progress: Progress) -> tuple[int, ...]:
        """As many of the last ones as the student has."""
        return layers.teacher[-len(layers.student) :]


@dataclass(frozen=True)
class All(LayerMapping):
    """All teacher layers, for terms that weigh them by themselves (ALP-KD)."""

    final_layer: bool = False

    def choose(self, layers: Layers, progress: Progress) -> tuple[int, ...]:
        """Every one."""
        return layers.teacher


Sampling = Literal["epoch", "step", "block", "once"]


@dataclass(frozen=True)
class RandomSorted(LayerMapping):
    """As many teacher layers as student layers, drawn without replacement and sorted (RAIL-KD, arXiv 2109.10164).

    sampling: a new draw every `epoch` (the paper) or `step`; `block`: every epoch one layer out of each of m
    consecutive blocks of teacher layers; `once`: one draw for the whole training.
    """

    sampling: Sampling = "epoch"
    final_layer: bool = False

    def choose(self, layers: Layers, progress: Progress) -> tuple[int, ...]:
        """A pure function of (seed, epoch), and of the step where each step draws."""
        when = {"once": (), "step": (progress.epoch, progress.step)}.get(self.sampling, (progress.epoch,))
        generator = np.random.default_rng((progress.seed, *when))
        count = len(layers.student)
        if self.sampling == "block":
            return tuple(int(generator.choice(b)) for b in np.array_split(np.array(layers.teacher), count))
        return tuple(sorted(generator.choice(layers.teacher, count, replace=False).tolist()))
