"""Run a comparison: parse and validate the grid, run the jobs that are not done, write the results."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from demiglace.compare.cost import grid_cost
from demiglace.compare.directory import identity, invalidate_manifest, register_inputs
from demiglace.compare.executors.base import Executor
from demiglace.compare.executors.local import LocalExecutor
from demiglace.compare.executors.ray import RayExecutor
from demiglace.compare.grid import Grid, parse_grid
from demiglace.compare.grid_cells import has_option, row_options, skipped_names
from demiglace.compare.job_graph import JobGraph, build_job_graph
from demiglace.compare.progress import ProgressListener, progress_display
from demiglace.compare.protocol import declare
from demiglace.compare.records import failure_messages, jobs_done, write_results
from demiglace.compare.scheduler import Schedule
from demiglace.compare.search import require_optuna
from demiglace.compare.search_space import FEW_TRIALS, Search, trial_options
from demiglace.compare.validate import input_files, validate_jobs
from demiglace.config.command_options import CompareConfig, ExportConfig
from demiglace.console import say
from demiglace.costs.describe import duration, size
from demiglace.errors import ConfigError
from demiglace.export.base import exporter_for
from demiglace.runs.files import read_json
from demiglace.runs.result import Result


def run_grid(config: CompareConfig, content: Mapping[str, Any]) -> Result:
    """Run the jobs of a grid that are not done; with `dry_run`, return all jobs and their cost instead.

    Args:
        config: options of `demiglace compare`.
        content: content of the grid file.

    Raises:
        UserError: as `compare`.
    """
    try:
        grid = parse_grid(content, baselines=not config.no_baselines)
    except ConfigError as error:
        raise ConfigError(f"{config.grid}: {error}") from error
    grid = _with_protocol(grid, config.grid.parent)
    _validate_options(config, grid)
    full_graph, graph = (_build_graph(config, grid, shard) for shard in ((1, 1), _shard(config.shard)))
    validate_jobs(full_graph)
    read = input_files(full_graph)
    if config.dry_run:
        return _forecast(graph)
    register_inputs(config.output, read)
    schedule = Schedule(graph.jobs, jobs_done(graph))
    declare(config.output, grid, content)
    invalidate_manifest(config.output)
    say(
        f"{config.output}: {len(graph.runs)} student runs, {len(graph.jobs)} jobs, "
        f"{schedule.count('done')} of them already done."
    )
    with progress_display(schedule) as listener:
        _executor(config, graph, schedule, listener).run()
    with FileLock(config.output / "locks" / "results.lock"):  # if two shards end together, the later one sees more
        errors = failure_messages(full_graph) | {key: result.error or "" for key, result in schedule.errors.items()}
        status = _status(full_graph, schedule, errors)
        write_results(full_graph, status, errors, _config(config, content), read)
    _report_status(full_graph, schedule, status)
    return Result(config.output, {"records": len(read_json(config.output / "results.json")["records"])})


def _with_protocol(grid: Grid, folder: Path) -> Grid:
    """Return the grid with the path of its protocol file, which is given relative to the grid file.

    Raises `ConfigError` if there is no such file.
    """
    if grid.protocol is None:
        return grid
    file = folder / grid.protocol
    if not file.is_file():
        raise ConfigError(
            f"protocol: there is no file {file}; give the path of a text file, relative to the grid file."
        )
    return replace(grid, protocol=str(file))


def _config(config: CompareConfig, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config for the manifest: the identity of the comparison, and other options that were given."""
    waived = {"no_baselines": True} if config.no_baselines else {}
    location = {"data_dir": str(config.location.data_dir)} if config.location.data_dir else {}
    return identity(content, config.search) | waived | location


def _build_graph(config: CompareConfig, grid: Grid, shard: tuple[int, int]) -> JobGraph:
    return build_job_graph(
        grid, config.output, searching=config.search != "none", shard=shard, data_dir=config.location.data_dir
    )


def _shard(text: str | None) -> tuple[int, int]:
    """Parse `3/8` as (3, 8) and None as (1, 1). Raises `ConfigError` for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(f"--shard was given {text!r}; expected NUMBER/COUNT with NUMBER from 1 to COUNT, as 3/8.")
    return number, count


def _validate_options(config: CompareConfig, grid: Grid) -> None:
    """Raise early for missing packages or sections; warn about options that are ignored or overridden."""
    if config.search != "none":
        if grid.search is None:
            raise ConfigError(f"--search optuna: {config.grid} has no section `search` with trials and ranges.")
        require_optuna()
        _warn_about_trials(grid, grid.search)
        for label, options in grid.methods.items():
            given = {**options, **{f"method_options.{k}": v for k, v in (options.get("method_options") or {}).items()}}
            if searched := [name for name in grid.search.ranges if name in given]:
                say(f"{label}: its value of {', '.join(searched)} is ignored; the search chooses one for every method.")
    elif grid.search is not None:
        say("the section `search` is ignored; give --search optuna to run the search.")
    if grid.export is not None:
        exporter_for(grid.export.get("to", ExportConfig.to)).require_packages()
    for label, names in skipped_names(grid).items():
        say(f"{label} has no option {', '.join(names)}; its runs do without it.")
    for task in grid.tasks if grid.unit == "replicate" else ():
        if not row_options(grid, task).get("max_rows"):
            say(f"{task}: without `max_rows` its replicates share most or all of their training rows.")


def _warn_about_trials(grid: Grid, search: Search) -> None:
    """Warn if there are few trials, or fewer combinations of a method's options than trials."""
    if search.trials < FEW_TRIALS:
        say(f"search: {search.trials} trials are few for choosing options; give {FEW_TRIALS} or more.")
    for label in grid.methods:
        ranges = {name: values for name, values in search.ranges.items() if has_option(grid, label, name)}
        if ranges and (count := len(trial_options(ranges, search.trials))) < search.trials:
            say(f"{label}: its ranges have {count} combinations, so it has {count} trials.")


def _executor(config: CompareConfig, graph: JobGraph, schedule: Schedule, listener: ProgressListener) -> Executor:
    if config.engine == "local":
        return LocalExecutor(graph.root, schedule, listener)
    cpus, gpus = config.cpus_per_run, config.gpus_per_run
    return RayExecutor(graph.root, schedule, listener, address=config.address, cpus=cpus, gpus=gpus)


def _forecast(graph: JobGraph) -> Result:
    """Return a line for each job (whether it is done, its command, its directory), then the cost."""
    done = jobs_done(graph)
    lines = [f"{'done' if j.key in done else 'run ':<5}{j.stage:<9} {graph.root / j.key}" for j in graph.jobs]
    lines.append(f"{len(graph.runs)} student runs, {len(graph.jobs)} jobs, {len(done)} of them done.")
    cost = grid_cost(graph, done)
    lines.append(f"The teachers' signals take {size(cost.cache_bytes)}.")
    if cost.seconds is not None:
        parts = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in cost.seconds.items() if seconds)
        total = duration(sum(cost.seconds.values()))
        lines.append(f"Training takes about {total} here, one run after another ({parts}), plus evaluation and export.")
    counts = {"student_runs": len(graph.runs), "jobs": len(graph.jobs), "done": len(done)}
    return Result(
        None, counts | {"cache_bytes": cost.cache_bytes, "training_seconds": cost.seconds}, text="\n".join(lines)
    )


def _status(graph: JobGraph, schedule: Schedule, errors: Mapping[str, str]) -> dict[str, str]:
    """Return key -> status of every job of the full grid, including failed and skipped jobs of other shards."""
    done, status = jobs_done(graph), dict[str, str]()
    for job in graph.jobs:  # each after the jobs it depends on
        other = "failed" if job.key in errors else "missing"
        if any(status[dependency] in ("failed", "skipped") for dependency in job.depends_on):
            other = "skipped"
        status[job.key] = "done" if job.key in done else schedule.status.get(job.key, other)
    return status


def _report_status(graph: JobGraph, schedule: Schedule, status: Mapping[str, str]) -> None:
    """Raise if a job of this process failed; otherwise print what other shards still have to run."""
    if schedule.errors:
        raise schedule.failure(graph.root)
    count = list(status.values()).count
    if lost := count("failed") + count("skipped"):
        say(f"{lost} jobs of other shards failed or were skipped; {graph.root / 'failed'} has each error.")
    if missing := count("missing"):
        say(f"this shard is done; {missing} of {len(graph.jobs)} jobs are still missing, for other shards.")
    if not lost and not missing:
        say(f"{graph.root}: all {len(graph.runs)} student runs are done; see results.json and summary.json.")
