"""Where a run keeps the teacher's signals, and how runs that share the place wait for each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from filelock import BaseFileLock, FileLock

from demiglace.config.commands import DistillConfig
from demiglace.errors import CacheError
from demiglace.runs.directory import Run
from demiglace.signals.fill import prepare_cache
from demiglace.signals.shard_store import Layout


def cache_root(config: DistillConfig, run: Run) -> Path:
    """The directory below which a run's caches lie."""
    return run.path / "signals" if config.cache == "auto" else Path(config.cache)


@contextmanager
def alone(directory: Path, key: Layout, state: PartialState) -> Iterator[None]:
    """Lay out a cache and keep other runs that share it waiting until it is filled."""
    lock = FileLock(directory.with_name(directory.name + ".lock"))
    try:
        if state.is_main_process:
            _acquire(lock)
            prepare_cache(directory, key)
        state.wait_for_everyone()
        yield
    finally:
        lock.release()


def _acquire(lock: BaseFileLock) -> None:
    try:
        lock.acquire()
    except OSError as error:
        raise CacheError(f"{lock.lock_file} cannot be made ({error.strerror}); give another --cache.") from error
