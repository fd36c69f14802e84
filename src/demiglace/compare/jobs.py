"""One job of the graph: whether it is done, and running it with its output redirected to its log file."""

import contextlib
import importlib
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from demiglace.compare.job_config import best_file, config_of, search_file, search_identity
from demiglace.compare.job_graph import Job
from demiglace.config.aliases import renamed
from demiglace.config.options import flatten
from demiglace.console import say
from demiglace.errors import RunError, UserError
from demiglace.runs.directory import check_config, has_outputs, is_complete, read_manifest, remove_leftovers
from demiglace.runs.files import read_json


@dataclass(frozen=True)
class JobResult:
    """The result of a job."""

    seconds: float  # wall time
    error: str | None = None  # why it failed; None if it succeeded
    is_user: bool = False  # the error is a `UserError`, which the user can fix


def is_done(job: Job, root: Path) -> bool:
    """Return whether a job is complete. Raises `RunError` if its directory holds a run or search with other options."""
    if job.stage == "search":
        identity_file, best = search_file(root, job.key), best_file(root, job.key)
        if identity_file.exists() or best.exists():
            existing = read_json(identity_file if identity_file.exists() else best)
            _check_search(root / job.key, existing, search_identity(job, root))
        return best.exists() and read_json(best)["trials"] >= job.trials
    directory = root / job.key
    if not has_outputs(directory):
        return False
    try:
        check_config(directory, job.stage, flatten(config_of(job, root), result_options_only=True))
    except RunError as error:
        raise RunError(f"{error} Or remove {directory} and what was made from it; the run is then repeated.") from error
    if not is_complete(directory):
        return False
    remove_leftovers(directory)
    read_manifest(directory)  # raises if a file of the run is damaged
    return True


def _check_search(directory: Path, existing: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise `RunError` unless both are the same search, up to `trials`, which may only grow.

    Args:
        existing: the identity in the directory.
        given: the identity that the grid gives.
    """
    base = renamed(existing.get("base", given["base"]))  # earlier versions did not write it
    pairs = {k: (base.get(k), value) for k, value in given["base"].items()}
    pairs["ranges"] = renamed(existing["ranges"]), given["ranges"]
    pairs["trials"] = existing["trials"], min(existing["trials"], given["trials"])
    differ = [f"{name}: {old!r} there, {new!r} now" for name, (old, new) in pairs.items() if old != new]
    if differ:
        raise RunError(
            f"{directory} holds another search, which differs in:\n  "
            + "\n  ".join(differ)
            + "\nAll methods must be searched in the same way: give another --output, or the same options to resume "
            "that search; only `trials` may grow."
        )


def run_job(job: Job, root: Path, *, wait: bool = True) -> JobResult | None:
    """Run one job unless it is done, and return its result; every `Exception` becomes an error in the result.

    The output goes to logs/KEY.log. The error of a failed job goes to failed/KEY.txt, which a later success removes.

    Args:
        job: the job.
        root: the directory of the comparison.
        wait: wait while another process runs the job; if False, return None at once.
    """
    try:
        with FileLock(_job_file(root, "locks", job, "lock")).acquire(timeout=-1 if wait else 0):
            return _attempt(job, root)
    except Timeout:
        return None


def _attempt(job: Job, root: Path) -> JobResult:
    start, error_file = time.perf_counter(), _job_file(root, "failed", job, "txt")
    try:
        if not is_done(job, root):
            _run(job, root)
    except Exception as error:
        is_user = isinstance(error, UserError)
        error_file.write_text(str(error) if is_user else traceback.format_exc(), encoding="utf-8")
        return JobResult(time.perf_counter() - start, _one_line(error), is_user)
    error_file.unlink(missing_ok=True)
    return JobResult(time.perf_counter() - start)


def _one_line(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _job_file(root: Path, kind: str, job: Job, extension: str) -> Path:
    file = root / kind / f"{job.key}.{extension}"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _run(job: Job, root: Path) -> None:
    # The module is imported before the redirection: a logger configured on import keeps the stream of that moment.
    if job.stage == "search":
        module = importlib.import_module("demiglace.compare.search")
        with redirect_output(_job_file(root, "logs", job, "log")):
            module.run_search(job, root)
        return
    module = importlib.import_module(f"demiglace.commands.{job.stage}")
    with redirect_output(_job_file(root, "logs", job, "log")):
        say(repr(getattr(module, job.stage)(config_of(job, root))))


@contextlib.contextmanager
def redirect_output(file: Path) -> Iterator[None]:
    """Append everything that is printed to a file. The console of `demiglace.console` follows `sys.stderr`."""
    with (
        file.open("a", encoding="utf-8") as handle,
        contextlib.redirect_stdout(handle),
        contextlib.redirect_stderr(handle),
    ):
        yield
