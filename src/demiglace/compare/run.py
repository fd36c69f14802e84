"""A comparison from its command to its end: read, check, run what is not done, tell what was found."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from demiglace.compare.cells import has_option, row_options, skipped_names
from demiglace.compare.cost import grid_cost
from demiglace.compare.directory import identity, invalidate_manifest, register_inputs
from demiglace.compare.executors.local import run_local
from demiglace.compare.executors.ray import run_ray
from demiglace.compare.grid import Grid, parse_grid
from demiglace.compare.job_graph import JobGraph, make_plan
from demiglace.compare.progress import ProgressListener, progress_display
from demiglace.compare.protocol import declare
from demiglace.compare.records import failure_messages, steps_done, write_results
from demiglace.compare.scheduler import Schedule
from demiglace.compare.search import require_optuna
from demiglace.compare.search_space import FEW_TRIALS, Search, trial_options
from demiglace.compare.validate import check_plan, files_read
from demiglace.config.commands import CompareConfig
from demiglace.console import say
from demiglace.costs.describe import duration, size
from demiglace.errors import ConfigError, FailedRunsError, RunError
from demiglace.export.onnx import require_onnx
from demiglace.runs.files import read_json
from demiglace.runs.result import Result


def run_grid(config: CompareConfig, content: Mapping[str, Any]) -> Result:
    """Run what is not done of the grid with this content; with `dry_run` only return what that is.

    Raises as `compare` does.
    """
    try:
        grid = parse_grid(content, controls=not config.no_controls)
    except ConfigError as error:
        raise ConfigError(f"{config.grid}: {error}") from error
    grid = _with_protocol(grid, config.grid.parent)
    _validate_options(config, grid)
    whole, plan = (_plan(config, grid, shard) for shard in ((1, 1), _shard(config.shard)))
    check_plan(whole)
    read = files_read(whole)
    if config.dry_run:
        return _forecast(plan)
    register_inputs(config.output, read)
    schedule = Schedule(plan.steps, steps_done(plan))
    declare(config.output, grid, content)
    invalidate_manifest(config.output)
    say(
        f"{config.output}: {len(plan.runs)} student runs, {len(plan.steps)} steps, "
        f"{schedule.count('done')} of them done already."
    )
    with progress_display(schedule) as watcher:
        _engine(config)(plan, schedule, watcher)
    with FileLock(config.output / "locks" / "results.lock"):  # of two shards that end, the later sees more
        errors = failure_messages(whole) | {key: ending.error or "" for key, ending in schedule.errors.items()}
        status = _status(whole, schedule, errors)
        write_results(whole, status, errors, _config(config, content), read)
    _report_status(whole, schedule, status)
    return Result(config.output, {"records": len(read_json(config.output / "results.json")["records"])})


def _with_protocol(grid: Grid, folder: Path) -> Grid:
    """The grid with the path of its protocol, which is relative to the grid file. Raises `ConfigError`."""
    if grid.protocol is None:
        return grid
    file = folder / grid.protocol
    if not file.is_file():
        raise ConfigError(
            f"protocol: there is no file {file}; give the path of a text file, relative to the grid file."
        )
    return replace(grid, protocol=str(file))


def _config(config: CompareConfig, content: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of the command: its grid and search, and further options that were given."""
    waived = {"no_controls": True} if config.no_controls else {}
    place = {"data_dir": str(config.location.data_dir)} if config.location.data_dir else {}
    return identity(content, config.search) | waived | place


def _plan(config: CompareConfig, grid: Grid, shard: tuple[int, int]) -> JobGraph:
    return make_plan(
        grid, config.output, searching=config.search != "none", shard=shard, data_dir=config.location.data_dir
    )


def _shard(text: str | None) -> tuple[int, int]:
    """`3/8` as (3, 8); all of it is (1, 1)."""
    found = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(f"--shard was given {text!r}; expected NUMBER/COUNT with NUMBER from 1 to COUNT, as 3/8.")
    return number, count


def _validate_options(config: CompareConfig, grid: Grid) -> None:
    """What can be known to fail before anything runs, and what a reader of the grid may not expect."""
    if config.search != "none":
        if grid.search is None:
            raise ConfigError(f"--search optuna: {config.grid} has no section `search` with trials and ranges.")
        require_optuna()
        _tell_trials(grid, grid.search)
        for label, options in grid.methods.items():
            own = {**options, **{f"method_options.{k}": v for k, v in (options.get("method_options") or {}).items()}}
            if searched := [name for name in grid.search.ranges if name in own]:
                say(f"{label}: what it gives for {', '.join(searched)} is searched for, as for every method.")
    elif grid.search is not None:
        say("the grid's `search` is left alone; give --search optuna to run it.")
    if grid.export is not None:
        require_onnx()
    for label, names in skipped_names(grid).items():
        say(f"{label} has no option {', '.join(names)}; its runs are made without.")
    for task in grid.tasks if grid.unit == "replicate" else ():
        if not row_options(grid, task).get("max_rows"):
            say(f"{task}: without `max_rows` its replicates share most or all of their training rows.")


def _tell_trials(grid: Grid, search: Search) -> None:
    """Print a warning where trials are few, and which methods have fewer combinations than trials."""
    if search.trials < FEW_TRIALS:
        say(f"search: {search.trials} trials are few for choosing options; give {FEW_TRIALS} or more.")
    for label in grid.methods:
        ranges = {name: within for name, within in search.ranges.items() if has_option(grid, label, name)}
        if ranges and (count := len(trial_options(ranges, search.trials))) < search.trials:
            say(f"{label}: its ranges have {count} combinations, so it has {count} trials.")


def _engine(config: CompareConfig) -> Callable[[JobGraph, Schedule, ProgressListener], None]:
    if config.engine == "local":
        return run_local
    return lambda plan, schedule, watcher: run_ray(
        plan, schedule, watcher, address=config.address, cpus=config.cpus_per_run, gpus=config.gpus_per_run
    )


def _forecast(plan: JobGraph) -> Result:
    """Return a line for every step (its stage, its directory, whether it is done), and the cost of the others."""
    done = steps_done(plan)
    lines = [f"{'done' if s.key in done else 'run ':<5}{s.stage:<9} {plan.home / s.key}" for s in plan.steps]
    lines.append(f"{len(plan.runs)} student runs, {len(plan.steps)} steps, {len(done)} of them done.")
    cost = grid_cost(plan, done)
    lines.append(f"The teachers' signals take {size(cost.cache_bytes)}.")
    if cost.seconds is not None:
        parts = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in cost.seconds.items() if seconds)
        total = duration(sum(cost.seconds.values()))
        lines.append(
            f"Training takes about {total} here, one run after another ({parts}); evaluation and export come on top."
        )
    counts = {"student_runs": len(plan.runs), "steps": len(plan.steps), "done": len(done)}
    return Result(
        None, counts | {"cache_bytes": cost.cache_bytes, "training_seconds": cost.seconds}, text="\n".join(lines)
    )


def _status(whole: JobGraph, schedule: Schedule, errors: Mapping[str, str]) -> dict[str, str]:
    """The state of every step of the whole grid; of those of other shards, too, that failed and were skipped."""
    done, status = steps_done(whole), dict[str, str]()
    for step in whole.steps:  # each after those it needs
        fate = "failed" if step.key in errors else "missing"
        if any(status[need] in ("failed", "skipped") for need in step.needs):
            fate = "skipped"
        status[step.key] = "done" if step.key in done else schedule.status.get(step.key, fate)
    return status


def _report_status(whole: JobGraph, schedule: Schedule, status: Mapping[str, str]) -> None:
    """Say what is missing, or raise for what failed."""
    if schedule.errors:
        raise _failure(whole.home, schedule)
    count = list(status.values()).count
    if lost := count("failed") + count("skipped"):
        say(f"{lost} steps of other shards failed, or need one that did; {whole.home / 'failed'} keeps each story.")
    if missing := count("missing"):
        say(f"this share is done; {missing} of {len(whole.steps)} steps are still missing, for other shards.")
    if not lost and not missing:
        say(f"{whole.home}: all {len(whole.runs)} student runs are done; results.json and summary.json tell of them.")


def _failure(home: Path, schedule: Schedule) -> Exception:
    count = len(schedule.errors)
    lines = [f"{count} run{'s' if count > 1 else ''} failed, {schedule.count('skipped')} skipped that need them:"]
    lines += [f"  {key}: {ending.error}" for key, ending in schedule.errors.items()]
    lines.append(f"{home / 'failed'} keeps each story; repeat the same command to try them again.")
    kind = RunError if all(ending.is_user for ending in schedule.errors.values()) else FailedRunsError
    return kind("\n".join(lines))
