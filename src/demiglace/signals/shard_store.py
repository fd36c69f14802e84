"""A cache on disk: memory-mapped arrays with one entry a row, in a directory named after all that they depend on, so
that one folder can serve many runs.

Rows are captured in shards of consecutive rows; a shard counts once its receipt with checksums stands beside it, so a
capture that was cut off goes on with the first shard that has none.
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
    """What a cache is made of; a frozen dataclass of all that the numbers depend on. online: the option that does
    without it; rows: how many there are."""

    online: ClassVar[str]
    rows: int

    @property
    @abstractmethod
    def shard_rows(self) -> int:
        """How many of the rows make a shard."""

    @property
    @abstractmethod
    def arrays(self) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """File stem to the shape and number format of an array."""

    @property
    def identity(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)  # type: ignore[call-overload, no-any-return] # every layout is a dataclass

    @property
    def name(self) -> str:
        """The cache's directory name."""
        return hashlib.sha256(json.dumps(self.identity).encode()).hexdigest()[:16]

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in self.arrays.values())


def open_arrays(directory: Path, key: CacheSpec) -> dict[str, np.ndarray]:
    """The arrays of a complete cache. Raises `CacheError` where a shard is missing or corrupt."""
    for shard in range(num_shards(key)):
        _verify(directory, key, shard)
    return {stem: np.load(directory / f"{stem}.npy", mmap_mode="r") for stem in key.arrays}


def _verify(directory: Path, key: CacheSpec, shard: int) -> None:
    file = shard_metadata_file(directory, shard)
    remedy = f"remove {directory} and repeat the command; the teacher is then asked again."
    if not file.exists():
        raise CacheError(f"shard {shard} of the signal cache is missing; {remedy}")
    expected, rows = read_cache_json(file).get("crc32", {}), rows_of(key, shard)
    for stem, (shape, dtype) in key.arrays.items():
        try:
            array = np.load(directory / f"{stem}.npy", mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise CacheError(f"{directory / stem}.npy cannot be read ({error}); {remedy}") from error
        is_ours = array.shape == shape and array.dtype == dtype
        if not is_ours or zlib.crc32(array[rows[0] : rows[-1] + 1].tobytes()) != expected.get(stem):
            raise CacheError(f"shard {shard} of {stem} in the signal cache is corrupt; {remedy}")


def read_cache_json(file: Path) -> dict[str, Any]:
    """A JSON file of the cache. Raises `CacheError` where it is damaged."""
    try:
        return read_json(file)
    except RunError as error:
        raise CacheError(f"{file} is damaged; remove {file.parent} and repeat the command.") from error


def shard_metadata_file(directory: Path, shard: int) -> Path:
    """The file that marks a shard as captured and holds its checksums and seconds."""
    return directory / f"shard-{shard:05d}.json"


def num_shards(key: CacheSpec) -> int:
    """How many shards the rows make."""
    return -(-key.rows // key.shard_rows)


def rows_of(key: CacheSpec, shard: int) -> np.ndarray:
    """The row numbers of a shard."""
    return np.arange(shard * key.shard_rows, min((shard + 1) * key.shard_rows, key.rows))


def capture_seconds(directory: Path, key: CacheSpec) -> float:
    """What the teacher's pass took, in whichever run it was made."""
    return sum(read_cache_json(shard_metadata_file(directory, s)).get("seconds", 0.0) for s in range(num_shards(key)))


# the rows of a shard, and where to tell how many of them are done -> what goes into each array
Capture = Callable[[np.ndarray, Bar], dict[str, np.ndarray]]


def fill_shards(directory: Path, key: CacheSpec, capture: Capture, rank: int = 0, ranks: int = 1) -> None:
    """Capture and write this process's share of the shards that are not there; raises `CacheError` as `fill_cache`."""
    todo = [s for s in range(rank, num_shards(key), ranks) if not shard_metadata_file(directory, s).exists()]
    if not todo:
        return
    with progress("asking the teacher", sum(len(rows_of(key, s)) for s in todo), "rows") as bar:
        for shard in todo:
            begun, rows = time.perf_counter(), rows_of(key, shard)
            with np.errstate(over="ignore"):  # what does not fit is told below
                blocks = capture(rows, bar)
            for stem, block in blocks.items():
                if not np.isfinite(block).all():
                    raise CacheError(
                        f"the teacher's {stem} do not fit {block.dtype} (or are no numbers); try --cache-dtype float32."
                    )
            _write_shard(directory, shard, rows, blocks, time.perf_counter() - begun)


def prepare_cache(directory: Path, key: CacheSpec) -> None:
    """Lay out the files of an empty cache, by one process, before any fills it.

    Raises `CacheError` where the disk has no room or the directory belongs to another capture.
    """
    identity = json.loads(json.dumps(key.identity))
    claim = directory / "cache.json"
    if claim.exists():
        found = read_cache_json(claim)
        differ = [k for k in identity if found.get(k) != identity[k]]
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
        write_json(claim, identity)
    except (OSError, RunError) as error:
        raise _unwritable(directory, error) from error


def free_disk(directory: Path) -> tuple[int, Path]:
    """Bytes that are free where a directory is or would be made, and the nearest directory that is there."""
    existing = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free, existing


def _check_disk(directory: Path, key: CacheSpec) -> None:
    needed, (free, existing) = key.bytes, free_disk(directory)
    if needed > free * 0.95:
        raise CacheError(
            f"the teacher's signals take {needed / 2**30:.2f} GiB and {existing} has {free / 2**30:.2f} GiB free; "
            f"give --cache a directory on a larger disk, or {key.online} to ask the teacher for every batch."
        )


def _write_shard(directory: Path, shard: int, rows: np.ndarray, blocks: dict[str, np.ndarray], seconds: float) -> None:
    try:
        for stem, block in blocks.items():
            file = directory / f"{stem}.npy"
            # written, not memory-mapped: a full disk is then an error here, and not a signal that kills the process
            with file.open("r+b") as handle:
                handle.seek(np.load(file, mmap_mode="r").offset + int(rows[0]) * block[0].nbytes)
                handle.write(block.tobytes())
                handle.flush()
                os.fsync(handle.fileno())
        checksums = {stem: zlib.crc32(b.data) for stem, b in blocks.items()}
        write_json(shard_metadata_file(directory, shard), {"crc32": checksums, "seconds": seconds})
    except (OSError, EOFError, ValueError, RunError) as error:  # the middle two: the file is not what was laid out
        raise _unwritable(directory, error) from error


def _unwritable(directory: Path, error: Exception) -> CacheError:
    return CacheError(
        f"the teacher's signals could not be written to {directory}: {error}; make room there, remove it, or give "
        "another --cache. What was captured before is intact."
    )
