"""What is wrong with a plan, told before any of its runs begins."""

from collections.abc import Iterator
from pathlib import Path

from demiglace.compare.cells import row_options, teacher_options
from demiglace.compare.grid import as_list, method_name
from demiglace.compare.job_config import config_of
from demiglace.compare.job_graph import Job, JobGraph, reported_set
from demiglace.compare.search_space import Range
from demiglace.config.commands import DistillConfig, FinetuneConfig, TruncateConfig
from demiglace.config.data import DataConfig
from demiglace.config.options import build
from demiglace.config.training import check_patience
from demiglace.data.rows.evaluation_sets import check_split
from demiglace.data.rows.sources import files_in, files_of, missing
from demiglace.data.rows.suites import read_suite, source_of
from demiglace.data.rows.tasks import TASKS
from demiglace.errors import ConfigError, DataError, ModelError
from demiglace.methods.registry import build_method, is_file
from demiglace.models.files import load_config, resolve_model, weight_files
from demiglace.models.truncate import DATA_DRIVEN, choose_layers
from demiglace.training.schedule import check_phases


def check_plan(plan: JobGraph) -> None:
    """Build every run's config and method, and cut every student in thought.

    Raises `ConfigError` or `ModelError` for the first that cannot be, naming its run.
    """
    for step in plan.steps:
        config = config_of(step, plan.home)
        try:
            if isinstance(config, DistillConfig | FinetuneConfig):
                check_patience(config.training)
            if isinstance(config, DistillConfig):
                _check_epochs(config, step)
            if isinstance(config, TruncateConfig):
                _check_cut(config, config.model, plan)
            if isinstance(config, DistillConfig) and config.student is None:
                _check_cut(config, config.teacher, plan)
        except (ConfigError, ModelError) as error:
            raise type(error)(f"{step.key}: {error}") from error


def _check_epochs(config: DistillConfig, step: Job) -> None:
    """Raise `ConfigError` for epochs too few for the method's phases: the run's, or those that a search may choose."""
    method = build_method(config.method, config.method_options)
    within = step.ranges.get("epochs", (config.training.epochs,))
    for epochs in (int(within.low),) if isinstance(within, Range) else within:
        check_phases(config.method, method, epochs)


def _check_cut(config: TruncateConfig | DistillConfig, whole: str, plan: JobGraph) -> None:
    """Raise `ConfigError` or `ModelError` for layers that cannot be kept of a model, where its directory is there."""
    trained = next((config_of(s, plan.home).model for s in plan.steps if str(plan.home / s.key) == whole), None)
    if config.layers is None and config.keep is None:
        raise ConfigError("`layers` (how many) or `keep` (which ones) must be given.")
    if (
        isinstance(config, TruncateConfig)
        and config.strategy in DATA_DRIVEN
        and not (config.calibration or config.keep)
    ):
        raise ConfigError(f"strategy {config.strategy} is measured on text; give some files as `calibration`.")
    if Path(trained or whole).expanduser().is_dir():
        model = resolve_model(trained or whole)
        choose_layers(load_config(model).num_hidden_layers, config.layers, config.strategy, config.keep)


def files_read(plan: JobGraph) -> dict[str, list[Path]]:
    """What of the user's own a plan reads, and its files: rows, ready teachers and students, methods, sets and suites.

    Raises `DataError` and `ModelError` for what is not there, and `ConfigError` for files of which none is to be
    reported on.
    """
    grid, found = plan.grid, {}
    for task in dict.fromkeys(run.cell.task for run in plan.runs):
        rows = row_options(grid, task)
        if rows["data"] not in TASKS:
            found[f"data {task}"] = _files_of_rows(task, rows)
        if "run" in (options := teacher_options(grid, task)):
            found[f"teacher {task}"] = _files_of_model(options["run"])
    for label in dict.fromkeys(run.cell.student for run in plan.runs):
        if "model" in grid.students[label]:
            found[f"student {label}"] = _files_of_model(grid.students[label]["model"])
    for label in dict.fromkeys(run.cell.method for run in plan.runs):
        if is_file(name := method_name(label, grid.methods[label])):
            found[f"method {label}"] = [Path(name)]
    if grid.protocol is not None:
        found["protocol"] = [Path(grid.protocol)]
    return found | dict(_further_rows(plan))


def _further_rows(plan: JobGraph) -> Iterator[tuple[str, list[Path]]]:
    """Rows without labels; sets in files, and suites with the files they name, that models are measured on."""
    for file in dict.fromkeys(file for step in plan.steps for file in as_list(step.options.get("unlabelled"))):
        yield f"unlabelled {file}", _files_of_set(file)
    evaluations = [step.options for step in plan.steps if step.stage == "evaluate"]
    for spec in dict.fromkeys(spec for options in evaluations for spec in options["data"][1:]):
        yield f"set {spec}", _files_of_set(spec)
    for suite in dict.fromkeys(suite for options in evaluations for suite in options["suite"]):
        if is_file(suite):
            sets = read_suite(suite).values()
            yield f"suite {suite}", [Path(suite), *(file for s in sets for file in _files_of_set(s.data))]
        elif suite != "ood":
            source_of(suite)


def _files_of_set(spec: str) -> list[Path]:
    """The files of a set, of which one is read; nothing of a named task."""
    path, (name, _, split) = Path(spec), spec.partition(":")
    if name in TASKS:
        check_split(name, split)
        return []
    if not path.exists():
        raise DataError(missing(spec))
    return list(files_in(path).values()) if path.is_dir() else [path]


def _files_of_rows(task: str, rows: dict) -> list[Path]:
    files = files_of(build(DataConfig, {k: v for k, v in rows.items() if k != "allow_pickle"}))
    if reported_set(rows) == str(rows["data"]) and not ({"test", "validation"} & files.keys()):
        raise ConfigError(
            f"tasks.{task}: {rows['data']} has no rows to report on; give `validation` or `test`, a file of rows that "
            "no run is trained on."
        )
    return list(files.values())


def _files_of_model(name: str) -> list[Path]:
    """Config and weights of a model directory; nothing of a name on the hub, whose runs look after it."""
    directory = Path(resolve_model(name))
    return [directory / "config.json", *weight_files(directory)] if directory.is_dir() else []
