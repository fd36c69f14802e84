"""The Daft executor of cleaning: tasks run in local processes, or on the machines of a Ray cluster."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from demiglace.cleaning.liveness import watched
from demiglace.cleaning.tasks import read_spec, run_task
from demiglace.cluster import connect
from demiglace.errors import ConfigError, UserError

Engine = Literal["local", "ray"]


def import_daft() -> Any:
    """Import Daft with its usage reports switched off."""
    for name in ("DO_NOT_TRACK", "SCARF_NO_ANALYTICS"):
        os.environ.setdefault(name, "true")
    import daft

    return daft


_started: Engine | None = None  # Daft has one runner per process


def start(engine: Engine, address: str | None) -> None:
    """Choose where tasks run. Raises `ConfigError` if this process already uses the other engine."""
    global _started
    if _started not in (None, engine):
        raise ConfigError(
            f"engine {engine} was given, but this process already uses {_started}; start another process."
        )
    if _started is None:
        daft = import_daft()
        if engine == "ray":
            import ray

            if not ray.is_initialized():
                connect(address, {})
            daft.set_runner_ray(None, noop_if_initialized=True)
        else:
            daft.set_runner_native()
    _started = engine


def run_tasks(directory: str, tasks: Sequence[dict[str, Any]], workers: int) -> Iterator[None]:
    """Run independent tasks of a run; yield once for each task that is done.

    Args:
        directory: of the run.
        tasks: as `cleaning.tasks.run_task` takes them.
        workers: tasks at once; with 1 and the local engine, they run in this process.

    Raises:
        UserError: a task failed for a reason that the user can fix.
        RunError: a local worker ended, or computed nothing for ten minutes, see `liveness.watched`.
    """
    if not tasks:
        return
    daft = import_daft()
    workers = min(workers, len(tasks))
    # If `max_concurrency` is given, even as 1, Daft starts new processes for each call, which costs CPU-seconds each.
    options = {"use_process": True, "max_concurrency": workers} if workers > 1 else {"use_process": False}
    worker = daft.cls(_Worker, **options)
    frame = daft.from_pydict({"task": [json.dumps(task) for task in tasks]}).into_batches(1)
    rows = frame.select(worker(directory).run(daft.col("task")).alias("error")).iter_rows()
    for row in watched(rows) if _started != "ray" else rows:
        if row["error"]:
            raise UserError(row["error"])
        yield


class _Worker:
    """Runs tasks, one after another."""

    def __init__(self, directory: str):
        self._spec = read_spec(directory)

    @import_daft().method.batch(return_dtype=import_daft().DataType.string(), batch_size=1)
    def run(self, tasks: Any) -> list[str]:
        """Run a batch of tasks; return the message of each `UserError`, or an empty string."""
        return [self._run_one(task) for task in tasks.to_pylist()]

    def _run_one(self, task: str) -> str:
        try:
            run_task(self._spec, json.loads(task))
        except UserError as error:
            return str(error)
        return ""
