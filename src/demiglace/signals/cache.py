"""The teacher asked once: its logits and the pooled hidden states of all its layers, on disk, one row after another.

A cache is a directory named after what it holds (teacher weights, tokens, poolings, number format), so one folder can
serve many runs. Rows are captured in shards of consecutive rows; a shard counts once its receipt with checksums
stands beside it, so a capture that was cut off goes on with the first shard that has none.
"""

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from demiglace.data.batches import Batch
from demiglace.data.tokenise import Examples
from demiglace.errors import CacheError, RunError
from demiglace.manifest import read_json
from demiglace.models.pooling import State
from demiglace.models.shape import ModelShape
from demiglace.signals.request import SignalRequest, Signals

SHARD_ROWS = 4096


@dataclass(frozen=True)
class CacheKey:
    """Everything the cached numbers depend on. teacher and tokens are fingerprints."""

    teacher: str
    tokens: str
    rows: int
    outputs: int
    layers: int
    width: int
    poolings: tuple[State, ...]
    dtype: Literal["float16", "float32"]
    precision: str

    @classmethod
    def of(
        cls,
        teacher: str,
        shape: ModelShape,
        examples: Examples,
        request: SignalRequest,
        dtype: Literal["float16", "float32"],
        precision: str,
    ) -> "CacheKey":
        """The key of a capture; all layers are kept whichever the request names, so that methods share caches."""
        return cls(
            teacher=teacher,
            tokens=examples.fingerprint,
            rows=len(examples),
            outputs=shape.num_labels,
            layers=shape.num_layers,
            width=shape.hidden_size,
            poolings=request.poolings,
            dtype=dtype,
            precision=precision,
        )

    @property
    def name(self) -> str:
        """The cache's directory name."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """File stem to array shape: logits [N, C], and for each pooling [N, layers + 1, d]."""
        hidden: dict[str, tuple[int, ...]] = {
            f"hidden-{p}": (self.rows, self.layers + 1, self.width) for p in self.poolings
        }
        return {"logits": (self.rows, self.outputs)} | hidden

    @property
    def bytes(self) -> int:
        """Size on disk: N · (C + poolings · (layers + 1) · d) numbers."""
        return sum(int(np.prod(s)) for s in self.shapes.values()) * np.dtype(self.dtype).itemsize


class SignalCache:
    """A complete cache, memory-mapped; rows are the row numbers of the `Examples` that were captured."""

    def __init__(self, directory: Path, key: CacheKey):
        """Open and verify a complete cache. Raises `CacheError` where a shard is missing or corrupt."""
        self._poolings, self._layers = key.poolings, key.layers
        for shard in range(num_shards(key)):
            _verify(directory, key, shard)
        self._arrays = {stem: np.load(directory / f"{stem}.npy", mmap_mode="r") for stem in key.shapes}

    def fetch(self, batch: Batch, phase: int = 0) -> Signals:
        """The captured signals of the batch's rows, on the batch's device, the same in every phase."""
        device = batch.input_ids.device

        def read(stem: str) -> Tensor:
            return torch.from_numpy(self._arrays[stem][batch.rows]).to(device, non_blocking=True)

        states: dict[tuple[State, int], Tensor] = {}
        for pooling in self._poolings:
            block = read(f"hidden-{pooling}")
            states |= {(pooling, layer): block[:, layer] for layer in range(self._layers + 1)}
        return Signals(read("logits").float(), states)


def _verify(directory: Path, key: CacheKey, shard: int) -> None:
    file = receipt(directory, shard)
    remedy = f"remove {directory} and repeat the command; the teacher is then asked again."
    if not file.exists():
        raise CacheError(f"shard {shard} of the signal cache is missing; {remedy}")
    expected, rows = read_cache_json(file).get("crc32", {}), rows_of(key, shard)
    for stem, shape in key.shapes.items():
        try:
            array = np.load(directory / f"{stem}.npy", mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise CacheError(f"{directory / stem}.npy cannot be read ({error}); {remedy}") from error
        if array.shape != shape or zlib.crc32(array[rows[0] : rows[-1] + 1].tobytes()) != expected.get(stem):
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


def num_shards(key: CacheKey) -> int:
    """How many shards the rows make."""
    return -(-key.rows // SHARD_ROWS)


def rows_of(key: CacheKey, shard: int) -> np.ndarray:
    """The row numbers of a shard."""
    return np.arange(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, key.rows))


def capture_seconds(directory: Path, key: CacheKey) -> float:
    """What the teacher's pass took, in whichever run it was made."""
    return sum(read_cache_json(receipt(directory, s)).get("seconds", 0.0) for s in range(num_shards(key)))
