"""The finished runs of a comparison: by cell, over the tasks, and which of them are the controls."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONTROLS = ("none", "vanilla-kd")
Record = Mapping[str, Any]
Name = tuple[str, str, str, str]  # task, student, method, axes as JSON


@dataclass(frozen=True)
class CellRuns:
    """The finished runs of one cell, by seed, and the seeds that are missing."""

    name: Name
    runs: Mapping[int, Record]
    missing: tuple[int, ...]

    @property
    def first(self) -> Record:
        """The record of its first seed."""
        return next(iter(self.runs.values()))

    @property
    def task(self) -> str:
        """The label of its task."""
        return self.name[0]

    @property
    def student(self) -> str:
        """The label of its student."""
        return self.name[1]

    @property
    def method(self) -> str:
        """The label of its method."""
        return self.name[2]

    @property
    def axes(self) -> Mapping[str, Any]:
        """The values of the grid's axes."""
        axes: Mapping[str, Any] = self.first["axes"]
        return axes


@dataclass(frozen=True)
class Average:
    """A student, method and axes over its tasks, on the seeds that all of them have."""

    cells: tuple[CellRuns, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """Student, method, axes as JSON."""
        return self.cells[0].name[1:]

    @property
    def seeds(self) -> list[int]:
        """The seeds that all tasks have."""
        return [s for s in self.cells[0].runs if all(s in c.runs for c in self.cells)]

    def having(self, own: bool) -> list[CellRuns]:
        """The cells with sets of the task itself, or with out-of-domain ones."""
        return [c for c in self.cells if has_sets(c.first, own)]

    def scores(self, own: bool, seeds: Sequence[int]) -> list[float]:
        """The mean over tasks of the mean over a task's sets of the mean of a set's metrics, by seed."""
        return [statistics.fmean(task_score(c.runs[seed], own) for c in self.having(own)) for seed in seeds]


def outcomes(records: Sequence[Record]) -> list[CellRuns]:
    """The cells of which a run is finished, from the records of student runs."""
    found: dict[Name, list[Record]] = defaultdict(list)
    for r in records:
        found[name_of(r)].append(r)
    done = {name: {r["seed"]: r for r in rows if r["status"] == "done"} for name, rows in found.items()}
    missing = {name: tuple(r["seed"] for r in rows if r["status"] != "done") for name, rows in found.items()}
    return [CellRuns(name, runs, missing[name]) for name, runs in done.items() if runs]


def name_of(record: Record) -> Name:
    """Return the name of the cell that a record of a student run belongs to."""
    return record["task"], record["student"], record["method"], json.dumps(record["axes"], sort_keys=True)


def averages(cells: Sequence[CellRuns]) -> list[Average]:
    """One for each student, method and axes."""
    keys = dict.fromkeys(c.name[1:] for c in cells)
    return [Average(tuple(c for c in cells if c.name[1:] == key)) for key in keys]


def control_label(student: str, control: str, cells: Sequence[CellRuns]) -> str | None:
    """The label of a student's control: the method of that label, or else the first one that is that method."""
    found = [c.method for c in cells if c.student == student and c.first["method_name"] == control]
    return control if control in found else next(iter(found), None)


def is_own(record: Record, name: str) -> bool:
    """Whether a set is one of the task itself: MNLI's two validation splits are one task, as in GLUE."""
    return bool(name.split(":")[0] == record["in_domain"].split(":")[0])


def has_sets(record: Record, own: bool) -> bool:
    """Whether a record has sets of the task itself, or out-of-domain ones."""
    return any(is_own(record, name) == own for name in record["sets"])


def task_score(record: Record, own: bool) -> float:
    """The mean over a task's own sets, or over its out-of-domain ones, of the mean of a set's metrics."""
    sets = [s for name, s in record["sets"].items() if is_own(record, name) == own]
    return statistics.fmean(statistics.fmean(s["metrics"].values()) for s in sets)
