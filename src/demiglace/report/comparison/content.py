"""What a comparison's directory says, made ready to be worded, tabled and drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from demiglace.report.content import Log, Scores

LOWER_IS_BETTER = ("mse", "loss")
POINTS = ("accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman")


@dataclass(frozen=True)
class Spread:
    """A number over seeds: mean, standard deviation, interval of the mean; the last two None with one seed."""

    mean: float
    sd: float | None
    values: tuple[float, ...]
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Difference:
    """A method minus a control in the deciding metric: its interval, corrected p, and the verdict in words."""

    difference: float
    interval: tuple[float, float]
    p: float | None
    verdict: str


@dataclass(frozen=True)
class SetResult:
    """A cell on one set. own: whether the set belongs to the task itself; groups: parts of the set, deciding metric."""

    name: str
    metric: str
    rows: float
    own: bool
    score: Spread
    agreement: Spread | None
    ece: Spread | None
    worst_class_f1: Spread | None
    groups: Mapping[str, Spread]
    against: Mapping[str, Difference]


@dataclass(frozen=True)
class Cell:
    """One task, student and method (with its axes) over its seeds.

    control: "none" or "vanilla-kd" where the method is one of the two. runs, evaluations: directories below the
    comparison's, in the order of the seeds. curve: epoch -> validation scores, means over seeds; log: of the first
    seed; changes: against the teacher, a mapping for each seed that has one (see `evaluation.results.changes`).
    """

    task: str
    student: str
    method: str
    control: str
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    runs: tuple[str, ...]
    evaluations: tuple[str, ...]
    in_domain: str
    sets: Mapping[str, SetResult]
    layers: float | None
    parameters: float | None
    size: float | None
    capture: Spread
    train: Spread
    latency: float | None
    log: Log = field(default_factory=Log)
    curve: Mapping[int, Scores] = field(default_factory=dict)
    changes: tuple[Mapping[str, Any], ...] = ()

    @property
    def own(self) -> SetResult:
        """The set that the task's results are about."""
        return self.sets[self.in_domain]

    @property
    def key(self) -> tuple[str, str]:
        """Student and method: what is chosen among."""
        return self.student, self.method


@dataclass(frozen=True)
class Teacher:
    """A task's teacher. scores: set -> metrics, in its own order."""

    run: str
    in_domain: str
    scores: Mapping[str, Scores]
    layers: float | None
    parameters: float | None
    size: float | None
    latency: float | None


@dataclass(frozen=True)
class Average:
    """A student and method over all the tasks in `tasks`."""

    tasks: tuple[str, ...]
    in_domain: Spread | None
    out_of_domain: Spread | None


@dataclass(frozen=True)
class Missing:
    """A run that is not there, and why."""

    run: str
    status: str
    error: str


@dataclass(frozen=True)
class Comparison:
    """All that the page about a comparison shows. manifests: of every run that is there, by its directory."""

    home: Path
    title: str
    cells: tuple[Cell, ...]
    teachers: Mapping[str, Teacher]
    averages: Mapping[tuple[str, str], Average]
    missing: tuple[Missing, ...]
    test: Mapping[str, Any]
    grid: Mapping[str, Any] | None
    searched: bool
    manifests: Mapping[str, Mapping[str, Any]]

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
        found = [self.teachers.get(task) for task in self.tasks]
        scores = [t.scores.get(t.in_domain, {}) for t in found if t is not None]
        if len(scores) < len(found) or not all(scores):
            return None
        if len(scores) == 1:
            return next(iter(scores[0].values()))
        return sum(map(_macro, (t for t in found if t is not None))) / len(found)

    def control_of(self, key: tuple[str, str]) -> str:
        """Which of the two controls a student and method is: "none", "vanilla-kd" or, being neither, ""."""
        return next((c.control for c in self.cells if c.key == key), "")

    def without_teacher(self, key: tuple[str, str]) -> tuple[str, str] | None:
        """The same student trained without a teacher, if it has a score."""
        found = (k for k in self.keys if k[0] == key[0] and self.control_of(k) == "none")
        return next((k for k in found if self.score(k) is not None), None)

    def cost(self, key: tuple[str, str], name: Literal["latency", "size"]) -> float | None:
        """Mean over the tasks of the latency in ms (p50, one row) or the size in bytes; None where one is unknown."""
        return _mean([c.latency if name == "latency" else c.size for c in self.cells_of(key)])

    def teacher_cost(self, name: Literal["latency", "size"]) -> float | None:
        """The teachers' cost, made in the same way."""
        found = [self.teachers[task] for task in self.tasks if task in self.teachers]
        return _mean([t.latency if name == "latency" else t.size for t in found])

    @property
    def metric(self) -> str:
        """The metric of `score`: the task's, or "average"."""
        return self.cells[0].own.metric if len(self.tasks) == 1 else "average"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _macro(teacher: Teacher) -> float:
    """The mean over the sets of the task's own name of the mean of their metrics, as for the students' averages."""
    sets = [scores for name, scores in teacher.scores.items() if is_own(name, teacher.in_domain)]
    return sum(sum(s.values()) / len(s) for s in sets) / len(sets)


def is_own(name: str, in_domain: str) -> bool:
    """Whether a set is one of the task's own: MNLI's two validation splits both are."""
    return name.split(":")[0] == in_domain.split(":")[0]
