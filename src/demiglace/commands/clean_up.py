"""`demiglace clean-up`: remove what finished runs no longer need."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from demiglace.config.command_options import CleanUpConfig
from demiglace.config.options import command
from demiglace.console import say
from demiglace.errors import RunError
from demiglace.report.format import count_of, size
from demiglace.runs.directory import is_complete, runs_below, stage_of
from demiglace.runs.result import Result, ResultTable

_DISPOSABLE = ("last", "checkpoints", "signals", "tokens", "*.part")
_COMPARISON = "compare"


@dataclass(frozen=True)
class _Run:
    """A run directory and what can be removed there."""

    path: Path
    complete: bool
    disposable: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        return sum(map(_size, self.disposable))


@command(CleanUpConfig)
def clean_up(config: CleanUpConfig) -> Result:
    """Remove last weights, checkpoints, caches and temporary files of finished runs; see `CleanUpConfig`.

    Return the bytes freed by run, also with `dry_run`, which removes nothing. Unfinished runs are left alone and
    counted, unless `unfinished` is given; runs in use by another process always are. Raises `RunError` for a path that
    holds no run, before anything is removed, and for files that cannot be removed.
    """
    runs = [_run(directory) for path in config.runs for directory in runs_below(path)]
    unfinished = [run for run in runs if not run.complete and not config.unfinished]
    freed: dict[str, int] = {}
    for run in runs:
        if run not in unfinished and run.disposable:
            freed |= _clean(run, dry_run=config.dry_run)
    if unfinished:
        say(f"left alone: {count_of(len(unfinished), 'unfinished run')} ({_names(unfinished)}); see --unfinished.")
    verb = "would free" if config.dry_run else "freed"
    text = f"{verb} {size(sum(freed.values()))} in {len(freed):,} of {count_of(len(runs), 'run')}"
    rows = tuple((path, size(number)) for path, number in freed.items())
    return Result(None, freed, (ResultTable("Clean-up", ("run", verb), rows),) if rows else (), text)


def _run(path: Path) -> _Run:
    complete = is_complete(path)
    paths = [p for name in _DISPOSABLE for p in sorted(path.glob(name)) if not p.is_symlink()]
    if complete and stage_of(path) == _COMPARISON:
        paths += _shared_caches(path)
    return _Run(path, complete, tuple(paths))


def _shared_caches(comparison: Path) -> list[Path]:
    """Return the directories TASK/signals of a comparison, which its runs share."""
    return [p for p in sorted(comparison.rglob("signals")) if p.is_dir() and not stage_of(p.parent)]


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _clean(run: _Run, *, dry_run: bool) -> dict[str, int]:
    """Remove the disposable files of a run, and return the bytes freed by its path; nothing if it is in use."""
    freed = {str(run.path): run.bytes}
    if dry_run:
        return freed
    with _locked(run.path) as locked:
        if not locked:
            say(f"left alone: {run.path} is in use by another process.")
            return {}
        for path in run.disposable:
            _remove(path)
    return freed


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a run directory, and yield whether that was possible."""
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pass
    except OSError as error:
        raise RunError(f"{path} cannot be changed: {error.strerror}; check its permissions.") from error
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path} could not be removed: {error.strerror}; check its permissions.") from error


def _names(runs: Sequence[_Run]) -> str:
    shown = ", ".join(str(run.path) for run in runs[:3])
    return f"{shown}, …" if len(runs) > 3 else shown
