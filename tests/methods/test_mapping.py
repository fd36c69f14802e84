"""Layer mappings: the published ones, and random ones as pure functions of (seed, epoch)."""

from dataclasses import replace
from functools import cache

import pytest

from demiglace.errors import ModelError
from demiglace.methods.base import TrainingProgress
from demiglace.methods.terms.layer_mapping import (
    AllLayersMapping,
    AllToOne,
    ExplicitMapping,
    Last,
    LayerMapping,
    RandomSorted,
    Reverse,
    Skip,
)
from demiglace.models.shape import ModelShape
from factories import tiny_model

START = TrainingProgress(seed=0, epoch=0, step=0)


@cache
def shape(layers: int) -> ModelShape:
    return replace(ModelShape.of(tiny_model("bert", 2)), num_layers=layers)


def chosen(mapping: LayerMapping, teacher: int, student: int, progress: TrainingProgress = START) -> tuple[int, ...]:
    return mapping.teacher_layers_at(mapping.layers(shape(student), shape(teacher)), progress)


@pytest.mark.parametrize(
    ("mapping", "teacher", "student", "expected"),
    [
        (Skip(), 12, 6, (2, 4, 6, 8, 10)),  # Sun et al. 2019
        (Skip(), 24, 6, (4, 8, 12, 16, 20)),
        (Skip(), 6, 3, (2, 4)),
        (Skip(final_layer=True), 12, 6, (2, 4, 6, 8, 10, 12)),
        (Last(), 12, 6, (7, 8, 9, 10, 11)),
        (Last(final_layer=True), 12, 6, (7, 8, 9, 10, 11, 12)),
        (AllLayersMapping(), 6, 3, (1, 2, 3, 4, 5)),
        (AllLayersMapping(final_layer=True), 4, 2, (1, 2, 3, 4)),
        (Skip(), 6, 1, (6,)),  # a student of one layer has no other layer to match
        (Last(), 6, 1, (6,)),
        (AllLayersMapping(), 3, 1, (1, 2, 3)),
    ],
)
def test_published_mappings(mapping: LayerMapping, teacher: int, student: int, expected: tuple[int, ...]) -> None:
    assert chosen(mapping, teacher, student) == expected


@pytest.mark.parametrize("final_layer", [False, True])
@pytest.mark.parametrize("sampling", ["epoch", "step", "block", "once"])
def test_sampled_layers_are_sorted_distinct_and_in_range(sampling: str, final_layer: bool) -> None:
    mapping = RandomSorted(sampling, final_layer)
    seen = set()
    for epoch in range(200):
        layers = chosen(mapping, 12, 6, TrainingProgress(0, epoch, epoch))
        assert list(layers) == sorted(set(layers))
        assert len(layers) == (6 if final_layer else 5)
        seen |= set(layers)
    everything = set(range(1, 13 if final_layer else 12))
    assert seen == everything if sampling != "once" else len(seen) == len(layers)


@pytest.mark.parametrize(
    ("sampling", "same", "different"),
    [
        ("epoch", TrainingProgress(7, 3, 99), TrainingProgress(7, 4, 40)),
        ("block", TrainingProgress(7, 3, 99), TrainingProgress(7, 4, 40)),
        ("step", TrainingProgress(7, 3, 40), TrainingProgress(7, 3, 41)),
        ("once", TrainingProgress(7, 9, 99), TrainingProgress(8, 3, 40)),
    ],
)
def test_samples_depend_only_on_the_documented_progress(
    sampling: str, same: TrainingProgress, different: TrainingProgress
) -> None:
    mapping, here = RandomSorted(sampling), TrainingProgress(7, 3, 40)
    assert chosen(mapping, 24, 6, here) == chosen(mapping, 24, 6, same)
    assert chosen(mapping, 24, 6, here) != chosen(mapping, 24, 6, different)


def test_all_sets_of_layers_are_equally_likely() -> None:
    mapping, counts = RandomSorted(), {}
    for epoch in range(4000):
        drawn = chosen(mapping, 6, 3, TrainingProgress(0, epoch, 0))
        counts[drawn] = counts.get(drawn, 0) + 1
    assert len(counts) == 10  # 2 of layers 1 to 5
    assert min(counts.values()) > 320
    assert max(counts.values()) < 480


def test_block_samples_one_layer_of_each_block() -> None:
    for epoch in range(50):
        first, second = chosen(RandomSorted("block"), 7, 3, TrainingProgress(0, epoch, 0))
        assert first in (1, 2, 3)
        assert second in (4, 5, 6)


@pytest.mark.parametrize(("teacher", "student"), [(3, 5)])
def test_too_few_layers_are_an_error(teacher: int, student: int) -> None:
    with pytest.raises(ModelError, match=f"student of {student} and a teacher of {teacher} layers"):
        chosen(RandomSorted(), teacher, student)


def pairs(mapping: LayerMapping, teacher: int, student: int) -> list[tuple[int, int]]:
    layers = mapping.layers(shape(student), shape(teacher))
    return list(zip(layers.student, mapping.teacher_layers_at(layers, START), strict=True))


def test_mappings_for_ablations() -> None:
    assert pairs(Reverse(), 12, 6) == [(1, 10), (2, 8), (3, 6), (4, 4), (5, 2)]
    assert pairs(AllToOne(), 12, 6) == [(i, 11) for i in range(1, 6)]
    assert pairs(AllToOne(teacher_layer=12), 12, 6) == [(i, 12) for i in range(1, 6)]
    assert pairs(ExplicitMapping((0, 3), (0, 12)), 12, 6) == [(0, 0), (3, 12)]
    assert [s for s, _ in pairs(RandomSorted(count=2), 12, 6)] == [2, 5]
    assert [s for s, _ in pairs(RandomSorted(count=5), 12, 6)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (AllToOne(teacher_layer=13), "has layer 13; the layers of that model are 0 .* to 12"),
        (ExplicitMapping((1, 2), (3,)), "2 student_layers and 1 teacher_layers"),
        (ExplicitMapping((7,), (3,)), "has layer 7; the layers of that model are 0 .* to 6"),
        (RandomSorted(count=6), "give at most 5"),
    ],
)
def test_unknown_layers_are_refused(mapping: LayerMapping, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        mapping.layers(shape(6), shape(12))
