"""Attention sinks: tokens whose hidden states have far larger norms than all others of their row.

Xiao et al. 2023, arXiv 2309.17453; Sun et al. 2024, *Massive Activations in Large Language Models*, arXiv 2402.17762.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.data.batching import Batch, collate, sorted_batches
from demiglace.data.text.blocks import Blocks
from demiglace.data.tokenize import TokenizedSplit
from demiglace.models.pooling import norm_ratios
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import hidden_request

SINK_RATIO = 10.0
_ROWS = 32
_TOKENS = 4096  # of all rows together; at least two rows are used
_PASS_TOKENS = 512  # of a forward pass, in which the states of all tokens are in memory


@dataclass(frozen=True)
class Sinks:
    """Counts of tokens whose norm is over `SINK_RATIO` times the median norm of their row in at least one layer.

    A token is counted once, whatever the number of layers in which it is a sink.
    """

    rows: int  # rows that were run through the model
    layers: tuple[int, ...]  # layers that have a sink in any row; layer 0 is the embeddings' output
    first: int  # sinks that are the first token of their row
    last: int  # sinks that are the last token of a row of several tokens
    between: int  # all other sinks
    largest_ratio: float  # largest norm over the median of its row, whether it is a sink or not


def find_sinks(
    model: PreTrainedModel, examples: TokenizedSplit | Blocks, layers: Iterable[int], precision: str = "fp32"
) -> Sinks:
    """Count sinks in these layers, on up to 32 rows drawn with seed 0 that have at most 4,096 tokens together.

    At least two rows are used, whatever their length.
    """
    layers = sorted(layers)
    source = OnlineTeacher(model, hidden_request("tokens", layers), precision)
    chosen = np.random.default_rng(0).permutation(len(examples))[:_ROWS]
    fits = np.cumsum(examples.lengths[chosen]) <= _TOKENS
    chosen = chosen[: max(2, int(fits.sum()))]
    parts = sorted_batches(examples.lengths[chosen], _PASS_TOKENS)
    found = [_in_batch(source, collate(examples, chosen[part], model.device), layers) for part in parts]
    in_layers = torch.stack([is_sink for _, is_sink, _ in found]).any(0)
    first, last, between = torch.stack([positions for _, _, positions in found]).sum(0).tolist()
    return Sinks(
        rows=len(chosen),
        layers=tuple(layer for layer, is_sink in zip(layers, in_layers.tolist(), strict=True) if is_sink),
        first=first,
        last=last,
        between=between,
        largest_ratio=round(max(ratio for ratio, _, _ in found), 1),
    )


def _in_batch(source: OnlineTeacher, batch: Batch, layers: Sequence[int]) -> tuple[float, Tensor, Tensor]:
    """Return the largest ratio, which layers have a sink, and the counts of sinks: first, last, between."""
    states, mask = source.fetch(batch).states, batch.attention_mask
    ratios = torch.stack([norm_ratios(states["tokens", layer], mask) for layer in layers])  # [layers, B, L]
    is_sink = ratios > SINK_RATIO  # never padding
    tokens = is_sink.any(0)
    is_first = tokens & (mask.cumsum(1) == 1)
    is_last = tokens & (mask.flip(1).cumsum(1).flip(1) == 1) & ~is_first
    counts = torch.stack([is_first.sum(), is_last.sum(), (tokens & ~is_first & ~is_last).sum()])
    return float(ratios.max()), is_sink.flatten(1).any(1).cpu(), counts.cpu()
