"""The teacher of a language model asked once: a few tokens of each predicted token's distribution, on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from demiglace.data.batching import Batch
from demiglace.data.text.blocks import Blocks
from demiglace.models.pooling import State
from demiglace.models.shape import ModelShape
from demiglace.signals.hidden_state_cache import hidden_arrays, read_states
from demiglace.signals.logit_sampling import Kind
from demiglace.signals.request import SignalRequest, Signals, SparseTargets
from demiglace.signals.shard_store import Layout, open_arrays

SHARD_TOKENS = 1 << 20


@dataclass(frozen=True)
class Telling:
    """How a distribution σ(z/τ) is told by `count` tokens; see `signals.sparse`."""

    kind: Kind
    count: int
    temperature: float
    seed: int = 0


@dataclass(frozen=True)
class TokenKey(Layout):
    """Everything the cached tokens depend on. teacher and blocks are fingerprints."""

    online: ClassVar[str] = "--cache-tokens none"

    teacher: str
    blocks: str
    rows: int
    size: int
    vocabulary: int
    telling: Telling
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
        blocks: Blocks,
        telling: Telling,
        request: SignalRequest,
        dtype: Literal["float16", "float32"],
        precision: str,
    ) -> "TokenKey":
        """The key of a capture; dtype: number format of the hidden states, of which all layers are kept."""
        numbers = hashlib.sha256(np.ascontiguousarray(blocks.numbers).data).hexdigest()[:16]
        return cls(
            teacher=teacher,
            blocks=f"{blocks.corpus.fingerprint} {numbers}",
            rows=len(blocks),
            size=blocks.size,
            vocabulary=shape.vocab_size,
            telling=telling,
            layers=shape.num_layers,
            width=shape.hidden_size,
            poolings=request.poolings,
            dtype=dtype,
            precision=precision,
        )

    @property
    def shard_rows(self) -> int:
        """Rows of about a million tokens."""
        return max(1, SHARD_TOKENS // self.size)

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """ids [N, L, K], two bytes each where the vocabulary allows it, the distributions' entropy [N, L], of the
        likeliest tokens their probabilities too, and the pooled hidden states."""
        shape = self.rows, self.size, self.telling.count
        found: dict[str, tuple[tuple[int, ...], str]] = {
            "ids": (shape, "uint16" if self.vocabulary <= 1 << 16 else "uint32"),
            "entropy": (shape[:2], "float16"),
        }
        if self.telling.kind == "top-k":
            found["probabilities"] = (shape, "float16")
        return found | hidden_arrays(self.rows, self.layers, self.width, self.poolings, self.dtype)


class TokenCache:
    """A complete cache, memory-mapped; rows are the row numbers of the `Blocks` that were captured."""

    def __init__(self, directory: Path, key: TokenKey):
        """Open and verify a complete cache. Raises `CacheError` where a shard is missing or corrupt."""
        self._poolings: Sequence[State] = key.poolings
        self._arrays = open_arrays(directory, key)

    def fetch(self, batch: Batch, phase: int = 0) -> Signals:
        """What was captured of the batch's rows, on the batch's device, the same in every phase and epoch."""
        device = batch.input_ids.device

        def read(stem: str, dtype: Any) -> Tensor:
            return torch.from_numpy(self._arrays[stem][batch.rows].astype(dtype)).to(device, non_blocking=True)

        ids, entropy = read("ids", np.int64), read("entropy", np.float32)
        if "probabilities" in self._arrays:
            weights = read("probabilities", np.float32)
            weights = weights / weights.sum(-1, keepdim=True)  # float16 has rounded them
        else:
            weights = torch.full((1,), 1 / ids.shape[-1], device=device).expand(ids.shape)
        states = read_states(self._arrays, self._poolings, batch)
        return Signals(states=states, head=SparseTargets(ids, weights, entropy))
