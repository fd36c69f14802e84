"""Cache on disk of a language-model teacher: a few tokens of the distribution at each position."""

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
from demiglace.models.precision import AUTOCAST
from demiglace.models.shape import ModelShape
from demiglace.signals.hidden_state_cache import all_layers, hidden_arrays, read_states, write_hidden_states
from demiglace.signals.logit_sampling import Kind, sample_tokens, stratified_uniforms, top_k_tokens
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest, Signals, SparseLogits
from demiglace.signals.shard_store import CacheSpec, fill_shards, open_arrays

SHARD_TOKENS = 1 << 20


@dataclass(frozen=True)
class SparseLogitConfig:
    """How the distribution softmax(z/τ) is reduced to `count` tokens; see `signals.logit_sampling`."""

    kind: Kind
    count: int  # tokens for each distribution
    temperature: float
    seed: int = 0  # of the samples


@dataclass(frozen=True)
class SparseLogitCacheKey(CacheSpec):
    """Everything that the cached tokens depend on."""

    disable_flag: ClassVar[str] = "--cache-tokens none"

    teacher: str  # fingerprint of the model
    blocks: str  # fingerprint of the corpus and of the numbers of its blocks
    rows: int  # number of blocks
    size: int  # tokens of a block
    vocabulary: int
    sparse_logits: SparseLogitConfig
    layers: int
    width: int  # of hidden states
    poolings: tuple[HiddenStateKind, ...]
    dtype: Literal["float16", "float32"]  # of the hidden states on disk
    precision: str  # of the teacher's forward pass

    @classmethod
    def of(
        cls,
        teacher: str,
        shape: ModelShape,
        blocks: Blocks,
        sparse_logits: SparseLogitConfig,
        request: SignalRequest,
        dtype: Literal["float16", "float32"],
        precision: str,
    ) -> "SparseLogitCacheKey":
        """Return the key of a cache; dtype: of the hidden states, of which all layers are kept."""
        numbers = hashlib.sha256(np.ascontiguousarray(blocks.numbers).data).hexdigest()[:16]
        return cls(
            teacher=teacher,
            blocks=f"{blocks.corpus.fingerprint} {numbers}" + (f" {blocks.begin}" if blocks.begin is not None else ""),
            rows=len(blocks),
            size=blocks.size,
            vocabulary=shape.vocab_size,
            sparse_logits=sparse_logits,
            layers=shape.num_layers,
            width=shape.hidden_size,
            poolings=request.poolings,
            dtype=dtype,
            precision=precision,
        )

    @property
    def shard_rows(self) -> int:
        """Return the number of rows of a shard, about a million tokens."""
        return max(1, SHARD_TOKENS // self.size)

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of the arrays, by file stem.

        They are the ids [N, L, K], in two bytes if the vocabulary allows it, the entropy of the distributions [N, L],
        the probabilities [N, L, K] for top-k tokens, and the pooled hidden states.
        """
        shape = self.rows, self.size, self.sparse_logits.count
        arrays: dict[str, tuple[tuple[int, ...], str]] = {
            "ids": (shape, "uint16" if self.vocabulary <= 1 << 16 else "uint32"),
            "entropy": (shape[:2], "float16"),
        }
        if self.sparse_logits.kind == "top-k":
            arrays["probabilities"] = (shape, "float16")
        return arrays | hidden_arrays(self.rows, self.layers, self.width, self.poolings, self.dtype)


class TokenCache:
    """A complete cache, memory-mapped; its rows are those of the captured `Blocks`."""

    def __init__(self, directory: Path, key: SparseLogitCacheKey):
        """Open and verify a complete cache. Raises `CacheError` if a shard is missing or corrupt."""
        self._poolings: Sequence[HiddenStateKind] = key.poolings
        self._arrays = open_arrays(directory, key)

    def fetch(self, batch: Batch, phase: int = 0) -> Signals:
        """Return the cached signals of the batch's rows on its device; they are the same in every phase and epoch."""
        device = batch.input_ids.device

        def read(stem: str, dtype: Any) -> Tensor:
            return torch.from_numpy(self._arrays[stem][batch.rows].astype(dtype)).to(device, non_blocking=True)

        ids, entropy = read("ids", np.int64), read("entropy", np.float32)
        if "probabilities" in self._arrays:
            weights = read("probabilities", np.float32)
            weights = weights / weights.sum(-1, keepdim=True)  # float16 rounded them
        else:
            weights = torch.full((1,), 1 / ids.shape[-1], device=device).expand(ids.shape)
        states = read_states(self._arrays, self._poolings, batch)
        return Signals(states=states, head=SparseLogits(ids, weights, entropy))


# logits in memory at a time: as in `losses.language`, but those of a GPU are in float64
_CHUNK_NUMBERS = {"cpu": 1 << 22, "cuda": 1 << 26}


def fill_token_cache(
    directory: Path, key: SparseLogitCacheKey, teacher: PreTrainedModel, blocks: Blocks, rank: int = 0, ranks: int = 1
) -> None:
    """Capture the shards that are missing in `directory`; each of `ranks` processes captures its share of them.

    The samples for a token depend only on the seed, the number of its block and its position there. Raises `CacheError`
    if they cannot be written, and `ModelError` if the teacher's logits are not finite.
    """
    source = OnlineTeacher(teacher, all_layers(key.poolings, key.layers), key.precision)

    def capture(rows: np.ndarray, bar: Bar) -> dict[str, np.ndarray]:
        return _capture_shard(key, rows, source, blocks, teacher.device, bar)

    fill_shards(directory, key, capture, rank, ranks)


def _capture_shard(
    key: SparseLogitCacheKey, rows: np.ndarray, source: OnlineTeacher, blocks: Blocks, device: torch.device, bar: Bar
) -> dict[str, np.ndarray]:
    arrays = {stem: np.empty((len(rows), *shape[1:]), dtype) for stem, (shape, dtype) in key.arrays.items()}
    batch_rows = max(1, forward_tokens(device) // key.size)
    for start in range(0, len(rows), batch_rows):
        positions = np.arange(start, min(start + batch_rows, len(rows)))
        signals = source.fetch(collate(blocks, rows[positions], device))
        assert isinstance(signals.head, HeadInput)
        for stem, values in _sparsify(key, signals.head, blocks.numbers[rows[positions]]).items():
            arrays[stem][positions] = values.view(arrays[stem][positions].shape).cpu().numpy()
        write_hidden_states(arrays, positions, signals, key.poolings, key.layers)
        bar.advance(len(positions))
    return arrays


def _sparsify(key: SparseLogitCacheKey, output: HeadInput, numbers: np.ndarray) -> dict[str, Tensor]:
    """Return the tokens that represent the distributions at every position of these blocks, by array name."""
    config, chunks = key.sparse_logits, _logit_chunks(output.at(None), key.precision)
    if config.kind == "top-k":
        top = (top_k_tokens(logits, config.count, config.temperature) for _, logits in chunks)
        return _concatenate(("ids", "probabilities", "entropy"), top)
    by_block = [stratified_uniforms(config.seed, int(n), key.size, config.count) for n in numbers]
    uniforms = torch.from_numpy(np.concatenate(by_block)).to(output.hidden.device)
    samples = (sample_tokens(logits, uniforms[part], config.temperature) for part, logits in chunks)
    return _concatenate(("ids", "entropy"), samples)


def _concatenate(names: Sequence[str], parts: Iterable[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    columns = zip(*parts, strict=True)
    return {name: torch.cat(column) for name, column in zip(names, columns, strict=True)}


def _logit_chunks(output: HeadInput, precision: str) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of tokens with their logits [n, V] in float32, computed as `losses.language` does."""
    dtype = AUTOCAST.get(precision, output.weight.dtype)
    hidden, weight = output.hidden.to(dtype), output.weight.to(dtype)
    chunk = max(16, _CHUNK_NUMBERS.get(hidden.device.type, 1 << 26) // len(weight))
    for start in range(0, len(hidden), chunk):
        part = slice(start, start + chunk)
        logits = F.linear(hidden[part], weight).float()
        yield part, logits if output.bias is None else logits + output.bias
