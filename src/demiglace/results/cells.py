"""The finished runs of a comparison by cell and over the tasks, as `summarize` averages and tests them."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demiglace.results.schema import is_own

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
        """Return the record of the first seed."""
        return next(iter(self.runs.values()))

    @property
    def task(self) -> str:
        """Return the label of the task."""
        return self.name[0]

    @property
    def student(self) -> str:
        """Return the label of the student."""
        return self.name[1]

    @property
    def method(self) -> str:
        """Return the label of the method."""
        return self.name[2]

    @property
    def axes(self) -> Mapping[str, Any]:
        """Return the values of the grid's axes."""
        axes: Mapping[str, Any] = self.first["axes"]
        return axes


@dataclass(frozen=True)
class Average:
    """A student, method and axes over its tasks, on the seeds that all tasks have."""

    cells: tuple[CellRuns, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """Return student, method, and axes as JSON."""
        return self.cells[0].name[1:]

    @property
    def seeds(self) -> list[int]:
        """Return the seeds that all tasks have."""
        return [s for s in self.cells[0].runs if all(s in c.runs for c in self.cells)]

    def having(self, own: bool) -> list[CellRuns]:
        """Return the cells with sets of their task, or with out-of-domain ones."""
        return [c for c in self.cells if has_sets(c.first, own)]

    def scores(self, own: bool, seeds: Sequence[int]) -> list[float]:
        """Return by seed the mean over tasks of the mean over a task's sets of the mean of a set's metrics."""
        return [statistics.fmean(task_score(c.runs[seed], own) for c in self.having(own)) for seed in seeds]


def cells_of(records: Sequence[Record]) -> list[CellRuns]:
    """Return the cells with a finished run, from the records of student runs."""
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
    """Return one average for each student, method and axes."""
    keys = dict.fromkeys(c.name[1:] for c in cells)
    return [Average(tuple(c for c in cells if c.name[1:] == key)) for key in keys]


def baseline_label(student: str, baseline: str, cells: Sequence[CellRuns]) -> str | None:
    """Return the label of a student's baseline: the method of that label, or else the first one of that method."""
    found = [c.method for c in cells if c.student == student and c.first["method_name"] == baseline]
    return baseline if baseline in found else next(iter(found), None)


def has_sets(record: Record, own: bool) -> bool:
    """Return whether a record has sets of its task, or out-of-domain ones."""
    return any(is_own(name, record["in_domain"]) == own for name in record["sets"])


def task_score(record: Record, own: bool) -> float:
    """Return the mean over the sets of a task, or over its out-of-domain ones, of the mean of a set's metrics."""
    sets = [s for name, s in record["sets"].items() if is_own(name, record["in_domain"]) == own]
    return statistics.fmean(statistics.fmean(s["metrics"].values()) for s in sets)
