"""All that the page about a comparison shows, made ready to be worded, tabled and drawn."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from demiglace.results.schema import Artefact, Average, Cell, Difference, Missing, Primary, Teacher, is_own

Cost = Literal["latency", "size", "parameters"]  # in ms (p50, one row), bytes, a number


@dataclass(frozen=True)
class Comparison:
    """All that the page about a comparison shows.

    unexported: exports that failed. test: level, alpha and the like, `unit` (seed or replicate), `declared` (a sentence
    on the primary tests). config: what the command was given, empty where that is not known; steps:
    manifests by their directories, in an order in which they can be made; searches: what the search at a directory
    chose.
    """

    home: Path
    title: str
    cells: tuple[Cell, ...]
    teachers: Mapping[str, Teacher]
    averages: Mapping[tuple[str, str], Average]
    missing: tuple[Missing, ...]
    unexported: tuple[Missing, ...]
    test: Mapping[str, Any]
    primary: tuple[Primary, ...]
    config: Mapping[str, Any]
    steps: Mapping[Path, Mapping[str, Any]]
    searches: Mapping[Path, Mapping[str, Any]]

    @property
    def unit(self) -> str:
        """What runs are paired by: seed or replicate."""
        return str(self.test["unit"])

    @property
    def absent(self) -> tuple[Missing, ...]:
        """Runs that are not there, and exports that failed."""
        return (*self.missing, *self.unexported)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the grid's order."""
        return tuple(dict.fromkeys(c.task for c in self.cells))

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Every student with every method, in the grid's order."""
        return tuple(dict.fromkeys(c.key for c in self.cells))

    def cells_of(self, key: tuple[str, str]) -> list[Cell]:
        """The cells of a student and method, one a task."""
        return [c for c in self.cells if c.key == key]

    def score(self, key: tuple[str, str]) -> float | None:
        """What students and methods are ordered by: the average over all tasks, or one task's own deciding metric.

        None where a task is missing, for a mean over fewer tasks compares with nothing.
        """
        if len(self.tasks) == 1:
            cells = self.cells_of(key)
            return cells[0].own.score.mean if cells else None
        average = self.averages.get(key)
        complete = average is not None and set(average.tasks) == set(self.tasks)
        return average.in_domain.mean if average and complete and average.in_domain else None

    def teacher_score(self) -> float | None:
        """The teachers' score, made in the same way; None where one of them was not measured."""
        if len(self.tasks) == 1:
            teacher = self.teachers.get(self.tasks[0])
            return next(iter(teacher.scores.get(teacher.in_domain, {}).values()), None) if teacher else None
        return self.teacher_average(inside=True)

    def teacher_average(self, inside: bool) -> float | None:
        """The teachers' average over the tasks, or over those with out-of-domain sets, made as the students' are.

        None where a teacher was not measured.
        """
        if any(not t.scores.get(t.in_domain) for t in self._teachers) or len(self._teachers) < len(self.tasks):
            return None
        means = [mean for t in self._teachers if (mean := _mean(t, inside)) is not None]
        return sum(means) / len(means) if means else None

    def control_of(self, key: tuple[str, str]) -> str:
        """Which of the two controls a student and method is: "none", "vanilla-kd" or, being neither, ""."""
        return next((c.control for c in self.cells if c.key == key), "")

    def without_teacher(self, key: tuple[str, str]) -> tuple[str, str] | None:
        """The same student, with the same axes, trained without a teacher, if it has a score."""
        axes = next((c.axes for c in self.cells if c.key == key), {})
        found = [c for c in self.cells if c.student == key[0] and c.control == "none"]
        same = (c.key for c in found if all(axes.get(name) == value for name, value in c.axes.items()))
        return next((k for k in same if self.score(k) is not None), None)

    def against(self, key: tuple[str, str], control: str) -> Difference | None:
        """How `score` differs from a control, where that was tested."""
        if len(self.tasks) == 1:
            return next((c.own.against.get(control) for c in self.cells_of(key)), None)
        average = self.averages.get(key)
        return None if average is None or self.score(key) is None else average.against.get(control)

    def cost(self, key: tuple[str, str], cost: Cost) -> float | None:
        """Mean over the tasks of a cost of one student and method; None where one is unknown."""
        return mean_of_all([_cost(c, cost) for c in self.cells_of(key)], len(self.tasks))

    def latency_of_graph(self, key: tuple[str, str]) -> float | None:
        """Mean over the tasks of the latency of a student's graph, which is one for all methods: their exports' median.

        Their own latencies differ by the noise of the clock alone, and must not decide which one is ahead.
        """
        graphs = [[t.latency for t in self.cells if _same_graph(t, c)] for c in self.cells_of(key)]
        known = [[latency for latency in found if latency is not None] for found in graphs]
        return mean_of_all([statistics.median(found) if found else None for found in known], len(self.tasks))

    def teacher_cost(self, cost: Cost) -> float | None:
        """The teachers' cost, made in the same way."""
        return mean_of_all([_cost(t, cost) for t in self._teachers], len(self.tasks))

    def seconds(self, key: tuple[str, str]) -> tuple[float, float] | None:
        """Seconds of teacher capture and of training that one seed of all tasks takes; None where a task is missing."""
        cells = self.cells_of(key)
        if len(cells) < len(self.tasks):
            return None
        return sum(c.capture.mean for c in cells), sum(c.train.mean for c in cells)

    def teacher_seconds(self) -> float | None:
        """The training of all teachers; None where one is unknown."""
        mean = mean_of_all([t.train for t in self._teachers], len(self.tasks))
        return None if mean is None else mean * len(self.tasks)

    def export(self, key: tuple[str, str], precision: str) -> Artefact:
        """The means over the tasks of what is known of an export."""
        return _mean_export([c.artefacts.get(precision) for c in self.cells_of(key)], len(self.tasks))

    def teacher_export(self, precision: str) -> Artefact:
        """The teachers' export, made in the same way."""
        return _mean_export([t.artefacts.get(precision) for t in self._teachers], len(self.tasks))

    @property
    def _teachers(self) -> list[Teacher]:
        return [self.teachers[task] for task in self.tasks if task in self.teachers]

    @property
    def metric(self) -> str:
        """The metric of `score`: the task's, or "average"."""
        return self.cells[0].own.metric if len(self.tasks) == 1 else "average"


def mean_of_all(values: Sequence[float | None], count: int) -> float | None:
    """The mean of `count` values; None where one is unknown or missing."""
    known = [v for v in values if v is not None]
    return sum(known) / count if count and len(known) == count else None


def _mean_export(found: Sequence[Artefact | None], count: int) -> Artefact:
    known = [a for a in found if a is not None]
    return Artefact(
        mean_of_all([a.size for a in known], count),
        mean_of_all([a.latency for a in known], count),
        mean_of_all([a.agreement for a in known], count),
    )


def _same_graph(one: Cell, other: Cell) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("task", "student", "axes"))


def _cost(model: Cell | Teacher, cost: Cost) -> float | None:
    return {"latency": model.latency, "size": model.size, "parameters": model.parameters}[cost]


def _mean(teacher: Teacher, inside: bool) -> float | None:
    """The mean over the task's own sets, or over the others, of the mean of a set's metrics."""
    sets = [scores for name, scores in teacher.scores.items() if is_own(name, teacher.in_domain) == inside and scores]
    return sum(sum(s.values()) / len(s) for s in sets) / len(sets) if sets else None
