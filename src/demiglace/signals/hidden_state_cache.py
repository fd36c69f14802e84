"""Cache on disk of the teacher's logits and the pooled hidden states of all its layers, one entry for each row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.console import Bar
from demiglace.data.batching import Batch, collate, forward_tokens, sorted_batches
from demiglace.data.tokenize import TokenizedSplit
from demiglace.models.pooling import HiddenStateKind
from demiglace.models.shape import ModelShape
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest, Signals, hidden_request
from demiglace.signals.shard_store import (
    CacheSpec,
    fill_shards,
    num_shards,
    open_arrays,
    read_cache_json,
    shard_metadata_file,
)

SHARD_ROWS = 4096


@dataclass(frozen=True)
class CacheKey(CacheSpec):
    """Everything that the cached numbers depend on."""

    disable_flag: ClassVar[str] = "--cache off"

    teacher: str  # fingerprint of the model
    tokens: str  # fingerprint of the tokenized rows
    rows: int
    outputs: int  # width of the logits
    words: int | None  # most words of a row, if each has logits
    layers: int
    width: int  # of hidden states
    poolings: tuple[HiddenStateKind, ...]
    dtype: Literal["float16", "float32"]  # of the arrays on disk
    precision: str  # of the teacher's forward pass

    @classmethod
    def of(
        cls,
        teacher: str,
        shape: ModelShape,
        examples: TokenizedSplit,
        request: SignalRequest,
        dtype: Literal["float16", "float32"],
        precision: str,
    ) -> "CacheKey":
        """Return the key of a cache. It has all layers, whichever the request names, so that methods share caches."""
        return cls(
            teacher=teacher,
            tokens=examples.fingerprint,
            rows=len(examples),
            outputs=shape.num_labels,
            words=None if examples.starts is None else examples.starts.shape[1],
            layers=shape.num_layers,
            width=shape.hidden_size,
            poolings=request.poolings,
            dtype=dtype,
            precision=precision,
        )

    @property
    def shard_rows(self) -> int:
        """Return the number of rows of a shard."""
        return SHARD_ROWS

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of the logits [N, C], or of words [N, W, C], and the hidden states.

        These are N · (C + poolings · (layers + 1) · d) numbers, with W · C in place of C for words.
        """
        hidden = hidden_arrays(self.rows, self.layers, self.width, self.poolings, self.dtype)
        logits = (self.rows, self.outputs) if self.words is None else (self.rows, self.words, self.outputs)
        return {"logits": (logits, self.dtype)} | hidden


class SignalCache:
    """A complete cache, memory-mapped; its rows are those of the captured `TokenizedSplit`."""

    def __init__(self, directory: Path, key: CacheKey):
        """Open and verify a complete cache. Raises `CacheError` if a shard is missing or corrupt."""
        self._poolings = key.poolings
        self._arrays = open_arrays(directory, key)

    def fetch(self, batch: Batch, phase: int = 0) -> Signals:
        """Return the cached signals of the batch's rows on its device; they are the same in every phase."""
        logits = torch.from_numpy(self._arrays["logits"][batch.rows])
        logits = logits.to(batch.input_ids.device, non_blocking=True).float()
        states = read_states(self._arrays, self._poolings, batch)
        return Signals(logits if batch.words is None else logits[batch.word_index], states)


def covering_cache(root: Path, key: CacheKey) -> Path | None:
    """Return the directory of a complete cache below `root` that has the arrays of `key` among others, or None.

    Its numbers are those of the same forward passes: only the poolings differ.
    """
    wanted = {**key.identity, "poolings": None}
    for file in sorted(root.glob("*/cache.json")):
        found = read_cache_json(file)
        poolings = found.get("poolings")
        complete = all(shard_metadata_file(file.parent, shard).exists() for shard in range(num_shards(key)))
        if complete and {**found, "poolings": None} == wanted and set(poolings or ()) > set(key.poolings):
            return file.parent
    return None


def hidden_arrays(
    rows: int, layers: int, width: int, poolings: Sequence[HiddenStateKind], dtype: str
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape [N, layers + 1, d] and dtype of the hidden states of each pooling, by file stem."""
    return {f"hidden-{p}": ((rows, layers + 1, width), dtype) for p in poolings}


def read_states(
    arrays: Mapping[str, np.ndarray], poolings: Sequence[HiddenStateKind], batch: Batch
) -> dict[tuple[HiddenStateKind, int], Tensor]:
    """Return the hidden states of the batch's rows on its device: (pooling, layer) to [B, d]."""
    states: dict[tuple[HiddenStateKind, int], Tensor] = {}
    for pooling in poolings:
        block = torch.from_numpy(arrays[f"hidden-{pooling}"][batch.rows])
        block = block.to(batch.input_ids.device, non_blocking=True)
        states |= {(pooling, layer): block[:, layer] for layer in range(block.shape[1])}
    return states


def fill_cache(
    directory: Path,
    key: CacheKey,
    teacher: PreTrainedModel,
    examples: TokenizedSplit,
    rank: int = 0,
    ranks: int = 1,
) -> None:
    """Capture the shards that are missing in `directory`; each of `ranks` processes captures its share of them.

    Raises `CacheError` if a signal is too large for the dtype or cannot be written.
    """
    source = OnlineTeacher(teacher, all_layers(key.poolings, key.layers), key.precision)

    def capture(rows: np.ndarray, bar: Bar) -> dict[str, np.ndarray]:
        return _capture_shard(key, rows, source, examples, teacher.device, bar)

    fill_shards(directory, key, capture, rank, ranks)


def all_layers(poolings: Iterable[HiddenStateKind], layers: int) -> SignalRequest:
    """Return a request for the logits and the hidden states of all layers with these poolings."""
    request = SignalRequest(logits=True)
    for pooling in poolings:
        request |= hidden_request(pooling, range(layers + 1))
    return request


def _capture_shard(
    key: CacheKey, rows: np.ndarray, source: OnlineTeacher, examples: TokenizedSplit, device: torch.device, bar: Bar
) -> dict[str, np.ndarray]:
    blocks = {stem: np.zeros((len(rows), *shape[1:]), dtype) for stem, (shape, dtype) in key.arrays.items()}
    for positions in sorted_batches(examples.lengths[rows], forward_tokens(device)):
        batch = collate(examples, rows[positions], device)
        signals = source.fetch(batch)
        assert signals.logits is not None
        blocks["logits"][batch.unit_rows(positions)] = signals.logits.cpu().numpy()
        write_hidden_states(blocks, positions, signals, key.poolings, key.layers)
        bar.advance(len(positions))
    return blocks


def write_hidden_states(
    blocks: dict[str, np.ndarray],
    positions: np.ndarray,
    signals: Signals,
    poolings: Iterable[HiddenStateKind],
    layers: int,
) -> None:
    """Write a batch's hidden states of all layers to these positions of a shard's arrays."""
    for pooling in poolings:
        blocks[f"hidden-{pooling}"][positions] = signals.hidden(pooling, range(layers + 1)).cpu().numpy()
