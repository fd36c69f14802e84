"""The search for students that fit, the rungs of the training, and the choice of the file."""

import re
from dataclasses import replace

import pytest
from transformers import BertConfig

from demiglace.compress.artefacts import ModelFile
from demiglace.compress.budget import Budget, Cost
from demiglace.compress.candidates import Student, config_of, grid
from demiglace.compress.choice import choose, drop, none_fits
from demiglace.compress.halving import TimeLimit, Trained, promoted, rung_epochs, rung_seed
from demiglace.compress.search import Proposals, check_possible, propose
from demiglace.errors import ConfigError, RunError
from demiglace.methods.base import TrainingProgress
from demiglace.methods.terms.layer_mapping import MatchedLayers, RandomSorted

CONFIG = BertConfig(num_hidden_layers=12, hidden_size=32, num_attention_heads=4, intermediate_size=3072)


def by_layers(student: Student) -> dict[str, Cost]:
    """fp32 takes 10 MB and 1 ms for each layer, int8 a quarter of the size and half the time."""
    full = Cost(student.layers * 10_000_000, float(student.layers))
    return {"fp32": full, "int8": Cost(full.bytes // 4, full.latency_ms / 2)}


def found(budget: Budget, count: int = 3) -> tuple[Proposals, list[int]]:
    """The proposals for a model of 12 layers, and the layers of the students that were measured."""
    measured: list[int] = []

    def measure(student: Student) -> dict[str, Cost]:
        measured.append(student.layers)
        return by_layers(student)

    return propose(grid(CONFIG, None), measure, budget, count), measured


def test_the_grid_has_smaller_models_only():
    assert [s.layers for s in grid(CONFIG, None)] == [8, 6, 5, 4, 3, 2, 1]
    assert [s.layers for s in grid(CONFIG, (3, 9, 12))] == [9, 3]
    assert grid(CONFIG, (2, 12), ("full", "trim")) == [Student(12, "trim"), Student(2), Student(2, "trim")]
    narrow = grid(CONFIG, (2,), narrow=True)
    assert {(s.hidden_size, s.intermediate_size) for s in narrow} == {
        *((hidden, units) for hidden in (None, 24, 16) for units in (None, 1536))
    }
    assert [s.hidden_size for s in narrow] == [None, None, 24, 24, 16, 16]
    assert [s.intermediate_size for s in narrow] == [None, 1536] * 3
    assert (narrow[-1].hidden_size, config_of(narrow[-1], CONFIG).hidden_size) == (16, 16)
    with pytest.raises(ConfigError, match="--layers was given 13; the model has 12 layers"):
        grid(CONFIG, (3, 13))
    with pytest.raises(ConfigError, match="--layers 12 is the model itself"):
        grid(CONFIG, (12,))
    assert config_of(Student(3), CONFIG).num_hidden_layers == 3


def test_a_student_that_is_smaller_in_every_dimension_costs_no_more():
    assert Student(2, "trim").is_within(Student(3))
    assert Student(3, "trim").is_within(Student(3))
    assert not Student(3).is_within(Student(3, "trim"))
    assert not Student(3).is_within(Student(2))
    assert Student(3, hidden_size=16).is_within(Student(3, hidden_size=24))
    assert not Student(3, hidden_size=16).is_within(Student(3, intermediate_size=64))
    assert not Student(0).is_within(Student(3))
    assert not Student(1, "trim").is_within(Student(0))
    assert Student(3, "trim", hidden_size=16).key == "layers-3-hidden-16-trimmed"
    assert Student(0, "trim").options == {"student": "static", "vocabulary": "trim"}
    assert Student(3, "trim").name == "3 layers, trimmed vocabulary"


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(max_mb=16), [6, 5, 4]),
        (Budget(max_mb=1000, max_latency_ms=1.6), [3, 2, 1]),
        (Budget(max_mb=2.5), [1]),
        (Budget(max_mb=1000), [8, 6, 5]),
    ],
)
def test_the_largest_students_that_fit_are_proposed(budget, expected):
    proposals, _ = found(budget)
    assert [s.layers for s in proposals.students] == expected


def test_few_students_are_measured_and_each_once():
    proposals, measured = found(Budget(max_mb=16), count=1)
    assert [s.layers for s in proposals.students] == [6]
    assert len(measured) == len(set(measured)) <= 4


@pytest.mark.parametrize(
    ("limit", "count", "expected"),
    [  # MB: a full layer takes 4, one with half of the feed-forward units 3, one of hidden size 16 1.5 or 1
        (9.0, 2, [(2, None, None), (3, None, 1536)]),
        (9.0, 3, [(2, None, None), (3, None, 1536), (3, 24, None)]),
        (2.0, 1, [(1, 24, 1536)]),
        (2.0, 2, [(1, 24, 1536), (1, 16, None)]),
        (1.2, 4, [(1, 16, 1536)]),
    ],
)
def test_narrower_hidden_states_are_proposed_last(limit: float, count: int, expected: list):
    measured: list[Student] = []

    def measure(student: Student) -> dict[str, Cost]:
        measured.append(student)
        of_layer = {None: 4.0, 24: 2.6, 16: 1.5}[student.hidden_size] * (0.75 if student.intermediate_size else 1)
        return {"fp32": Cost(round(student.layers * of_layer * 1e6), 1.0)}

    students = grid(CONFIG, (1, 2, 3), narrow=True)
    proposals = propose(students, measure, Budget(max_mb=limit), count)
    assert [(s.layers, s.hidden_size, s.intermediate_size) for s in proposals.students] == expected
    assert len(measured) == len(set(measured)) < len(students)
    if count == 2 and limit == 9:
        assert {s.hidden_size for s in measured} == {None, 16}  # of the narrowest only the smallest student


def test_only_the_smallest_student_is_measured_where_it_is_too_large():
    proposals, measured = found(Budget(max_mb=0.5))
    assert (proposals.students, measured) == ((), [1])


def test_a_latency_close_to_the_limit_is_left_out():
    proposals, _ = found(Budget(max_latency_ms=3.05))  # 6 layers take 3 ms, which another measurement may exceed
    assert proposals.students[0].layers == 5


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(max_mb=0.5), r"--max-mb 0.5 is impossible: .* 1 layer in int8, takes 2.5 MB .* --max-mb 2.5\."),
        (Budget(max_latency_ms=0.1), r"--max-latency-ms 0.1 is impossible on this machine.* --max-latency-ms 0.53\."),
    ],
)
def test_an_impossible_limit_is_named_with_the_nearest_possible_one(budget, message):
    proposals, _ = found(budget)
    assert proposals.students == ()
    with pytest.raises(RunError, match=message):
        check_possible(proposals.measured, budget)


def test_two_limits_that_exclude_each_other():
    costs = {"fp32": Cost(20_000_000, 1.0), "int4": Cost(5_000_000, 9.0)}
    with pytest.raises(RunError, match=r"no candidate meets both limits at once\. The smallest one, 1 layer in int4"):
        check_possible({Student(1): costs}, Budget(max_mb=6, max_latency_ms=2))


def test_rungs_double_the_epochs():
    assert rung_epochs(1, 4) == rung_epochs(2, 4) == [4]
    assert rung_epochs(4, 4) == [2, 2]
    assert rung_epochs(8, 8) == [2, 2, 4]
    assert rung_epochs(8, 1) == [1, 1, 1]


def test_each_rung_draws_other_batches_and_layers():
    seeds = [rung_seed(7, number) for number in (1, 2, 3)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 3
    assert seeds == [rung_seed(7, number) for number in (1, 2, 3)]
    layers, mapping = MatchedLayers(tuple(range(1, 6)), tuple(range(1, 12))), RandomSorted()
    draws = [[mapping.teacher_layers_at(layers, TrainingProgress(s, epoch, 0)) for epoch in (0, 1)] for s in seeds]
    assert draws[0] != draws[1] != draws[2]


def trained(*qualities: float) -> list[Trained]:
    return [Trained(Student(i + 1), "none", "", q) for i, q in enumerate(qualities)]


def test_the_better_half_is_promoted_and_of_equals_the_smaller():
    assert [t.student.layers for t in promoted(trained(0.5, 0.9, 0.9, 0.7, 0.8), 1)] == [2, 3, 5]
    assert [t.student.layers for t in promoted(trained(0.5, 0.9, 0.8, 0.7), -1)] == [1, 4]
    assert len(promoted(trained(0.5), 1)) == 1


def test_the_first_run_may_begin_and_later_ones_only_if_they_fit():
    limit = TimeLimit(100)
    assert limit.allows(8)
    limit.add(8, {"train": 40, "evaluate": 5, "capture": 10})
    assert limit.used == 55
    assert limit.allows(9)
    assert not limit.allows(10)
    limit.add(8, {"train": 40, "evaluate": 5, "capture": 10})
    assert limit.used == 100  # the cache was filled once
    assert TimeLimit(None).allows(1e9)


def file(name: str, validation: float, megabytes: float = 5, latency: float = 1, test: float = 0.5) -> ModelFile:
    cost = Cost(round(megabytes * 1e6), latency)
    scores = {"accuracy": validation}, {"accuracy": test}
    return ModelFile(name, "student", "", "int8", "", "", name, cost, scores[0], 1.0, scores[1])


TEACHER = file("teacher", 0.93, 90, 7)


def chosen(files: list[ModelFile], budget: Budget) -> str | None:
    best = choose([TEACHER, *files], TEACHER, "accuracy", budget)
    return best and best.model


def test_the_best_on_validation_rows_is_chosen_whatever_the_test_rows_are():
    files = [file("a", 0.91, test=0.99), file("b", 0.92, test=0.1), file("large", 0.99, 9)]
    assert chosen(files, Budget(max_mb=8)) == "b"
    assert chosen([file("slow", 0.9, latency=2), file("quick", 0.9, latency=1)], Budget(max_mb=8)) == "quick"
    assert chosen(files, Budget(max_mb=8, max_drop=0.5)) is None
    assert chosen(files, Budget(max_mb=8, max_drop=1)) == "b"
    assert drop(files[0], TEACHER, "accuracy") == pytest.approx(2)


def test_a_correlation_has_points_too():
    teacher, student = (replace(TEACHER, validation={"pearson": r}) for r in (0.91, 0.9))
    assert drop(student, teacher, "pearson") == pytest.approx(1)
    assert choose([student], teacher, "pearson", Budget(max_mb=100, max_drop=1)) == student


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(max_mb=8, max_drop=1), "--max-drop 1 is not met: .* a, int8 is the best .* 3 points below .* Give"),
        (Budget(max_mb=4), "--max-mb 4: no exported file is within the limits. The nearest, a, int8, takes 5.00"),
    ],
)
def test_what_misses_the_budget_is_named(budget: Budget, message: str):
    text = none_fits([TEACHER, file("a", 0.9), file("b", 0.8)], TEACHER, "accuracy", budget)
    assert re.search(message, text), text
