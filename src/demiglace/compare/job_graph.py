"""A grid as steps: every run of it is an ordinary run of a stage, and says which others it needs."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from demiglace.compare.cells import (
    Cell,
    StudentRun,
    cell_options,
    has_option,
    row_options,
    shard_runs,
    shared_path,
    student_runs,
    teacher_options,
    teacher_path,
)
from demiglace.compare.grid import READING_OPTIONS, SHAPE, Grid, as_list
from demiglace.compare.search_space import Range, trial_options
from demiglace.config.commands import TruncateConfig
from demiglace.config.options import options_of
from demiglace.data.rows.suites import SUITES
from demiglace.errors import ConfigError
from demiglace.models.truncate import ABLATIONS

Stage = Literal["finetune", "truncate", "search", "distill", "evaluate", "export"]
OF_EXPORT = ("max_length", "allow_pickle")
_ALSO_OFFICIAL = {"mnli": ("mnli:validation_mismatched",)}  # GLUE's MNLI is the mean of both its parts
_OF_TRUNCATION = {o.name for o in options_of(TruncateConfig)}


@dataclass(frozen=True)
class Job:
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
class JobGraph:
    """The steps of a grid in an order that respects their needs, and what they are for."""

    home: Path
    grid: Grid
    steps: tuple[Job, ...]
    runs: tuple[StudentRun, ...]

    def step(self, key: str) -> Job:
        """The step of a key."""
        return next(s for s in self.steps if s.key == key)


def make_plan(
    grid: Grid, home: Path, *, searching: bool = False, shard: tuple[int, int] = (1, 1), data_dir: Path | None = None
) -> JobGraph:
    """The plan of a grid, or of the share of a shard: its student runs and all that they need."""
    layout = _JobFactory(grid, home, searching, {} if data_dir is None else {"data_dir": str(data_dir)})
    runs = shard_runs(student_runs(grid), *shard)
    found: dict[str, Job] = {}
    for number in dict.fromkeys(run.seed for run in runs):
        mine = [run for run in runs if run.seed == number]
        for task in dict.fromkeys(run.cell.task for run in mine):
            found |= {s.key: s for s in layout.teacher_steps(task, number)}
        for run in mine:
            found |= {s.key: s for s in layout.steps(run) if s.key not in found}
    return JobGraph(home, grid, tuple(found.values()), tuple(runs))


@dataclass(frozen=True)
class _JobFactory:
    """Where the runs of a grid lie, and their options; `number` is a seed of the grid, or a replicate."""

    grid: Grid
    home: Path
    searching: bool
    location: Mapping[str, Any]

    def at(self, key: str) -> str:
        """The path of a key."""
        return str(self.home / key)

    def teacher(self, task: str, number: int) -> str:
        """The path of a task's teacher."""
        ready = teacher_options(self.grid, task).get("run")
        return self.at(teacher_path(self.grid, task, number)) if ready is None else str(ready)

    def _after_teacher(self, task: str, number: int) -> tuple[str, ...]:
        return () if "run" in teacher_options(self.grid, task) else (teacher_path(self.grid, task, number),)

    def _drawn(self, **seeds: int) -> dict[str, int]:
        """The seeds that a replicate gives to its teacher, its truncation and its runs."""
        return seeds if self.grid.unit == "replicate" else {}

    def teacher_steps(self, task: str, number: int) -> Iterator[Job]:
        """The teacher of a task, its evaluation and its export, which only the first replicate's teacher has."""
        trained, needs = teacher_options(self.grid, task), self._after_teacher(task, number)
        if needs:
            if "model" not in trained:
                raise ConfigError(
                    f"teacher: `model` is missing for {task}; give a model to fine-tune, or {{run: DIR}}."
                )
            trained |= self._drawn(data_seed=number, seed=number)
            yield Job(needs[0], "finetune", task, {**trained, **self.location, "output": self.at(needs[0])})
        key = teacher_path(self.grid, task, number)
        if self._evaluation(task).get("teacher", True):
            maps = {k: v for k, v in {**self.grid.defaults, **self.grid.tasks[task]}.items() if k == "label_map"}
            rows = {**row_options(self.grid, task), **maps, **trained}
            options = self._evaluation_options(task, rows) | {"model": self.teacher(task, number)}
            output = self.at(f"{key}.evaluation")
            yield Job(f"{key}.evaluation", "evaluate", task, options | {"output": output}, needs)
        if self.grid.export is not None and (self.grid.unit == "seed" or number == self.grid.seeds[0]):
            yield self._export(f"{key}.export", task, self.teacher(task, number), needs, trained)

    def steps(self, run: StudentRun) -> Iterator[Job]:
        """What a student run needs but for its teacher, the run itself, its evaluation and its export."""
        cell = run.cell
        start, needs = self._start(cell, run.seed)
        if start is not None:
            yield start
        search = self._search(cell) if self.searching else None
        if search is not None:
            yield from self._shared_starts(search)
            yield search
        options = self._distill(cell, run.seed) | {"seed": run.seed, "output": self.at(run.path)}
        found = (*needs, *((search.key,) if search else ()))
        yield Job(run.path, "distill", cell.task, options, found, search.key if search else None)
        yield self._evaluate_student(run, search)
        if self.grid.export is not None and run.seed == self.grid.seeds[0]:
            yield self._export(run.export, cell.task, self.at(run.path), (run.path,), cell.options, search)

    def _start(self, cell: Cell, number: int) -> tuple[Job | None, tuple[str, ...]]:
        """The truncation that a student starts from, none where it needs none; and what a run must wait for."""
        teacher, key = self._after_teacher(cell.task, number), self._start_path(cell, number)
        options = self.grid.students[cell.student]
        if "model" in options or self._reinitializes_weights(cell.student):
            return None, teacher
        shared = {k: v for k, v in row_options(self.grid, cell.task).items() if k in _OF_TRUNCATION}
        options = {**shared, **options, **self._drawn(seed=number), "model": self.teacher(cell.task, number)}
        return Job(key, "truncate", cell.task, options | {"output": self.at(key)}, teacher), (*teacher, key)

    def _start_path(self, cell: Cell, number: int) -> str:
        return shared_path(self.grid, f"{cell.task}/{cell.student}/start", number)

    def _distill(self, cell: Cell, number: int) -> dict[str, Any]:
        options = self.grid.students[cell.student]
        start = {"student": str(options.get("model", self.at(self._start_path(cell, number))))}
        if self._reinitializes_weights(cell.student):
            start = {k: v for k, v in options.items() if k in SHAPE}
        cache = {"cache": self.at(shared_path(self.grid, f"{cell.task}/signals", number))}
        drawn = {**start, **self._drawn(data_seed=number), "teacher": self.teacher(cell.task, number)}
        return {**cache, **cell.options, **drawn, **self.location}

    def _reinitializes_weights(self, student: str) -> bool:
        """Whether each run draws a student's new weights by its own seed: where seeds differ, so do they."""
        options = self.grid.students[student]
        return options.get("strategy") in ABLATIONS and "seed" not in options

    def _search(self, cell: Cell) -> Job | None:
        """The search of a cell's method, on its first task or student in the grid where `per` does not name it.

        With replicates it uses the rows, the teacher and the truncation of replicate 0, which is not reported.
        """
        search = self.grid.search
        assert search is not None
        ranges = {k: v for k, v in search.ranges.items() if has_option(self.grid, cell.method, k)}
        if not ranges:
            return None
        tasks = [cell.task] if "task" in search.per else self.grid.tasks
        students = [cell.student] if "student" in search.per else self.grid.students
        places = itertools.product(tasks, students)
        task, student = next(place for place in places if self.grid.has(*place, cell.method))
        base = Cell(task, student, cell.method, {}, cell_options(self.grid, task, cell.method))
        options = {**self._distill(base, 0), "holdout_from_train": True, "seed": 0}
        needed = self._start(base, 0)[1]
        trials = len(trial_options(ranges, search.trials))
        return Job(f"{base.method_path}/search", "search", task, options, needed, None, ranges, trials)

    def _shared_starts(self, search: Job) -> Iterator[Job]:
        """The teacher and the truncation of a search that lies at another task, student or replicate."""
        task, student, _, _ = search.key.split("/")
        yield from (s for s in self.teacher_steps(task, 0) if s.key in search.needs)
        start, _ = self._start(Cell(task, student, ""), 0)
        if start is not None:
            yield start

    def _evaluation(self, task: str) -> dict[str, Any]:
        return {**self.grid.evaluate, **self.grid.tasks[task]["evaluate"]}

    def _evaluate_student(self, run: StudentRun, search: Job | None) -> Job:
        """The evaluation of a student run, on rows read as in its training.

        The teacher's answers are read from its own evaluation; where that is left out, the teacher itself is asked.
        """
        task, teacher = run.cell.task, self.teacher(run.cell.task, run.seed)
        needs = (run.path, *self._after_teacher(task, run.seed))
        if self._evaluation(task).get("teacher", True):
            needs = (*needs, f"{teacher_path(self.grid, task, run.seed)}.evaluation")
            teacher = self.at(needs[-1])
        options = self._evaluation_options(task, run.cell.options) | {"teacher": teacher, "model": self.at(run.path)}
        options["output"] = self.at(run.evaluation)
        search_key = _search_key_for(search, READING_OPTIONS, self._evaluation(task))
        return Job(run.evaluation, "evaluate", task, options, needs, search_key)

    def _evaluation_options(self, task: str, rows: Mapping[str, Any]) -> dict[str, Any]:
        """The options of an evaluation but for its models and its place; rows: how the model's rows were read."""
        asked, shared = self._evaluation(task), row_options(self.grid, task)
        reported = reported_set(shared)
        sets = list(dict.fromkeys([reported, *_ALSO_OFFICIAL.get(reported, ()), *as_list(asked.get("sets"))]))
        own = [shared["data"]] if asked.get("suites") and shared["data"] in SUITES else []
        options = {k: v for k, v in rows.items() if k in READING_OPTIONS}
        options |= {k: v for k, v in asked.items() if k not in ("sets", "suites", "files", "teacher")}
        return {**options, **self.location, "suite": [*own, *as_list(asked.get("files"))], "data": sets}

    def _export(
        self,
        key: str,
        task: str,
        model: str,
        needs: tuple[str, ...],
        trained: Mapping[str, Any],
        search: Job | None = None,
    ) -> Job:
        """The export of a model, checked on rows read as in its training, of which `trained` are the options."""
        assert self.grid.export is not None
        read = {k: v for k, v in trained.items() if k in OF_EXPORT}
        options = {**read, **self.grid.export, **self.location, "model": model, "output": self.at(key)}
        return Job(key, "export", task, options, needs, _search_key_for(search, OF_EXPORT, self.grid.export))


def _search_key_for(search: Job | None, names: Iterable[str], given: Mapping[str, Any]) -> str | None:
    """The key of a search that looks for one of the options of these names which the grid does not give itself."""
    return search.key if search and set(names) & search.ranges.keys() - given.keys() else None


def reported_set(rows: Mapping[str, Any]) -> str:
    """The rows that a task's results are about, as `demiglace evaluate` names them."""
    return str(rows.get("test") or rows.get("validation") or rows["data"])
