"""One step of a plan: whether it is done, its config, running it with its words in a log file of its own."""

import contextlib
import importlib
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from demiglace.compare.job_config import best_file, claim_file, config_of, search_identity
from demiglace.compare.job_graph import Job
from demiglace.config.aliases import renamed
from demiglace.config.options import flatten
from demiglace.console import say
from demiglace.errors import RunError, UserError
from demiglace.runs.directory import check_config, has_outputs
from demiglace.runs.files import read_json


@dataclass(frozen=True)
class JobResult:
    """How a step ended. error: none where it is done; is_user: whether the user can mend it."""

    seconds: float
    error: str | None = None
    is_user: bool = False


def is_done(step: Job, home: Path) -> bool:
    """Whether a step is complete. Raises `RunError` if its directory holds a run, or a search, with other options."""
    if step.stage == "search":
        claim, best = claim_file(home, step.key), best_file(home, step.key)
        if claim.exists() or best.exists():
            _check_search(home / step.key, read_json(claim if claim.exists() else best), search_identity(step, home))
        return best.exists() and read_json(best)["trials"] >= step.trials
    directory = home / step.key
    if not has_outputs(directory):
        return False
    try:
        check_config(directory, step.stage, flatten(config_of(step, home), result_options_only=True))
    except RunError as error:
        raise RunError(f"{error} Or remove {directory} and what was made from it; it is then made anew.") from error
    return (directory / "manifest.json").exists()


def _check_search(directory: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise `RunError` unless both are one search; it may be given more trials than it has had, but not fewer."""
    base = renamed(there.get("base", now["base"]))  # earlier versions did not write it
    pairs = {k: (base.get(k), value) for k, value in now["base"].items()} | {
        "ranges": (renamed(there["ranges"]), now["ranges"])
    }
    pairs["trials"] = there["trials"], min(there["trials"], now["trials"])
    differ = [f"{name}: {old!r} there, {new!r} now" for name, (old, new) in pairs.items() if old != new]
    if differ:
        raise RunError(
            f"{directory} was begun as another search, which differs in:\n  "
            + "\n  ".join(differ)
            + "\nMethods are to be searched alike: give another --output, or what stands to go on with that search; "
            "only `trials` may grow."
        )


def run_step(step: Job, home: Path, *, wait: bool = True) -> JobResult | None:
    """Run one step to its end, or find it done; none if another process has it and `wait` is false.

    Whatever it says goes to logs/KEY.log, and a failure's story to failed/KEY.txt, which a success removes. Raises
    nothing but what ends the process.
    """
    try:
        with FileLock(_file(home, "locks", step, "lock")).acquire(timeout=-1 if wait else 0):
            return _attempt(step, home)
    except Timeout:
        return None


def _attempt(step: Job, home: Path) -> JobResult:
    begun, story = time.perf_counter(), _file(home, "failed", step, "txt")
    try:
        if not is_done(step, home):
            _run(step, home)
    except Exception as error:
        is_user = isinstance(error, UserError)
        story.write_text(str(error) if is_user else traceback.format_exc(), encoding="utf-8")
        return JobResult(time.perf_counter() - begun, _one_line(error), is_user)
    story.unlink(missing_ok=True)
    return JobResult(time.perf_counter() - begun)


def _one_line(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _file(home: Path, kind: str, step: Job, ending: str) -> Path:
    file = home / kind / f"{step.key}.{ending}"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _run(step: Job, home: Path) -> None:
    # imported before its words are sent to the file: what logs on import keeps the stream it then finds
    if step.stage == "search":
        module = importlib.import_module("demiglace.compare.search")
        with redirect_output(_file(home, "logs", step, "log")):
            module.run_search(step, home)
        return
    module = importlib.import_module(f"demiglace.commands.{step.stage}")
    with redirect_output(_file(home, "logs", step, "log")):
        say(repr(getattr(module, step.stage)(config_of(step, home))))


@contextlib.contextmanager
def redirect_output(file: Path) -> Iterator[None]:
    """Let all that is printed go to the end of a file. The console of `demiglace.console` follows `sys.stderr`."""
    with (
        file.open("a", encoding="utf-8") as handle,
        contextlib.redirect_stdout(handle),
        contextlib.redirect_stderr(handle),
    ):
        yield
