"""The teacher asked once: its logits and the pooled hidden states of all its layers, on disk, one row after another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from demiglace.data.batching import Batch
from demiglace.data.tokenise import Examples
from demiglace.models.pooling import State
from demiglace.models.shape import ModelShape
from demiglace.signals.request import SignalRequest, Signals
from demiglace.signals.shard_store import Layout, open_arrays

SHARD_ROWS = 4096


@dataclass(frozen=True)
class CacheKey(Layout):
    """Everything the cached numbers depend on. teacher and tokens are fingerprints."""

    online: ClassVar[str] = "--cache off"

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
    def shard_rows(self) -> int:
        """Rows of a shard."""
        return SHARD_ROWS

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """The logits [N, C], and the hidden states: N · (C + poolings · (layers + 1) · d) numbers."""
        hidden = hidden_arrays(self.rows, self.layers, self.width, self.poolings, self.dtype)
        return {"logits": ((self.rows, self.outputs), self.dtype)} | hidden


class SignalCache:
    """A complete cache, memory-mapped; rows are the row numbers of the `Examples` that were captured."""

    def __init__(self, directory: Path, key: CacheKey):
        """Open and verify a complete cache. Raises `CacheError` where a shard is missing or corrupt."""
        self._poolings = key.poolings
        self._arrays = open_arrays(directory, key)

    def fetch(self, batch: Batch, phase: int = 0) -> Signals:
        """The captured signals of the batch's rows, on the batch's device, the same in every phase."""
        logits = torch.from_numpy(self._arrays["logits"][batch.rows])
        states = read_states(self._arrays, self._poolings, batch)
        return Signals(logits.to(batch.input_ids.device, non_blocking=True).float(), states)


def hidden_arrays(
    rows: int, layers: int, width: int, poolings: Sequence[State], dtype: str
) -> dict[str, tuple[tuple[int, ...], str]]:
    """For each pooling the hidden states of all layers: file stem to shape [N, layers + 1, d] and number format."""
    return {f"hidden-{p}": ((rows, layers + 1, width), dtype) for p in poolings}


def read_states(
    arrays: Mapping[str, np.ndarray], poolings: Sequence[State], batch: Batch
) -> dict[tuple[State, int], Tensor]:
    """The hidden states of the batch's rows, (pooling, layer) to [B, d], on the batch's device."""
    states: dict[tuple[State, int], Tensor] = {}
    for pooling in poolings:
        block = torch.from_numpy(arrays[f"hidden-{pooling}"][batch.rows])
        block = block.to(batch.input_ids.device, non_blocking=True)
        states |= {(pooling, layer): block[:, layer] for layer in range(block.shape[1])}
    return states
