"""The cells of a grid, the student runs in them, and their directories. All functions are pure."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from demiglace.compare.grid import RUN_OPTIONS, Grid, Options, method_name
from demiglace.config.command_options import FinetuneConfig
from demiglace.config.data import DataConfig
from demiglace.config.options import options_of
from demiglace.errors import ConfigError
from demiglace.methods.registry import find_method, is_file

_DOTTED = "method_options."
_ROW_OPTIONS = [o.name for o in options_of(DataConfig)]
_TEACHER_ROW_OPTIONS = {o.name for o in options_of(FinetuneConfig)} - {"unlabelled"}


@dataclass(frozen=True)
class Cell:
    """One combination of task, student, method and axis values."""

    task: str  # label
    student: str  # label
    method: str  # label
    axes: Mapping[str, Any] = field(default_factory=dict)  # option -> value
    options: Options = field(default_factory=dict)  # of its runs, without paths and seed

    @property
    def method_path(self) -> str:
        """Return the directory of its method, relative to the comparison."""
        return f"{self.task}/{self.student}/{self.method}"

    @property
    def path(self) -> str:
        """Return its directory, relative to the comparison: TASK/STUDENT/METHOD, then AXIS=VALUE for each axis."""
        return "/".join(
            [self.method_path, *(f"{k.removeprefix(_DOTTED)}={_path_part(v)}" for k, v in self.axes.items())]
        )


@dataclass(frozen=True)
class StudentRun:
    """One cell with one seed or replicate."""

    cell: Cell
    seed: int  # the seed, or the number of the replicate
    unit: str = "seed"  # or "replicate"

    @property
    def path(self) -> str:
        """Return its run directory, relative to the comparison."""
        return f"{self.cell.path}/{self.unit}-{self.seed}"

    @property
    def evaluation(self) -> str:
        """Return the directory of its evaluation, relative to the comparison."""
        return f"{self.path}.evaluation"

    @property
    def export(self) -> str:
        """Return the directory of its export, relative to the comparison; it may not exist."""
        return f"{self.path}.export"


def cells(grid: Grid) -> list[Cell]:
    """Return all cells, by task, then student, then method.

    A method's cells leave out the axes that it has no option for. Raises `ConfigError` if two cells have one directory.
    """
    all_cells = [
        cell
        for task, student, method in itertools.product(grid.tasks, grid.students, grid.methods)
        if grid.has(task, student, method)
        for cell in _cells_of(grid, task, student, method)
    ]
    paths = [cell.path.lower() for cell in all_cells]
    duplicates = {p for p in paths if paths.count(p) > 1}
    if duplicates:
        raise ConfigError(
            f"several cells have the directory {', '.join(sorted(duplicates))}; use different labels or values."
        )
    return all_cells


def student_runs(grid: Grid) -> list[StudentRun]:
    """Return all student runs, ordered by seed, so that an interrupted comparison has complete seeds."""
    return [StudentRun(cell, seed, grid.unit) for seed in grid.seeds for cell in cells(grid)]


def shared_path(grid: Grid, path: str, number: int) -> str:
    """Return the directory of a teacher, its signals or a truncation: `path`, or `path`/replicate-`number`."""
    return f"{path}/replicate-{number}" if grid.unit == "replicate" else path


def teacher_path(grid: Grid, task: str, number: int) -> str:
    """Return the directory of a task's fine-tuned teacher, relative to the comparison, for a seed or replicate."""
    return shared_path(grid, f"{task}/teacher", number)


def shard_runs(runs: list[StudentRun], number: int, count: int) -> list[StudentRun]:
    """Return the runs of shard `number` (from 1) of `count`: every count-th run."""
    return runs[number - 1 :: count]


def skipped_names(grid: Grid) -> dict[str, list[str]]:
    """Return, for each method label, the axes and searched options that the method does not have."""
    wanted = [*grid.axes, *(grid.search.ranges if grid.search else ())]
    missing = {label: [n for n in wanted if not has_option(grid, label, n)] for label in grid.methods}
    return {label: names for label, names in missing.items() if names}


def has_option(grid: Grid, label: str, name: str) -> bool:
    """Return whether the method of a label has the option that an axis or a range names."""
    if name in RUN_OPTIONS:
        return True
    method = method_name(label, grid.methods[label])
    if is_file(method):
        return False
    return name.removeprefix(_DOTTED) in [o.name for o in options_of(find_method(method).options)]


def with_values(options: Options, values: Options) -> dict[str, Any]:
    """Return options updated with values; a name `method_options.NAME` updates an entry of `method_options`."""
    merged = dict(options)
    for name, value in values.items():
        if name.startswith(_DOTTED):
            entry = {name.removeprefix(_DOTTED): value}
            merged["method_options"] = {**merged.get("method_options", {}), **entry}
        else:
            merged[name] = value
    return merged


def _cells_of(grid: Grid, task: str, student: str, method: str) -> Iterator[Cell]:
    names = [name for name in grid.axes if has_option(grid, method, name)]
    base = cell_options(grid, task, method)
    for values in itertools.product(*(grid.axes[name] for name in names)):
        axes = dict(zip(names, values, strict=True))
        yield Cell(task, student, method, axes, with_values(base, axes))


def cell_options(grid: Grid, task: str, method: str) -> dict[str, Any]:
    """Return the options of a task and a method without axes: the defaults, updated by the task, then by the method."""
    base = {**grid.defaults, "data": task, **_run_options(grid.tasks[task]), **grid.methods[method]}
    return {**base, "method": method_name(method, grid.methods[method])}


def _run_options(task: Options) -> dict[str, Any]:
    """Return the options of a task without its sections `teacher` and `evaluate`."""
    return {name: value for name, value in task.items() if name not in ("teacher", "evaluate")}


def row_options(grid: Grid, task: str) -> dict[str, Any]:
    """Return the options about rows of a task, which its teacher and students share."""
    merged = {**grid.defaults, "data": task, **_run_options(grid.tasks[task])}
    return {k: v for k, v in merged.items() if k in (*_ROW_OPTIONS, "allow_pickle")}


def teacher_options(grid: Grid, task: str) -> dict[str, Any]:
    """Return the options of a task's teacher: those about rows, updated by the grid's `teacher`, then the task's."""
    rows = {k: v for k, v in row_options(grid, task).items() if k in _TEACHER_ROW_OPTIONS}
    shared, specific = grid.teacher, grid.tasks[task]["teacher"]
    if "model" in specific:  # this task fine-tunes its teacher; the finished one is for the other tasks
        shared = {k: v for k, v in shared.items() if k != "run"}
    return {**rows, **shared, **specific}


def _path_part(value: Any) -> str:
    """Format a value for a path: 0.0001, bottom, 1-2."""
    if isinstance(value, (list, tuple)):
        return "-".join(map(_path_part, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text)
