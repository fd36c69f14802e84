"""The teacher of a language model asked once: a few tokens of each predicted token's distribution, on disk."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.console import Bar
from demiglace.data.batching import Batch, collate, forward_tokens
from demiglace.data.text.blocks import Blocks
from demiglace.models.language_model import HeadInput
from demiglace.models.pooling import HiddenStateKind
from demiglace.models.shape import ModelShape
from demiglace.signals.hidden_state_cache import all_layers, hidden_arrays, read_states, write_hidden_states
from demiglace.signals.logit_sampling import Kind, sample_tokens, stratified_uniforms, top_k_tokens
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest, Signals, SparseLogits
from demiglace.signals.shard_store import CacheSpec, fill_shards, open_arrays

SHARD_TOKENS = 1 << 20


@dataclass(frozen=True)
class SparseLogitConfig:
    """How a distribution σ(z/τ) is told by `count` tokens; see `signals.sparse`."""

    kind: Kind
    count: int
    temperature: float
    seed: int = 0


@dataclass(frozen=True)
class SparseLogitCacheKey(CacheSpec):
    """Everything the cached tokens depend on. teacher and blocks are fingerprints."""

    online: ClassVar[str] = "--cache-tokens none"

    teacher: str
    blocks: str
    rows: int
    size: int
    vocabulary: int
    telling: SparseLogitConfig
    layers: int
    width: int
    poolings: tuple[HiddenStateKind, ...]
    dtype: Literal["float16", "float32"]
    precision: str

    @classmethod
    def of(
        cls,
        teacher: str,
        shape: ModelShape,
        blocks: Blocks,
        telling: SparseLogitConfig,
        request: SignalRequest,
        dtype: Literal["float16", "float32"],
        precision: str,
    ) -> "SparseLogitCacheKey":
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

    def __init__(self, directory: Path, key: SparseLogitCacheKey):
        """Open and verify a complete cache. Raises `CacheError` where a shard is missing or corrupt."""
        self._poolings: Sequence[HiddenStateKind] = key.poolings
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
        return Signals(states=states, head=SparseLogits(ids, weights, entropy))


# logits that live at a time: as in `losses.language`, but a GPU's are in float64
_CHUNK_NUMBERS = {"cpu": 1 << 22, "cuda": 1 << 26}


def fill_token_cache(
    directory: Path, key: SparseLogitCacheKey, teacher: PreTrainedModel, blocks: Blocks, rank: int = 0, ranks: int = 1
) -> None:
    """Capture the shards that `directory` does not hold yet; with several processes each takes its share of them.

    A token's draws depend on the seed, its block's number and its place there alone. Raises `CacheError` where they
    cannot be written, and `ModelError` where the teacher's logits are no numbers.
    """
    source = OnlineTeacher(teacher, all_layers(key.poolings, key.layers), key.precision)

    def capture(rows: np.ndarray, bar: Bar) -> dict[str, np.ndarray]:
        return _capture_shard(key, rows, source, blocks, teacher.device, bar)

    fill_shards(directory, key, capture, rank, ranks)


def _capture_shard(
    key: SparseLogitCacheKey, rows: np.ndarray, source: OnlineTeacher, blocks: Blocks, device: torch.device, bar: Bar
) -> dict[str, np.ndarray]:
    found = {stem: np.empty((len(rows), *shape[1:]), dtype) for stem, (shape, dtype) in key.arrays.items()}
    most = max(1, forward_tokens(device) // key.size)
    for start in range(0, len(rows), most):
        places = np.arange(start, min(start + most, len(rows)))
        signals = source.fetch(collate(blocks, rows[places], device))
        assert isinstance(signals.head, HeadInput)
        for stem, told in _sparsify(key, signals.head, blocks.numbers[rows[places]]).items():
            found[stem][places] = told.view(found[stem][places].shape).cpu().numpy()
        write_hidden_states(found, places, signals, key.poolings, key.layers)
        bar.advance(len(places))
    return found


def _sparsify(key: SparseLogitCacheKey, output: HeadInput, numbers: np.ndarray) -> dict[str, Tensor]:
    """What tells the distributions at every place of these blocks, by the arrays' names."""
    telling, chunks = key.telling, _chunks_of_logits(output.at(None), key.precision)
    if telling.kind == "top-k":
        likeliest = (top_k_tokens(logits, telling.count, telling.temperature) for _, logits in chunks)
        return _joined(("ids", "probabilities", "entropy"), likeliest)
    even = np.concatenate([stratified_uniforms(telling.seed, int(n), key.size, telling.count) for n in numbers])
    given = torch.from_numpy(even).to(output.hidden.device)
    drawn = (sample_tokens(logits, given[part], telling.temperature) for part, logits in chunks)
    return _joined(("ids", "entropy"), drawn)


def _joined(names: Sequence[str], parts: Iterable[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    columns = zip(*parts, strict=True)
    return {name: torch.cat(column) for name, column in zip(names, columns, strict=True)}


def _chunks_of_logits(output: HeadInput, precision: str) -> Iterator[tuple[slice, Tensor]]:
    """Some tokens, and their logits [n, V] in float32, as the losses make them of a teacher who is online."""
    dtype = torch.bfloat16 if precision == "bf16" else output.weight.dtype
    hidden, weight = output.hidden.to(dtype), output.weight.to(dtype)
    chunk = max(16, _CHUNK_NUMBERS.get(hidden.device.type, 1 << 26) // len(weight))
    for start in range(0, len(hidden), chunk):
        part = slice(start, start + chunk)
        logits = F.linear(hidden[part], weight).float()
        yield part, logits if output.bias is None else logits + output.bias
