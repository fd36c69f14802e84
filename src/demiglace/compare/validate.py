"""Validate the jobs of a grid before any of them runs, and list the user's files that they read."""

from collections.abc import Iterator
from pathlib import Path

from demiglace.compare.grid import as_list, method_name
from demiglace.compare.grid_cells import row_options, teacher_options
from demiglace.compare.job_config import config_of
from demiglace.compare.job_graph import Job, JobGraph, reported_set
from demiglace.compare.search_space import Range
from demiglace.config.command_options import STATIC, DistillConfig, FinetuneConfig, TruncateConfig
from demiglace.config.data import DataConfig
from demiglace.config.options import build
from demiglace.config.training import check_options
from demiglace.data.rows.checks import columns_of
from demiglace.data.rows.columns import MissingLabelColumnError
from demiglace.data.rows.evaluation_sets import check_split
from demiglace.data.rows.hub import is_hub, parse_hub
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.readers import read_table
from demiglace.data.rows.sources import files_in, files_of, missing
from demiglace.data.rows.suites import read_suite, source_of
from demiglace.distillation.static_student import check_static_method
from demiglace.errors import ConfigError, DataError, ModelError
from demiglace.methods.registry import build_method, is_file
from demiglace.models.files import load_config, resolve_model, weight_files
from demiglace.models.truncate import DATA_DRIVEN, choose_layers
from demiglace.models.width import narrow_config
from demiglace.tasks.label_kinds import LABEL_COLUMNS
from demiglace.tasks.registry import row_task
from demiglace.training.schedule import check_phases


def validate_jobs(graph: JobGraph) -> None:
    """Build each job's config and method, and check that each student's layers can be selected; run nothing.

    Raises:
        ConfigError, ModelError: for the first invalid job; the message names it.
    """
    for job in graph.jobs:
        config = config_of(job, graph.root)
        try:
            if isinstance(config, DistillConfig | FinetuneConfig):
                check_options(config.training)
            if isinstance(config, DistillConfig):
                _check_static(config, job)
                _check_epochs(config, job)
            if isinstance(config, TruncateConfig):
                _check_layers(config, config.model, graph)
            if isinstance(config, DistillConfig) and config.student is None:
                _check_layers(config, config.teacher, graph)
        except (ConfigError, ModelError) as error:
            raise type(error)(f"{job.key}: {error}") from error


def _check_static(config: DistillConfig, job: Job) -> None:
    """Raise `ConfigError` if a static student cannot learn by the method of its job."""
    if config.student == STATIC:
        try:
            check_static_method(config.method, build_method(config.method, config.method_options))
        except ConfigError as error:
            _, student, method, *_ = job.key.split("/")
            raise ConfigError(f"{error} In a grid, leave it out by `skip: {{{student}: [{method}]}}`.") from error


def _check_epochs(config: DistillConfig, job: Job) -> None:
    """Raise `ConfigError` if the epochs, or some that a search may choose, are too few for the method's phases.

    With --max-steps their number depends on the rows, and the run checks it.
    """
    if config.training.max_steps is not None:
        return
    method = build_method(config.method, config.method_options)
    choices = job.ranges.get("epochs", (config.training.epochs,))
    for epochs in (int(choices.low),) if isinstance(choices, Range) else choices:
        check_phases(config.method, method, epochs)


def _check_layers(config: TruncateConfig | DistillConfig, model: str, graph: JobGraph) -> None:
    """Raise `ConfigError` or `ModelError` if the layers to keep cannot be selected; a missing model is not checked."""
    base = next((config_of(j, graph.root).model for j in graph.jobs if str(graph.root / j.key) == model), model)
    sizes = config.width.sizes
    if config.layers is None and config.keep is None and not sizes:
        if isinstance(config, TruncateConfig) and config.trimming.vocabulary == "trim":
            return
        raise ConfigError(
            "`layers` (how many), `keep` (which ones) or a size of the width, such as `hidden_size`, must be given."
        )
    if (
        isinstance(config, TruncateConfig)
        and config.strategy in DATA_DRIVEN
        and not (config.calibration or config.keep)
    ):
        raise ConfigError(
            f"strategy {config.strategy} needs text to measure the layers on; give files as `calibration`."
        )
    if Path(base).expanduser().is_dir():
        model_config = load_config(resolve_model(base))
        choose_layers(model_config, config.layers, config.strategy, config.keep, all_by_default=bool(sizes))
        if sizes:
            narrow_config(model_config, **sizes)


def input_files(graph: JobGraph) -> dict[str, list[Path]]:
    """Return the user's files that the jobs read: rows, finished teachers, students, methods, sets and suites.

    Returns:
        input, such as `data TASK` -> its files.

    Raises:
        DataError, ModelError: a file is missing.
        ConfigError: a task has no rows to report on.
    """
    grid, inputs = graph.grid, {}
    for task in dict.fromkeys(run.cell.task for run in graph.runs):
        rows = row_options(grid, task)
        if rows["data"] not in TASKS:
            inputs[f"data {task}"] = _files_of_rows(task, rows)
        if "run" in (options := teacher_options(grid, task)):
            inputs[f"teacher {task}"] = _files_of_model(options["run"])
    for label in dict.fromkeys(run.cell.student for run in graph.runs):
        if grid.students[label].get("model", STATIC) != STATIC:
            inputs[f"student {label}"] = _files_of_model(grid.students[label]["model"])
    for label in dict.fromkeys(run.cell.method for run in graph.runs):
        if is_file(name := method_name(label, grid.methods[label])):
            inputs[f"method {label}"] = [Path(name)]
    if grid.protocol is not None:
        inputs["protocol"] = [Path(grid.protocol)]
    return inputs | dict(_other_rows(graph))


def _other_rows(graph: JobGraph) -> Iterator[tuple[str, list[Path]]]:
    """Yield the files of unlabelled rows, of evaluation sets, and of suites with the files that they name."""
    for file in dict.fromkeys(file for job in graph.jobs for file in as_list(job.options.get("unlabelled"))):
        yield f"unlabelled {file}", _files_of_set(file)
    evaluations = [job.options for job in graph.jobs if job.stage == "evaluate"]
    for spec in dict.fromkeys(spec for options in evaluations for spec in options["data"][1:]):
        yield f"set {spec}", _files_of_set(spec)
    for suite in dict.fromkeys(suite for options in evaluations for suite in options["suite"]):
        if is_file(suite):
            sets = read_suite(suite).values()
            yield f"suite {suite}", [Path(suite), *(file for s in sets for file in _files_of_set(s.data))]
        elif suite != "ood":
            source_of(suite)


def _files_of_set(spec: str) -> list[Path]:
    """Return the files of an evaluation set; none for a named task. Raises `DataError` if it does not exist."""
    path, (name, _, split) = Path(spec), spec.partition(":")
    if name in TASKS:
        check_split(name, split)
        return []
    if is_hub(spec):
        parse_hub(spec)
        return []
    if not path.exists():
        raise DataError(missing(spec))
    return list(files_in(path).values()) if path.is_dir() else [path]


def _files_of_rows(task: str, rows: dict) -> list[Path]:
    if is_hub(rows["data"]):  # the runs read the hub, and keep the commit
        parse_hub(rows["data"])
    files = files_of(build(DataConfig, {k: v for k, v in rows.items() if k != "allow_pickle"}))
    if (
        not is_hub(rows["data"])
        and reported_set(rows) == str(rows["data"])
        and not ({"test", "validation"} & files.keys())
    ):
        raise ConfigError(
            f"tasks.{task}: {rows['data']} has no rows to report on; give `validation` or `test`, a file of rows that "
            "are not used for training."
        )
    _check_labels(task, rows, files)
    return list(files.values())


def _check_labels(task: str, rows: dict, files: dict[str, Path]) -> None:
    """Raise `DataError` for training rows without a column of labels; the runs report all other faults."""
    usual = LABEL_COLUMNS if rows.get("problem", "auto") == "auto" else row_task(rows["problem"]).label_columns
    try:
        columns_of(read_table(files["train"]), rows.get("text_columns"), rows.get("label_column"), usual_labels=usual)
    except MissingLabelColumnError as error:
        raise DataError(
            f"tasks.{task}: {error} A comparison scores students on labelled rows; `demiglace distill` alone trains on "
            "text without labels."
        ) from error
    except DataError:
        return


def _files_of_model(name: str) -> list[Path]:
    """Return the config and weights of a model directory; none for a model on the Hub, which the runs fingerprint."""
    directory = Path(resolve_model(name))
    return [directory / "config.json", *weight_files(directory)] if directory.is_dir() else []
