"""A grid laid out: its cells, the student runs in them and where each of them lies. All pure."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from demiglace.compare.grid import RUN_OPTIONS, Grid, Options, method_name
from demiglace.config.commands import FinetuneConfig
from demiglace.config.data import DataConfig
from demiglace.config.options import options_of
from demiglace.errors import ConfigError
from demiglace.methods.registry import find_method, is_file

_DOTTED = "method_options."
_ROW_OPTIONS = [o.name for o in options_of(DataConfig)]
_OF_TEACHERS = {o.name for o in options_of(FinetuneConfig)} - {"unlabelled"}


@dataclass(frozen=True)
class Cell:
    """One combination of task, student, method and axes; `options` are those of its runs, but for paths and seed."""

    task: str
    student: str
    method: str
    axes: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=dict)

    @property
    def method_path(self) -> str:
        """The directory of its method, below the comparison's."""
        return f"{self.task}/{self.student}/{self.method}"

    @property
    def path(self) -> str:
        """Its directory, below the comparison's: TASK/STUDENT/METHOD, and AXIS=VALUE for each axis."""
        return "/".join([self.method_path, *(f"{k.removeprefix(_DOTTED)}={_written(v)}" for k, v in self.axes.items())])


@dataclass(frozen=True)
class StudentRun:
    """One cell with one seed or one replicate."""

    cell: Cell
    seed: int  # or the replicate
    unit: str = "seed"

    @property
    def path(self) -> str:
        """Its run directory, below the comparison's."""
        return f"{self.cell.path}/{self.unit}-{self.seed}"

    @property
    def evaluation(self) -> str:
        """The directory of its evaluation."""
        return f"{self.path}.evaluation"

    @property
    def export(self) -> str:
        """The directory of its export, where there is one."""
        return f"{self.path}.export"


def cells(grid: Grid) -> list[Cell]:
    """All cells, tasks first. An axis that a method has no option for is left out of that method's cells."""
    found = [
        cell
        for task, student, method in itertools.product(grid.tasks, grid.students, grid.methods)
        if grid.has(task, student, method)
        for cell in _cells_of(grid, task, student, method)
    ]
    paths = [cell.path.lower() for cell in found]
    twice = {p for p in paths if paths.count(p) > 1}
    if twice:
        raise ConfigError(f"several cells would lie at {', '.join(sorted(twice))}; give labels and values that differ.")
    return found


def student_runs(grid: Grid) -> list[StudentRun]:
    """All student runs: every seed of every cell, one seed of all cells after another, so that a part is a whole."""
    return [StudentRun(cell, seed, grid.unit) for seed in grid.seeds for cell in cells(grid)]


def shared_path(grid: Grid, path: str, number: int) -> str:
    """Return where a teacher, its signals or a truncation lies: at `path`, or below it for a replicate of `number`."""
    return f"{path}/replicate-{number}" if grid.unit == "replicate" else path


def teacher_path(grid: Grid, task: str, number: int) -> str:
    """Return the directory of a task's teacher that is fine-tuned, below the comparison's; number: as in `seeds`."""
    return shared_path(grid, f"{task}/teacher", number)


def shard_runs(runs: list[StudentRun], number: int, count: int) -> list[StudentRun]:
    """The runs of shard `number` of `count`, from 1: every count-th of them."""
    return runs[number - 1 :: count]


def skipped_names(grid: Grid) -> dict[str, list[str]]:
    """Method label -> the axes and ranges that it has no option for."""
    wanted = [*grid.axes, *(grid.search.ranges if grid.search else ())]
    missing = {label: [n for n in wanted if not has_option(grid, label, n)] for label in grid.methods}
    return {label: names for label, names in missing.items() if names}


def has_option(grid: Grid, label: str, name: str) -> bool:
    """Whether the method of a label has the option that an axis or a range is about."""
    if name in RUN_OPTIONS:
        return True
    method = method_name(label, grid.methods[label])
    if is_file(method):
        return False
    return name.removeprefix(_DOTTED) in [o.name for o in options_of(find_method(method).options)]


def with_values(options: Options, values: Options) -> dict[str, Any]:
    """Options with others over them, where a name with a dot is an entry of `method_options`."""
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
    """The options of a task and a method before any axis: the defaults, then the task's, then the method's."""
    base = {**grid.defaults, "data": task, **_plain(grid.tasks[task]), **grid.methods[method]}
    return {**base, "method": method_name(method, grid.methods[method])}


def _plain(task: Options) -> dict[str, Any]:
    return {name: value for name, value in task.items() if name not in ("teacher", "evaluate")}


def row_options(grid: Grid, task: str) -> dict[str, Any]:
    """What a task's teacher and students share: the options about rows, of the defaults and the task."""
    merged = {**grid.defaults, "data": task, **_plain(grid.tasks[task])}
    return {k: v for k, v in merged.items() if k in (*_ROW_OPTIONS, "allow_pickle")}


def teacher_options(grid: Grid, task: str) -> dict[str, Any]:
    """The options of a task's teacher: those about rows, then the grid's `teacher`, then the task's own."""
    rows = {k: v for k, v in row_options(grid, task).items() if k in _OF_TEACHERS}
    shared, own = grid.teacher, grid.tasks[task]["teacher"]
    if "model" in own:  # a teacher of its own, not the one that is there for the other tasks
        shared = {k: v for k, v in shared.items() if k != "run"}
    return {**rows, **shared, **own}


def _written(value: Any) -> str:
    """A value as a part of a path: 0.0001, bottom, 1-2."""
    if isinstance(value, (list, tuple)):
        return "-".join(map(_written, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text)
