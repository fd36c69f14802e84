"""One vector a row from its tokens' hidden states."""

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "first", "last"]
State = Literal["mean", "first", "last", "tokens"]  # what of a layer is kept: one vector a row, or every token's


def pool(hidden: Tensor, attention_mask: Tensor, pooling: State) -> Tensor:
    """Pool hidden states [B, L, d] over the real tokens of `attention_mask` [B, L] to float32 [B, d].

    mean: Σ mask·h / Σ mask, added up in float32; first and last: of the first or last real token, whichever side is
    padded. Padding never counts; a row without any token pools to zeros in the mean. tokens: float32 [B, L, d] as they
    are, padding included.
    """
    if pooling == "tokens":
        return hidden.float()
    if pooling == "mean":
        mask = attention_mask.bool()[..., None]
        total = torch.where(mask, hidden.float(), 0.0).sum(1)
        return total / mask.sum(1).clamp(min=1)
    index = _first(attention_mask) if pooling == "first" else _last(attention_mask)
    return hidden[torch.arange(len(hidden), device=hidden.device), index].float()


def _first(mask: Tensor) -> Tensor:
    return mask.long().argmax(1)  # argmax is the first of equals


def _last(mask: Tensor) -> Tensor:
    return mask.shape[1] - 1 - mask.flip(1).long().argmax(1)
