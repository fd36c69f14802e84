"""Layer mappings: which teacher layers are matched with which student layers.

Layers are numbered as in `SignalRequest`: 1 is the output of the first layer, n that of the last. Mappings with an
option `final_layer` leave the last layers out unless it is true, because the loss on the logits already trains them.
The last layer of a one-layer student is always matched. `UniformMapping`, `Final` and `ExplicitMapping` always match
the last layers.
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
    """The layers of two models that a mapping uses."""

    student: tuple[int, ...]  # matched student layers, in order
    teacher: tuple[int, ...]  # all teacher layers that may be matched with them
    final: bool = True  # whether the last layers are included


class LayerMapping(ABC):
    """A rule that selects teacher layers for the student's layers."""

    final_layer: bool

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """Return the layers of two models that are matched. Raises `ModelError` if there are too few."""
        final = self.final_layer or student.num_layers == 1
        extra = 1 if final else 0
        student_layers = tuple(range(1, student.num_layers + extra))
        teacher_layers = tuple(range(1, teacher.num_layers + extra))
        if not student_layers or len(student_layers) > len(teacher_layers):
            raise ModelError(
                f"a student of {student.num_layers} and a teacher of {teacher.num_layers} layers leave "
                f"{len(student_layers)} student and {len(teacher_layers)} teacher layers to match; at least 1 student "
                "layer and as many teacher layers are needed: use another student, or give final_layer=true."
            )
        return MatchedLayers(student_layers, teacher_layers, final)

    @abstractmethod
    def teacher_layers_at(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return the teacher layers used at this point of training: one for each student layer, or all of them."""

    def is_paired(self, layers: MatchedLayers) -> bool:
        """Return whether each student layer is matched with exactly one teacher layer."""
        return len(self.teacher_layers_at(layers, TrainingProgress(0, 0, 0))) == len(layers.student)


@dataclass(frozen=True)
class Skip(LayerMapping):
    """Every (n/m)-th teacher layer: 2 4 6 8 10 for 12 → 6 (PKD-Skip, arXiv 1908.09355)."""

    final_layer: bool = False

    def teacher_layers_at(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return teacher layer ⌊i·n/m⌋ for student layer i; n and m are the numbers of layers of the full models."""
        hidden = 0 if layers.final else 1
        n, m = len(layers.teacher) + hidden, len(layers.student) + hidden
        return tuple(i * n // m for i in layers.student)


@dataclass(frozen=True)
class Last(LayerMapping):
    """The last teacher layers: 7 8 9 10 11 for 12 → 6 (PKD-Last, arXiv 1908.09355)."""

    final_layer: bool = False

    def teacher_layers_at(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return the last teacher layers, as many as there are student layers."""
        return layers.teacher[-len(layers.student) :]


@dataclass(frozen=True)
class AllLayersMapping(LayerMapping):
    """All teacher layers for each student layer, for terms that weight them by attention (ALP-KD)."""

    final_layer: bool = False

    def teacher_layers_at(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return all matched teacher layers."""
        return layers.teacher


@dataclass(frozen=True)
class Reverse(LayerMapping):
    """The layers of `Skip` in descending order: the first student layer gets the last (arXiv 2502.04499, sec. 3)."""

    final_layer: bool = False

    def teacher_layers_at(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return the layers of `Skip` in descending order."""
        return Skip(self.final_layer).teacher_layers_at(layers, progress)[::-1]


@dataclass(frozen=True)
class AllToOne(LayerMapping):
    """One teacher layer for all student layers (arXiv 2502.04499, sec. 3)."""

    teacher_layer: int | None = None  # None: the last matched layer
    final_layer: bool = False

    def teacher_layers_at(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return that layer once for each student layer."""
        layer = layers.teacher[-1] if self.teacher_layer is None else self.teacher_layer
        return (layer,) * len(layers.student)

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """Return the matched layers. Raises `ModelError` if the teacher has no such layer."""
        if self.teacher_layer is not None:
            _check_layers("teacher_layer", (self.teacher_layer,), teacher.num_layers)
        matched = super().layers(student, teacher)
        return matched if self.teacher_layer is None else MatchedLayers(matched.student, (self.teacher_layer,))


@dataclass(frozen=True)
class ExplicitMapping(LayerMapping):
    """Two lists of layers: the i-th student layer is matched with the i-th teacher layer. Layer 0 is the embeddings."""

    student_layers: tuple[int, ...]
    teacher_layers: tuple[int, ...]
    final_layer = True

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """Return the lists. Raises `ModelError` if they differ in length or name a layer that does not exist."""
        if len(self.student_layers) != len(self.teacher_layers) or not self.student_layers:
            raise ModelError(
                f"{len(self.student_layers)} student_layers and {len(self.teacher_layers)} teacher_layers were given; "
                "give one teacher layer for each student layer, and at least one pair."
            )
        _check_layers("student_layers", self.student_layers, student.num_layers)
        _check_layers("teacher_layers", self.teacher_layers, teacher.num_layers)
        return MatchedLayers(self.student_layers, self.teacher_layers)

    def teacher_layers_at(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return the list of teacher layers."""
        return self.teacher_layers


def _check_layers(option: str, layers: tuple[int, ...], count: int) -> None:
    missing = [layer for layer in layers if not 0 <= layer <= count]
    if missing:
        raise ModelError(f"{option} has layer {missing[0]}; the layers of that model are 0 (embeddings) to {count}.")


@dataclass(frozen=True)
class UniformMapping(LayerMapping):
    """Every (n/m)-th teacher layer, the last layers included (TinyBERT, arXiv 1909.10351, sec. 3)."""

    final_layer = True

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """Return student layer i and teacher layer ⌊i·n/m⌋; no other teacher layer is requested."""
        layers = super().layers(student, teacher)
        n, m = teacher.num_layers, student.num_layers
        return MatchedLayers(layers.student, tuple(i * n // m for i in layers.student))

    def teacher_layers_at(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return the same layers at every point of training."""
        return layers.teacher


@dataclass(frozen=True)
class Final(LayerMapping):
    """The student's last layer and one teacher layer (MiniLM, arXiv 2002.10957; MiniLMv2, arXiv 2012.15828)."""

    teacher_layer: int | None = None  # None: the last layer
    final_layer = True

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """Return one pair. Raises `ModelError` if the teacher has no such layer."""
        layer = teacher.num_layers if self.teacher_layer is None else self.teacher_layer
        if not 1 <= layer <= teacher.num_layers:
            raise ModelError(f"teacher_layer={layer} was given; the teacher's layers are 1 to {teacher.num_layers}.")
        return MatchedLayers((student.num_layers,), (layer,))

    def teacher_layers_at(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return the same layers at every point of training."""
        return layers.teacher


Sampling = Literal["epoch", "step", "block", "once"]


@dataclass(frozen=True)
class RandomSorted(LayerMapping):
    """As many teacher layers as student layers, sampled without replacement and sorted (RAIL-KD, arXiv 2109.10164)."""

    # new layers every "epoch" (the paper) or "step"; "block": every epoch one layer from each of m consecutive blocks
    # of teacher layers; "once": one sample for the full training
    sampling: Sampling = "epoch"
    final_layer: bool = False
    # student layers to match: evenly spaced, always including the last of them
    count: int | None = option("number of student layers to match, evenly spaced; none: all", None, at_least=1)

    def layers(self, student: ModelShape, teacher: ModelShape) -> MatchedLayers:
        """Return the matched layers, `count` of the student's. Raises `ModelError` if the student has fewer."""
        matched = super().layers(student, teacher)
        m = len(matched.student)
        if self.count is None:
            return matched
        if self.count > m:
            raise ModelError(
                f"count={self.count} was given, but only {m} student layer(s) can be matched; give at most {m}."
            )
        return MatchedLayers(
            tuple(matched.student[i * m // self.count - 1] for i in range(1, self.count + 1)),
            matched.teacher,
            matched.final,
        )

    def teacher_layers_at(self, layers: MatchedLayers, progress: TrainingProgress) -> tuple[int, ...]:
        """Return the sampled layers, a pure function of the seed, the epoch and, if `sampling` is "step", the step."""
        when = {"once": (), "step": (progress.epoch, progress.step)}.get(self.sampling, (progress.epoch,))
        generator = np.random.default_rng((progress.seed, *when))
        count = len(layers.student)
        if self.sampling == "block":
            return tuple(int(generator.choice(b)) for b in np.array_split(np.array(layers.teacher), count))
        return tuple(sorted(generator.choice(layers.teacher, count, replace=False).tolist()))
