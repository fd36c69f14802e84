"""Pooling: one vector for each row from the hidden states of its tokens."""

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "normalized-mean", "first", "last"]
HiddenStateKind = Literal[Pooling, "tokens"]  # states of a layer: one vector for each row, or one for each token
PoolingOption = Literal["auto", Pooling]
StateOption = Literal["auto", HiddenStateKind]

POOLING_HELP = (
    "pooling to one vector for each row; mean: over real tokens; normalized-mean: mean of states divided by their root "
    "mean square; first or last: that token; auto: normalized-mean if a model is causal, else mean"
)
_EPSILON = 1e-12  # added to a mean square


def pool(hidden: Tensor, attention_mask: Tensor, pooling: HiddenStateKind) -> Tensor:
    """Pool hidden states [B, L, d] over the real tokens of `attention_mask` [B, L] to float32 [B, d].

    - mean: Σ mask·h / Σ mask, summed in float32.
    - normalized-mean: the mean of h / rms(h), with rms(h) the root mean square over d, as in the norm of a decoder's
      next layer. An attention sink then has the weight of any other token.
    - first, last: the first or last real token, whichever side is padded.
    - tokens: float32 [B, L, d] without pooling, including padding.

    Poolings ignore padding. Both means of a row without tokens are zeros.
    """
    if pooling == "tokens":
        return hidden.float()
    if pooling in ("mean", "normalized-mean"):
        mask = attention_mask.bool()[..., None]
        states = torch.where(mask, hidden.float(), 0.0)
        if pooling == "normalized-mean":
            states = states * (states.square().mean(-1, keepdim=True) + _EPSILON).rsqrt()
        return states.sum(1) / mask.sum(1).clamp(min=1)
    index = _first(attention_mask) if pooling == "first" else _last(attention_mask)
    return hidden[torch.arange(len(hidden), device=hidden.device), index].float()


def norm_ratios(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return each token's norm divided by the median norm of its row's real tokens, [B, L], and 0 for padding."""
    mask = attention_mask.bool()
    norms = hidden.float().norm(dim=-1)
    medians = norms.masked_fill(~mask, torch.nan).nanmedian(dim=1, keepdim=True).values
    return torch.where(mask, norms / medians, 0.0)


def _first(mask: Tensor) -> Tensor:
    return mask.long().argmax(1)  # argmax returns the first of equal values


def _last(mask: Tensor) -> Tensor:
    return mask.shape[1] - 1 - mask.flip(1).long().argmax(1)
