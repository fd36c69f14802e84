"""The results of a comparison in the form that pages and tables read."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from demiglace.results.metric_table import metric_of
from demiglace.results.schema import (
    Artefact,
    Average,
    Cell,
    Difference,
    Missing,
    Primary,
    Teacher,
    find_artefact,
    is_own,
)

Cost = Literal["latency", "size", "parameters"]  # in ms (p50, one row), bytes, a number


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison, from `summary.json` and from the files of its runs."""

    root: Path
    title: str
    cells: tuple[Cell, ...]
    teachers: Mapping[str, Teacher]  # by task
    averages: Mapping[tuple[str, str], Average]  # by student and method
    missing: tuple[Missing, ...]  # runs
    unexported: tuple[Missing, ...]  # exports that failed
    test: Mapping[str, Any]  # level, alpha, power, correction, least_seeds, unit, declared (a sentence)
    primary: tuple[Primary, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)  # days, machines, versions and precisions of training
    config: Mapping[str, Any] = field(default_factory=dict)  # options of the command; empty where unknown
    manifests: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)  # by run directory, in order of execution
    searches: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)  # what each search chose, by directory

    @property
    def unit(self) -> str:
        """Return what runs are paired by: seed or replicate."""
        return str(self.test["unit"])

    @property
    def absent(self) -> tuple[Missing, ...]:
        """Return the missing runs and the exports that failed."""
        return (*self.missing, *self.unexported)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the tasks, in the grid's order."""
        return tuple(dict.fromkeys(c.task for c in self.cells))

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Return every student with every method, in the grid's order."""
        return tuple(dict.fromkeys(c.key for c in self.cells))

    def cells_of(self, key: tuple[str, str]) -> list[Cell]:
        """Return the cells of a student and method, one for each task."""
        return [c for c in self.cells if c.key == key]

    def score(self, key: tuple[str, str]) -> float | None:
        """Return what students and methods are ranked by: the average over all tasks; of one task its deciding metric.

        None where a task is missing: a mean over fewer tasks is not comparable.
        """
        if len(self.tasks) == 1:
            cells = self.cells_of(key)
            return cells[0].own.score.mean if cells else None
        average = self.averages.get(key)
        complete = average is not None and set(average.tasks) == set(self.tasks)
        return average.in_domain.mean if average and complete and average.in_domain else None

    def teacher_score(self) -> float | None:
        """Return the score of the teachers, averaged in the same way; None where one was not measured."""
        if len(self.tasks) == 1:
            teacher = self.teachers.get(self.tasks[0])
            return next(iter(teacher.scores.get(teacher.in_domain, {}).values()), None) if teacher else None
        return self.teacher_average(True, self.tasks)

    def teacher_average(self, inside: bool, tasks: Sequence[str]) -> float | None:
        """Return the average of the teachers of some tasks, in domain or out of it, formed as the students' are.

        None where one of the teachers was not measured.
        """
        teachers = [self.teachers[task] for task in tasks if task in self.teachers]
        if any(not t.scores.get(t.in_domain) for t in teachers) or len(teachers) < len(tasks):
            return None
        means = [mean for t in teachers if (mean := _mean(t, inside)) is not None]
        return sum(means) / len(means) if means else None

    def baseline_of(self, key: tuple[str, str]) -> str:
        """Return which baseline a student and method is: "none", "vanilla-kd" or ""."""
        return next((c.baseline for c in self.cells if c.key == key), "")

    def without_teacher(self, key: tuple[str, str]) -> tuple[str, str] | None:
        """Return the same student with the same axes, trained without a teacher, if it has a score."""
        axes = next((c.axes for c in self.cells if c.key == key), {})
        found = [c for c in self.cells if c.student == key[0] and c.baseline == "none"]
        same = (c.key for c in found if all(axes.get(name) == value for name, value in c.axes.items()))
        return next((k for k in same if self.score(k) is not None), None)

    def against(self, key: tuple[str, str], baseline: str) -> Difference | None:
        """Return the test of `score` against a baseline, where there is one."""
        if len(self.tasks) == 1:
            return next((c.own.against.get(baseline) for c in self.cells_of(key)), None)
        average = self.averages.get(key)
        return None if average is None or self.score(key) is None else average.against.get(baseline)

    def cost(self, key: tuple[str, str], cost: Cost) -> float | None:
        """Return the mean over the tasks of a cost of one student and method; None where one is unknown."""
        return mean_of_all([_cost(c, cost) for c in self.cells_of(key)], len(self.tasks))

    def latency_of_graph(self, key: tuple[str, str]) -> float | None:
        """Return the mean over the tasks of the latency of a student's graph: the median over its methods' exports.

        All methods of a student share one graph. The latencies of their exports differ by measurement noise alone.
        """
        graphs = [[t.latency for t in self.cells if _same_graph(t, c)] for c in self.cells_of(key)]
        known = [[latency for latency in found if latency is not None] for found in graphs]
        return mean_of_all([statistics.median(found) if found else None for found in known], len(self.tasks))

    def teacher_cost(self, cost: Cost) -> float | None:
        """Return the cost of the teachers, averaged in the same way."""
        return mean_of_all([_cost(t, cost) for t in self._teachers], len(self.tasks))

    def seconds(self, key: tuple[str, str]) -> tuple[float, float] | None:
        """Return seconds of capture and of training for one seed of all tasks; None where a task is missing."""
        cells = self.cells_of(key)
        if len(cells) < len(self.tasks):
            return None
        return sum(c.capture.mean for c in cells), sum(c.train.mean for c in cells)

    def teacher_seconds(self) -> float | None:
        """Return the training seconds of all teachers; None where one is unknown."""
        mean = mean_of_all([t.train for t in self._teachers], len(self.tasks))
        return None if mean is None else mean * len(self.tasks)

    def export(self, key: tuple[str, str], precision: str) -> Artefact:
        """Return the means over the tasks of an export's measurements.

        One seed is exported: the score is the mean over the seeds plus the change that this one shows, so that a seed's
        luck does not look like an effect of the precision.
        """
        found = _mean_export([find_artefact(c.artefacts, precision) for c in self.cells_of(key)], len(self.tasks))
        mean = self.score(key)
        return found if mean is None or found.change is None else replace(found, score=mean + found.change)

    def teacher_export(self, precision: str) -> Artefact:
        """Return the same of the teachers' exports."""
        return _mean_export([find_artefact(t.artefacts, precision) for t in self._teachers], len(self.tasks))

    def precisions(self) -> list[str]:
        """Return the precisions of the exports, in the order in which they were written."""
        models: list[Cell | Teacher] = [*self.cells, *self._teachers]
        return list(dict.fromkeys(a.precision for model in models for a in model.artefacts))

    def noise(self) -> float | None:
        """Return the size of a difference that noise alone explains, in units of `metric`.

        It is the median half-width of the intervals of the differences from no teacher; where there are none, twice
        the median standard deviation over seeds. None with one seed.
        """
        tests = [d for key in self.keys if (d := self.against(key, "none")) is not None]
        widths = [(d.interval[1] - d.interval[0]) / 2 for d in tests if d.interval is not None]
        if widths:
            return statistics.median(widths)
        deviations = [sd for key in self.keys if (sd := self._deviation(key)) is not None]
        return 2 * statistics.median(deviations) if deviations else None

    def _deviation(self, key: tuple[str, str]) -> float | None:
        if self.score(key) is None:
            return None
        average = self.averages.get(key)
        stats = self.cells_of(key)[0].own.score if len(self.tasks) == 1 else average and average.in_domain
        return stats.sd if stats else None

    @property
    def _teachers(self) -> list[Teacher]:
        return [self.teachers[task] for task in self.tasks if task in self.teachers]

    @property
    def sign(self) -> int:
        """Return 1 where a higher `score` is better, else −1."""
        return metric_of(self.metric).sign

    @property
    def metric(self) -> str:
        """Return the metric of `score`: the task's, or "average"."""
        return self.cells[0].own.metric if len(self.tasks) == 1 else "average"


def mean_of_all(values: Sequence[float | None], count: int) -> float | None:
    """Return the mean of `count` values; None where one is unknown or missing."""
    known = [v for v in values if v is not None]
    return sum(known) / count if count and len(known) == count else None


def _mean_export(found: Sequence[Artefact | None], count: int) -> Artefact:
    known = [a for a in found if a is not None]

    def mean(name: str) -> float | None:
        return mean_of_all([getattr(a, name) for a in known], count)

    kind = (known[0].format, known[0].precision) if known else ("", "")
    return Artefact(*kind, mean("size"), mean("latency"), mean("agreement"), mean("score"), mean("change"))


def _same_graph(one: Cell, other: Cell) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("task", "student", "axes"))


def _cost(model: Cell | Teacher, cost: Cost) -> float | None:
    return {"latency": model.latency, "size": model.size, "parameters": model.parameters}[cost]


def _mean(teacher: Teacher, inside: bool) -> float | None:
    """Return the mean over the sets of the task, or over the others, of the mean of a set's metrics."""
    sets = [scores for name, scores in teacher.scores.items() if is_own(name, teacher.in_domain) == inside and scores]
    return sum(sum(s.values()) / len(s) for s in sets) / len(sets) if sets else None
