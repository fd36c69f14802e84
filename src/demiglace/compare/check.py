"""What is wrong with a plan, told before any of its runs begins."""

from pathlib import Path

from demiglace.compare.cells import row_options, teacher_options
from demiglace.compare.plan import Plan, reported_set
from demiglace.compare.steps import config_of
from demiglace.config import build
from demiglace.data.config import DataConfig
from demiglace.data.sources import files_of
from demiglace.data.tasks import TASKS
from demiglace.errors import ConfigError
from demiglace.methods.table import build_method
from demiglace.models.files import resolve_model, weight_files
from demiglace.stages.config import DistillConfig
from demiglace.training.timetable import phase_ends


def check_plan(plan: Plan) -> None:
    """Build every run's config and method. Raises `ConfigError` for the first that cannot be, naming its run."""
    for step in plan.steps:
        config = config_of(step, plan.home)
        if isinstance(config, DistillConfig):
            try:
                phase_ends(config.training.epochs, build_method(config.method, config.method_options).phases)
            except ConfigError as error:
                raise ConfigError(f"{step.key}: {error}") from error


def files_read(plan: Plan) -> dict[str, list[Path]]:
    """What of the user's own a plan reads, and its files: rows, ready teachers and students.

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
    return found


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
