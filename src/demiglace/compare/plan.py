"""A grid as steps: every run of it is an ordinary run of a stage, and says which others it needs."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from demiglace.compare.cells import (
    Cell,
    StudentRun,
    applies,
    cell_options,
    row_options,
    share,
    student_runs,
    teacher_options,
)
from demiglace.compare.grid import OF_EVALUATION, SHAPE, Grid, several
from demiglace.compare.ranges import Range
from demiglace.config import options_of
from demiglace.data.suites import SUITES
from demiglace.errors import ConfigError
from demiglace.models.truncate import ABLATIONS
from demiglace.stages.config import TruncateConfig

Stage = Literal["finetune", "truncate", "search", "distill", "evaluate", "export"]
OF_EXPORT = ("max_length", "allow_pickle")
_ALSO_OFFICIAL = {"mnli": ("mnli:validation_mismatched",)}  # GLUE's MNLI is the mean of both its parts
_OF_TRUNCATION = {o.name for o in options_of(TruncateConfig)}


@dataclass(frozen=True)
class Step:
    """One run. key: its directory below the comparison's; needs: keys of the steps that come before it.

    search: the key of the search whose best options lie over `options`, as far as the stage has them. ranges and
    trials: of a search alone.
    """

    key: str
    stage: Stage
    task: str
    options: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    search: str | None = None
    ranges: Mapping[str, Range | tuple[Any, ...]] = field(default_factory=dict)
    trials: int = 0


@dataclass(frozen=True)
class Plan:
    """The steps of a grid in an order that respects their needs, and what they are for."""

    home: Path
    grid: Grid
    steps: tuple[Step, ...]
    runs: tuple[StudentRun, ...]

    def step(self, key: str) -> Step:
        """The step of a key."""
        return next(s for s in self.steps if s.key == key)


def make_plan(
    grid: Grid, home: Path, *, searching: bool = False, shard: tuple[int, int] = (1, 1), data_dir: Path | None = None
) -> Plan:
    """The plan of a grid, or of the share of a shard: its student runs and all that they need."""
    layout = _Layout(grid, home, searching, {} if data_dir is None else {"data_dir": str(data_dir)})
    runs = share(student_runs(grid), *shard)
    found: dict[str, Step] = {}
    for task in dict.fromkeys(run.cell.task for run in runs):
        found |= {s.key: s for s in layout.teacher_steps(task)}
    for run in runs:
        found |= {s.key: s for s in layout.steps(run) if s.key not in found}
    return Plan(home, grid, tuple(found.values()), tuple(runs))


@dataclass(frozen=True)
class _Layout:
    """Where the runs of a grid lie, and their options."""

    grid: Grid
    home: Path
    searching: bool
    location: Mapping[str, Any]

    def at(self, key: str) -> str:
        """The path of a key."""
        return str(self.home / key)

    def teacher(self, task: str) -> str:
        """The path of a task's teacher."""
        ready = teacher_options(self.grid, task).get("run")
        return self.at(f"{task}/teacher") if ready is None else str(ready)

    def _after_teacher(self, task: str) -> tuple[str, ...]:
        return () if "run" in teacher_options(self.grid, task) else (f"{task}/teacher",)

    def teacher_steps(self, task: str) -> Iterator[Step]:
        """The teacher of a task, its evaluation and its export."""
        trained, needs = teacher_options(self.grid, task), self._after_teacher(task)
        if needs:
            if "model" not in trained:
                raise ConfigError(
                    f"teacher: `model` is missing for {task}; give a model to fine-tune, or {{run: DIR}}."
                )
            yield Step(needs[0], "finetune", task, {**trained, **self.location, "output": self.at(needs[0])})
        if self._evaluation(task).get("teacher", True):
            maps = {k: v for k, v in {**self.grid.defaults, **self.grid.tasks[task]}.items() if k == "label_map"}
            rows = {**row_options(self.grid, task), **maps, **trained}
            options = self._evaluation_options(task, rows) | {"model": self.teacher(task)}
            key = f"{task}/teacher.evaluation"
            yield Step(key, "evaluate", task, options | {"output": self.at(key)}, needs)
        if self.grid.export is not None:
            yield self._export(f"{task}/teacher.export", task, self.teacher(task), needs, trained)

    def steps(self, run: StudentRun) -> Iterator[Step]:
        """What a student run needs but for its teacher, the run itself, its evaluation and its export."""
        cell = run.cell
        start, needs = self._start(cell)
        if start is not None:
            yield start
        search = self._search(cell, needs) if self.searching else None
        if search is not None:
            yield from self._shared_starts(search)
            yield search
        options = self._distill(cell) | {"seed": run.seed, "output": self.at(run.path)}
        found = (*needs, *((search.key,) if search else ()))
        yield Step(run.path, "distill", cell.task, options, found, search.key if search else None)
        yield self._evaluate_student(run, search)
        if self.grid.export is not None and run.seed == self.grid.seeds[0]:
            yield self._export(run.export, cell.task, self.at(run.path), (run.path,), cell.options, search)

    def _start(self, cell: Cell) -> tuple[Step | None, tuple[str, ...]]:
        """The truncation that a student starts from, none where it needs none; and what a run must wait for."""
        teacher, key = self._after_teacher(cell.task), f"{cell.task}/{cell.student}/start"
        options = self.grid.students[cell.student]
        if "model" in options or self._begins_anew(cell.student):
            return None, teacher
        shared = {k: v for k, v in row_options(self.grid, cell.task).items() if k in _OF_TRUNCATION}
        options = {**shared, **options, "model": self.teacher(cell.task), "output": self.at(key)}
        return Step(key, "truncate", cell.task, options, teacher), (*teacher, key)

    def _distill(self, cell: Cell) -> dict[str, Any]:
        options = self.grid.students[cell.student]
        start = {"student": str(options.get("model", self.at(f"{cell.task}/{cell.student}/start")))}
        if self._begins_anew(cell.student):
            start = {k: v for k, v in options.items() if k in SHAPE}
        cache = {"cache": self.at(f"{cell.task}/signals")}
        return {**cache, **cell.options, "teacher": self.teacher(cell.task), **start, **self.location}

    def _begins_anew(self, student: str) -> bool:
        """Whether each run draws a student's new weights by its own seed: where seeds differ, so do they."""
        options = self.grid.students[student]
        return options.get("strategy") in ABLATIONS and "seed" not in options

    def _search(self, cell: Cell, needs: tuple[str, ...]) -> Step | None:
        """The search of a cell's method, on its first task or student in the grid where `per` does not name it."""
        search = self.grid.search
        assert search is not None
        ranges = {k: v for k, v in search.ranges.items() if applies(self.grid, cell.method, k)}
        if not ranges:
            return None
        tasks = [cell.task] if "task" in search.per else self.grid.tasks
        students = [cell.student] if "student" in search.per else self.grid.students
        places = itertools.product(tasks, students)
        task, student = next(place for place in places if self.grid.has(*place, cell.method))
        base = Cell(task, student, cell.method, {}, cell_options(self.grid, task, cell.method))
        options = {**self._distill(base), "tune": True, "seed": 0}
        needed = self._start(base)[1]
        return Step(f"{base.method_path}/search", "search", task, options, needed, None, ranges, search.trials)

    def _shared_starts(self, search: Step) -> Iterator[Step]:
        """The teacher and the truncation of a search that lies at another task or student."""
        task, student, _, _ = search.key.split("/")
        yield from (s for s in self.teacher_steps(task) if s.key in search.needs)
        start, _ = self._start(Cell(task, student, ""))
        if start is not None:
            yield start

    def _evaluation(self, task: str) -> dict[str, Any]:
        return {**self.grid.evaluate, **self.grid.tasks[task]["evaluate"]}

    def _evaluate_student(self, run: StudentRun, search: Step | None) -> Step:
        """The evaluation of a student run, on rows read as in its training.

        The teacher's answers are read from its own evaluation; where that is left out, the teacher itself is asked.
        """
        task, teacher = run.cell.task, self.teacher(run.cell.task)
        needs = (run.path, *self._after_teacher(task))
        if self._evaluation(task).get("teacher", True):
            needs = (*needs, f"{task}/teacher.evaluation")
            teacher = self.at(needs[-1])
        options = self._evaluation_options(task, run.cell.options) | {"teacher": teacher, "model": self.at(run.path)}
        options["output"] = self.at(run.evaluation)
        search_key = _decides(search, OF_EVALUATION, self._evaluation(task))
        return Step(run.evaluation, "evaluate", task, options, needs, search_key)

    def _evaluation_options(self, task: str, rows: Mapping[str, Any]) -> dict[str, Any]:
        """The options of an evaluation but for its models and its place; rows: how the model's rows were read."""
        asked, shared = self._evaluation(task), row_options(self.grid, task)
        reported = reported_set(shared)
        sets = list(dict.fromkeys([reported, *_ALSO_OFFICIAL.get(reported, ()), *several(asked.get("sets"))]))
        own = [shared["data"]] if asked.get("suites") and shared["data"] in SUITES else []
        options = {k: v for k, v in rows.items() if k in OF_EVALUATION}
        options |= {k: v for k, v in asked.items() if k not in ("sets", "suites", "files", "teacher")}
        return {**options, **self.location, "suite": [*own, *several(asked.get("files"))], "data": sets}

    def _export(
        self,
        key: str,
        task: str,
        model: str,
        needs: tuple[str, ...],
        trained: Mapping[str, Any],
        search: Step | None = None,
    ) -> Step:
        """The export of a model, checked on rows read as in its training, of which `trained` are the options."""
        assert self.grid.export is not None
        read = {k: v for k, v in trained.items() if k in OF_EXPORT}
        options = {**read, **self.grid.export, **self.location, "model": model, "output": self.at(key)}
        return Step(key, "export", task, options, needs, _decides(search, OF_EXPORT, self.grid.export))


def _decides(search: Step | None, names: Iterable[str], given: Mapping[str, Any]) -> str | None:
    """The key of a search that looks for one of the options of these names which the grid does not give itself."""
    return search.key if search and set(names) & search.ranges.keys() - given.keys() else None


def reported_set(rows: Mapping[str, Any]) -> str:
    """The rows that a task's results are about, as `demiglace evaluate` names them."""
    return str(rows.get("test") or rows.get("validation") or rows["data"])
