"""A cache on disk: memory-mapped arrays with one entry for each row.

The directory is named after a hash of everything that the numbers depend on, so one folder can serve many runs. Rows
are captured in shards of consecutive rows. A shard is complete once its metadata file with checksums exists, so an
interrupted capture resumes at the first shard without one.
"""

import hashlib
import json
import os
import shutil
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from demiglace.console import Bar, progress
from demiglace.errors import CacheError, RunError
from demiglace.runs.files import read_json, write_json


class CacheSpec(ABC):
    """Specification of a cache; subclasses are frozen dataclasses of everything that the numbers depend on."""

    disable_flag: ClassVar[str]  # command-line option that runs the teacher without this cache
    rows: int

    @property
    @abstractmethod
    def shard_rows(self) -> int:
        """Return the number of rows of a shard."""

    @property
    @abstractmethod
    def arrays(self) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """Return the shape and dtype of each array, by file stem."""

    @property
    def identity(self) -> dict[str, Any]:
        """Return all fields, as stored in cache.json."""
        return asdict(self)  # type: ignore[call-overload, no-any-return] # every subclass is a dataclass

    @property
    def name(self) -> str:
        """Return the name of the cache's directory, 16 hex digits of a SHA-256."""
        return hashlib.sha256(json.dumps(self.identity).encode()).hexdigest()[:16]

    @property
    def bytes(self) -> int:
        """Return the size on disk in bytes."""
        return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in self.arrays.values())


def open_arrays(directory: Path, key: CacheSpec) -> dict[str, np.ndarray]:
    """Return the arrays of a complete cache, by file stem. Raises `CacheError` if a shard is missing or corrupt."""
    for shard in range(num_shards(key)):
        _verify(directory, key, shard)
    return {stem: np.load(directory / f"{stem}.npy", mmap_mode="r") for stem in key.arrays}


def _verify(directory: Path, key: CacheSpec, shard: int) -> None:
    file = shard_metadata_file(directory, shard)
    remedy = f"remove {directory} and repeat the command; it then runs the teacher again."
    if not file.exists():
        raise CacheError(f"shard {shard} of the signal cache is missing; {remedy}")
    expected, rows = read_cache_json(file).get("crc32", {}), rows_of(key, shard)
    for stem, (shape, dtype) in key.arrays.items():
        try:
            array = np.load(directory / f"{stem}.npy", mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise CacheError(f"{directory / stem}.npy cannot be read ({error}); {remedy}") from error
        is_expected = array.shape == shape and array.dtype == dtype
        if not is_expected or zlib.crc32(array[rows[0] : rows[-1] + 1].tobytes()) != expected.get(stem):
            raise CacheError(f"shard {shard} of {stem} in the signal cache is corrupt; {remedy}")


def read_cache_json(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file of the cache. Raises `CacheError` if it is damaged."""
    try:
        return read_json(file)
    except RunError as error:
        raise CacheError(f"{file} is damaged; remove {file.parent} and repeat the command.") from error


def shard_metadata_file(directory: Path, shard: int) -> Path:
    """Return the path of the file that marks a shard as complete; it has its checksums and capture time in seconds."""
    return directory / f"shard-{shard:05d}.json"


def num_shards(key: CacheSpec) -> int:
    """Return the number of shards."""
    return -(-key.rows // key.shard_rows)


def rows_of(key: CacheSpec, shard: int) -> np.ndarray:
    """Return the row numbers of a shard."""
    return np.arange(shard * key.shard_rows, min((shard + 1) * key.shard_rows, key.rows))


def capture_seconds(directory: Path, key: CacheSpec) -> float:
    """Return the seconds of the teacher's forward passes, in whichever run they were captured."""
    return sum(read_cache_json(shard_metadata_file(directory, s)).get("seconds", 0.0) for s in range(num_shards(key)))


# (row numbers of a shard, progress bar to advance by rows) -> the shard's part of each array
Capture = Callable[[np.ndarray, Bar], dict[str, np.ndarray]]


def fill_shards(directory: Path, key: CacheSpec, capture: Capture, rank: int = 0, ranks: int = 1) -> None:
    """Capture and write this process's share of the missing shards. Raises `CacheError` as `fill_cache` does."""
    todo = [s for s in range(rank, num_shards(key), ranks) if not shard_metadata_file(directory, s).exists()]
    if not todo:
        return
    with progress("caching teacher signals", sum(len(rows_of(key, s)) for s in todo), "rows") as bar:
        for shard in todo:
            start, rows = time.perf_counter(), rows_of(key, shard)
            with np.errstate(over="ignore"):  # reported below
                blocks = capture(rows, bar)
            for stem, block in blocks.items():
                if not np.isfinite(block).all():
                    raise CacheError(
                        f"the teacher's {stem} do not fit {block.dtype} (or are not finite); give "
                        "--cache-dtype float32."
                    )
            _write_shard(directory, shard, rows, blocks, time.perf_counter() - start)


def prepare_cache(directory: Path, key: CacheSpec) -> None:
    """Create the files of an empty cache. One process calls this before any process fills it.

    Raises `CacheError` if the disk has too little space or the directory belongs to another capture.
    """
    identity = json.loads(json.dumps(key.identity))
    identity_file = directory / "cache.json"
    if identity_file.exists():
        stored = read_cache_json(identity_file)
        differ = [k for k in identity if stored.get(k) != identity[k]]
        if differ:
            raise CacheError(
                f"{directory} holds signals of another capture (different: {', '.join(differ)}); "
                "remove it or give another --cache."
            )
        return
    _check_disk(directory, key)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for stem, (shape, dtype) in key.arrays.items():
            np.lib.format.open_memmap(directory / f"{stem}.npy", "w+", np.dtype(dtype), shape).flush()
        write_json(identity_file, identity)
    except (OSError, RunError) as error:
        raise _unwritable(directory, error) from error


def free_disk(directory: Path) -> tuple[int, Path]:
    """Return the free bytes of the disk of a directory, and its nearest existing parent (or the directory)."""
    existing = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free, existing


def _check_disk(directory: Path, key: CacheSpec) -> None:
    needed, (free, existing) = key.bytes, free_disk(directory)
    if needed > free * 0.95:
        raise CacheError(
            f"the teacher's signals take {needed / 2**30:.2f} GiB and {existing} has {free / 2**30:.2f} GiB free; "
            f"give --cache a directory on a larger disk, or {key.disable_flag} to run the teacher on every batch."
        )


def _write_shard(directory: Path, shard: int, rows: np.ndarray, blocks: dict[str, np.ndarray], seconds: float) -> None:
    try:
        for stem, block in blocks.items():
            file = directory / f"{stem}.npy"
            # written, not memory-mapped: a full disk then raises an error here instead of killing the process by a
            # signal
            with file.open("r+b") as handle:
                handle.seek(np.load(file, mmap_mode="r").offset + int(rows[0]) * block[0].nbytes)
                handle.write(block.tobytes())
                handle.flush()
                os.fsync(handle.fileno())
        checksums = {stem: zlib.crc32(b.data) for stem, b in blocks.items()}
        write_json(shard_metadata_file(directory, shard), {"crc32": checksums, "seconds": seconds})
    except (OSError, EOFError, ValueError, RunError) as error:
        # EOFError and ValueError: the file is not the array that was created
        raise _unwritable(directory, error) from error


def _unwritable(directory: Path, error: Exception) -> CacheError:
    return CacheError(
        f"the teacher's signals could not be written to {directory}: {error}; free disk space, remove it, or give "
        "another --cache. Earlier shards are intact."
    )
