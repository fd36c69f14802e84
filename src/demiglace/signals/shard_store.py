"""A cache on disk: memory-mapped arrays with one entry a row, in a directory named after all that they depend on, so
that one folder can serve many runs.

Rows are captured in shards of consecutive rows; a shard counts once its receipt with checksums stands beside it, so a
capture that was cut off goes on with the first shard that has none.
"""

import hashlib
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from demiglace.errors import CacheError, RunError
from demiglace.runs.directory import read_json


class Layout(ABC):
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


def open_arrays(directory: Path, key: Layout) -> dict[str, np.ndarray]:
    """The arrays of a complete cache. Raises `CacheError` where a shard is missing or corrupt."""
    for shard in range(num_shards(key)):
        _verify(directory, key, shard)
    return {stem: np.load(directory / f"{stem}.npy", mmap_mode="r") for stem in key.arrays}


def _verify(directory: Path, key: Layout, shard: int) -> None:
    file = receipt(directory, shard)
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


def receipt(directory: Path, shard: int) -> Path:
    """The file that marks a shard as captured and holds its checksums and seconds."""
    return directory / f"shard-{shard:05d}.json"


def num_shards(key: Layout) -> int:
    """How many shards the rows make."""
    return -(-key.rows // key.shard_rows)


def rows_of(key: Layout, shard: int) -> np.ndarray:
    """The row numbers of a shard."""
    return np.arange(shard * key.shard_rows, min((shard + 1) * key.shard_rows, key.rows))


def capture_seconds(directory: Path, key: Layout) -> float:
    """What the teacher's pass took, in whichever run it was made."""
    return sum(read_cache_json(receipt(directory, s)).get("seconds", 0.0) for s in range(num_shards(key)))
