"""Tasks on Daft: embedded, with a process for each core, or on the machines of a Ray cluster; the same tasks."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from demiglace.cleaning.tasks import read_plan, run_task
from demiglace.cluster import connect
from demiglace.errors import ConfigError, UserError

Engine = Literal["local", "ray"]


def import_daft() -> Any:
    """Daft, which is told before not to report its use to anyone."""
    for name in ("DO_NOT_TRACK", "SCARF_NO_ANALYTICS"):
        os.environ.setdefault(name, "true")
    import daft

    return daft


_started: Engine | None = None  # Daft has one runner a process


def start(engine: Engine, address: str | None) -> None:
    """Choose where tasks run. Raises `ConfigError` where this process has begun with the other engine."""
    global _started
    if _started not in (None, engine):
        raise ConfigError(f"this process runs tasks on {_started} already; start another one for {engine}.")
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
    """Do all tasks of a run that depend on nothing of each other, one yield for each that is done.

    workers: how many at once; one does them in this very process where the engine is local. Raises what a user can
    mend as `UserError`.
    """
    if not tasks:
        return
    daft = import_daft()
    workers = min(workers, len(tasks))
    # where a number of workers is given, even 1, Daft starts processes: new ones for each call, some CPU-seconds each
    several = {"use_process": True, "max_concurrency": workers} if workers > 1 else {"use_process": False}
    kind = daft.cls(_Worker, **several)
    frame = daft.from_pydict({"task": [json.dumps(task) for task in tasks]}).into_batches(1)
    for row in frame.select(kind(directory).perform(daft.col("task")).alias("fault")).iter_rows():
        if row["fault"]:
            raise UserError(row["fault"])
        yield


class _Worker:
    """Does tasks, one after another."""

    def __init__(self, directory: str):
        self._plan = read_plan(directory)

    @import_daft().method.batch(return_dtype=import_daft().DataType.string(), batch_size=1)
    def perform(self, tasks: Any) -> list[str]:
        """What a user has to mend, or nothing, for each."""
        return [self._one(task) for task in tasks.to_pylist()]

    def _one(self, task: str) -> str:
        try:
            run_task(self._plan, json.loads(task))
        except UserError as error:
            return str(error)
        return ""
