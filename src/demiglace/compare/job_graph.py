"""The jobs of a grid: each is an ordinary run of one command and lists the jobs it depends on."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from demiglace.compare.grid import READING_OPTIONS, SHAPE, STATIC_OPTIONS, Grid, as_list
from demiglace.compare.grid_cells import (
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
from demiglace.compare.search_space import Range, trial_options
from demiglace.config.command_options import STATIC, TruncateConfig
from demiglace.config.options import options_of
from demiglace.config.training import STATIC_LEARNING_RATE
from demiglace.data.rows.suites import SUITES
from demiglace.errors import ConfigError
from demiglace.models.truncate import ABLATIONS
from demiglace.models.width import SIZES

Stage = Literal["finetune", "truncate", "search", "distill", "evaluate", "export"]
EXPORT_ROW_OPTIONS = ("max_length", "allow_pickle")
_COMPANION_SETS = {"mnli": ("mnli:validation_mismatched",)}  # GLUE reports MNLI as the mean of both sets
_TRUNCATION_OPTIONS = {o.name for o in options_of(TruncateConfig)}


@dataclass(frozen=True)
class Job:
    """One job of a comparison: a run of a command, or a search."""

    key: str  # its directory, relative to the comparison
    stage: Stage  # the command
    task: str  # label
    options: Mapping[str, Any]
    depends_on: tuple[str, ...] = ()  # keys of the jobs that must be done first
    search: str | None = None  # key of the search whose best options override those in `options` that the command has
    ranges: Mapping[str, Range | tuple[Any, ...]] = field(default_factory=dict)  # of a search
    trials: int = 0  # of a search


@dataclass(frozen=True)
class JobGraph:
    """The jobs of a grid."""

    root: Path  # the comparison directory
    grid: Grid
    jobs: tuple[Job, ...]  # each after the jobs it depends on
    runs: tuple[StudentRun, ...]  # the student runs that the jobs are for

    def job(self, key: str) -> Job:
        """Return the job with a key."""
        return next(job for job in self.jobs if job.key == key)


def build_job_graph(
    grid: Grid, root: Path, *, searching: bool = False, shard: tuple[int, int] = (1, 1), data_dir: Path | None = None
) -> JobGraph:
    """Return the jobs of a grid.

    Args:
        grid: the grid.
        root: the comparison directory.
        searching: add the searches of the grid.
        shard: (number, count): only this part of the student runs, and what they depend on.
        data_dir: directory of the data sets; None for the default.
    """
    factory = _JobFactory(grid, root, searching, {} if data_dir is None else {"data_dir": str(data_dir)})
    runs = shard_runs(student_runs(grid), *shard)
    jobs: dict[str, Job] = {}
    for number in dict.fromkeys(run.seed for run in runs):
        same_seed = [run for run in runs if run.seed == number]
        for task in dict.fromkeys(run.cell.task for run in same_seed):
            jobs |= {j.key: j for j in factory.teacher_jobs(task, number)}
        for run in same_seed:
            jobs |= {j.key: j for j in factory.jobs(run) if j.key not in jobs}
    return JobGraph(root, grid, tuple(jobs.values()), tuple(runs))


@dataclass(frozen=True)
class _JobFactory:
    """Makes the jobs of a grid. In its methods, `number` is a seed of the grid, or a replicate."""

    grid: Grid
    root: Path  # the comparison directory
    searching: bool  # add the searches
    location: Mapping[str, Any]  # {"data_dir": …} or {}

    def at(self, key: str) -> str:
        """Return the path of a key."""
        return str(self.root / key)

    def teacher(self, task: str, number: int) -> str:
        """Return the path of a task's teacher."""
        ready = teacher_options(self.grid, task).get("run")
        return self.at(teacher_path(self.grid, task, number)) if ready is None else str(ready)

    def _after_teacher(self, task: str, number: int) -> tuple[str, ...]:
        return () if "run" in teacher_options(self.grid, task) else (teacher_path(self.grid, task, number),)

    def _replicate_seeds(self, **seeds: int) -> dict[str, int]:
        """Return these seed options if the grid has replicates, otherwise none."""
        return seeds if self.grid.unit == "replicate" else {}

    def teacher_jobs(self, task: str, number: int) -> Iterator[Job]:
        """Yield the fine-tuning of a task's teacher, its evaluation and its export (of the first replicate only)."""
        trained, depends_on = teacher_options(self.grid, task), self._after_teacher(task, number)
        if depends_on:
            if "model" not in trained:
                raise ConfigError(
                    f"teacher: `model` is missing for {task}; give a model to fine-tune, or {{run: DIR}}."
                )
            trained |= self._replicate_seeds(data_seed=number, seed=number)
            yield Job(depends_on[0], "finetune", task, {**trained, **self.location, "output": self.at(depends_on[0])})
        key = teacher_path(self.grid, task, number)
        if self._evaluation(task).get("teacher", True):
            maps = {k: v for k, v in {**self.grid.defaults, **self.grid.tasks[task]}.items() if k == "label_map"}
            rows = {**row_options(self.grid, task), **maps, **trained}
            options = self._evaluation_options(task, rows) | {"model": self.teacher(task, number)}
            output = self.at(f"{key}.evaluation")
            yield Job(f"{key}.evaluation", "evaluate", task, options | {"output": output}, depends_on)
        if self.grid.export is not None and (self.grid.unit == "seed" or number == self.grid.seeds[0]):
            yield self._export(f"{key}.export", task, self.teacher(task, number), depends_on, trained)

    def jobs(self, run: StudentRun) -> Iterator[Job]:
        """Yield the truncation and the search of a student run, the run, its evaluation and its export."""
        cell = run.cell
        start, depends_on = self._start(cell, run.seed)
        if start is not None:
            yield start
        search = self._search(cell) if self.searching else None
        if search is not None:
            yield from self._shared_starts(search)
            yield search
        options = self._distill(cell, run.seed) | {"seed": run.seed, "output": self.at(run.path)}
        depends_on = (*depends_on, *((search.key,) if search else ()))
        yield Job(run.path, "distill", cell.task, options, depends_on, search.key if search else None)
        yield self._evaluate_student(run, search)
        if self.grid.export is not None and run.seed == self.grid.seeds[0]:
            yield self._export(run.export, cell.task, self.at(run.path), (run.path,), cell.options, search)

    def _start(self, cell: Cell, number: int) -> tuple[Job | None, tuple[str, ...]]:
        """Return the truncation that a student starts from, or None, and the keys that its runs depend on."""
        teacher, key = self._after_teacher(cell.task, number), self._start_path(cell, number)
        options = self.grid.students[cell.student]
        if "model" in options or self._is_made_in_its_run(cell.student):
            return None, teacher
        shared = {k: v for k, v in row_options(self.grid, cell.task).items() if k in _TRUNCATION_OPTIONS}
        options = {**shared, **options, **self._replicate_seeds(seed=number), "model": self.teacher(cell.task, number)}
        return Job(key, "truncate", cell.task, options | {"output": self.at(key)}, teacher), (*teacher, key)

    def _start_path(self, cell: Cell, number: int) -> str:
        return shared_path(self.grid, f"{cell.task}/{cell.student}/start", number)

    def _distill(self, cell: Cell, number: int) -> dict[str, Any]:
        options = self.grid.students[cell.student]
        start = {"student": str(options.get("model", self.at(self._start_path(cell, number))))}
        if self._is_made_in_its_run(cell.student):
            start = {k: v for k, v in options.items() if k in SHAPE}
        if options.get("model") == STATIC:  # the learning rate of other students is too small for it
            rate = {} if "learning_rate" in cell.axes else {"learning_rate": STATIC_LEARNING_RATE}
            start |= rate | {k: v for k, v in options.items() if k in STATIC_OPTIONS}
        cache = {"cache": self.at(shared_path(self.grid, f"{cell.task}/signals", number))}
        models = {**start, **self._replicate_seeds(data_seed=number), "teacher": self.teacher(cell.task, number)}
        return {**cache, **cell.options, **models, **self.location}

    def _is_made_in_its_run(self, student: str) -> bool:
        """Return whether `distill` makes the student from the teacher, so that the runs share no truncation.

        So it is for new weights, which depend on the seed, and for a narrower student without `calibration` text, whose
        units are measured on the labelled training rows.
        """
        options = self.grid.students[student]
        narrow = any(options.get(name) is not None for name in SIZES)
        return (options.get("strategy") in ABLATIONS and "seed" not in options) or (
            narrow and not options.get("calibration")
        )

    def _search(self, cell: Cell) -> Job | None:
        """Return the hyper-parameter search for a cell's method, or None if it has no searched option.

        For each axis (task, student) that is not in `per`, one search on the grid's first value is shared. With
        replicates, the search uses the rows, the teacher and the truncation of replicate 0, which is not reported.
        """
        search = self.grid.search
        assert search is not None
        ranges = {k: v for k, v in search.ranges.items() if has_option(self.grid, cell.method, k)}
        if not ranges:
            return None
        tasks = [cell.task] if "task" in search.per else self.grid.tasks
        students = [cell.student] if "student" in search.per else self.grid.students
        pairs = itertools.product(tasks, students)
        task, student = next(pair for pair in pairs if self.grid.has(*pair, cell.method))
        base = Cell(task, student, cell.method, {}, cell_options(self.grid, task, cell.method))
        options = {**self._distill(base, 0), "holdout_from_train": True, "seed": 0}
        depends_on = self._start(base, 0)[1]
        trials = len(trial_options(ranges, search.trials))
        return Job(f"{base.method_path}/search", "search", task, options, depends_on, None, ranges, trials)

    def _shared_starts(self, search: Job) -> Iterator[Job]:
        """Yield the teacher and the truncation of a search, which may be of another task, student or replicate."""
        task, student, _, _ = search.key.split("/")
        yield from (job for job in self.teacher_jobs(task, 0) if job.key in search.depends_on)
        start, _ = self._start(Cell(task, student, ""), 0)
        if start is not None:
            yield start

    def _evaluation(self, task: str) -> dict[str, Any]:
        return {**self.grid.evaluate, **self.grid.tasks[task]["evaluate"]}

    def _evaluate_student(self, run: StudentRun, search: Job | None) -> Job:
        """Return the evaluation of a student run, with the options about rows of its training.

        The teacher's logits are read from the evaluation of the teacher. Without one they are computed.
        """
        task, teacher = run.cell.task, self.teacher(run.cell.task, run.seed)
        depends_on = (run.path, *self._after_teacher(task, run.seed))
        if self._evaluation(task).get("teacher", True):
            depends_on = (*depends_on, f"{teacher_path(self.grid, task, run.seed)}.evaluation")
            teacher = self.at(depends_on[-1])
        options = self._evaluation_options(task, run.cell.options) | {"teacher": teacher, "model": self.at(run.path)}
        options["output"] = self.at(run.evaluation)
        search_key = _search_key_for(search, READING_OPTIONS, self._evaluation(task))
        return Job(run.evaluation, "evaluate", task, options, depends_on, search_key)

    def _evaluation_options(self, task: str, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of an evaluation without models and output.

        Args:
            task: label.
            rows: options with which the model's rows were read in training.
        """
        section, shared = self._evaluation(task), row_options(self.grid, task)
        reported = reported_set(shared)
        sets = list(dict.fromkeys([reported, *_COMPANION_SETS.get(reported, ()), *as_list(section.get("sets"))]))
        suites = [shared["data"]] if section.get("suites") and shared["data"] in SUITES else []
        options = {k: v for k, v in rows.items() if k in READING_OPTIONS}
        options |= {k: v for k, v in section.items() if k not in ("sets", "suites", "files", "teacher")}
        return {**options, **self.location, "suite": [*suites, *as_list(section.get("files"))], "data": sets}

    def _export(
        self,
        key: str,
        task: str,
        model: str,
        depends_on: tuple[str, ...],
        trained: Mapping[str, Any],
        search: Job | None = None,
    ) -> Job:
        """Return the export of a model; `trained`: its training options, with which the rows for the check are read."""
        assert self.grid.export is not None
        read = {k: v for k, v in trained.items() if k in EXPORT_ROW_OPTIONS}
        options = {**read, **self.grid.export, **self.location, "model": model, "output": self.at(key)}
        return Job(
            key, "export", task, options, depends_on, _search_key_for(search, EXPORT_ROW_OPTIONS, self.grid.export)
        )


def _search_key_for(search: Job | None, names: Iterable[str], given: Mapping[str, Any]) -> str | None:
    """Return the key of a search if it searches one of these options and the grid gives no value for it."""
    return search.key if search and set(names) & search.ranges.keys() - given.keys() else None


def reported_set(rows: Mapping[str, Any]) -> str:
    """Return the set that a task's results are reported on, by the name that `demiglace evaluate` uses."""
    return str(rows.get("test") or rows.get("validation") or rows["data"])
