"""Filling a cache of tokens: the one pass of the teacher over the blocks."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.console import Bar
from demiglace.data.batching import collate, forward_tokens
from demiglace.data.text.blocks import Blocks
from demiglace.models.language_model import HeadInput
from demiglace.signals.fill import all_layers, fill_shards, put_states
from demiglace.signals.logit_sampling import drawn_tokens, even_numbers, likeliest_tokens
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.sparse_logit_cache import TokenKey

# logits that live at a time: as in `losses.language`, but a GPU's are in float64
_CHUNK_NUMBERS = {"cpu": 1 << 22, "cuda": 1 << 26}


def fill_token_cache(
    directory: Path, key: TokenKey, teacher: PreTrainedModel, blocks: Blocks, rank: int = 0, ranks: int = 1
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
    key: TokenKey, rows: np.ndarray, source: OnlineTeacher, blocks: Blocks, device: torch.device, bar: Bar
) -> dict[str, np.ndarray]:
    found = {stem: np.empty((len(rows), *shape[1:]), dtype) for stem, (shape, dtype) in key.arrays.items()}
    most = max(1, forward_tokens(device) // key.size)
    for start in range(0, len(rows), most):
        places = np.arange(start, min(start + most, len(rows)))
        signals = source.fetch(collate(blocks, rows[places], device))
        assert isinstance(signals.head, HeadInput)
        for stem, told in _told(key, signals.head, blocks.numbers[rows[places]]).items():
            found[stem][places] = told.view(found[stem][places].shape).cpu().numpy()
        put_states(found, places, signals, key.poolings, key.layers)
        bar.advance(len(places))
    return found


def _told(key: TokenKey, output: HeadInput, numbers: np.ndarray) -> dict[str, Tensor]:
    """What tells the distributions at every place of these blocks, by the arrays' names."""
    telling, chunks = key.telling, _chunks_of_logits(output.at(None), key.precision)
    if telling.kind == "top-k":
        likeliest = (likeliest_tokens(logits, telling.count, telling.temperature) for _, logits in chunks)
        return _joined(("ids", "probabilities", "entropy"), likeliest)
    even = np.concatenate([even_numbers(telling.seed, int(n), key.size, telling.count) for n in numbers])
    given = torch.from_numpy(even).to(output.hidden.device)
    drawn = (drawn_tokens(logits, given[part], telling.temperature) for part, logits in chunks)
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
