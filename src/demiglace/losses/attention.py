"""Distances between the attention of two models, [B] each: means over heads and real queries, without masked keys.

`visible` is bool [B, L, L]: true if query i attends to key j. Pairs that are not visible, and so all rows and columns
of padding, are left out of the means and get a gradient of exactly zero.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_mask_2d(mask: Tensor, causal: bool) -> Tensor:
    """Return which keys each query attends to, bool [B, L, L]: both are real in `mask` [B, L] and, if causal, j ≤ i."""
    real = mask.bool()
    pairs = real[:, :, None] & real[:, None, :]
    return pairs.tril() if causal else pairs


def scores(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Return Q·Kᵀ/√d_h of each head: [B, L, heads · d_h] each to [B, heads, L, L], float32 or float64."""
    q, k = _split(query, heads), _split(key, heads)
    return q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5


def _split(states: Tensor, heads: int) -> Tensor:
    wide = states if states.dtype == torch.float64 else states.float()
    return wide.unflatten(-1, (heads, -1)).transpose(1, 2)


def score_distance(student: Tensor, teacher: Tensor, visible: Tensor) -> Tensor:
    """Return the mean of (A_S − A_T)² over heads and visible pairs: [B, H, L, L] to [B].

    TinyBERT, arXiv 1909.10351, eq. 7.
    """
    squares = (student - teacher).square().mean(1).masked_fill(~visible, 0.0)
    return squares.sum((1, 2)) / visible.sum((1, 2)).clamp(min=1)


def probability_distance(student: Tensor, teacher: Tensor, visible: Tensor) -> Tensor:
    """Return the `score_distance` of the softmaxes over visible keys, instead of the scores."""
    return score_distance(_log_softmax(student, visible).exp(), _log_softmax(teacher, visible).exp(), visible)


def attention_kl(student: Tensor, teacher: Tensor, visible: Tensor) -> Tensor:
    """Return KL(softmax_j A_T ‖ softmax_j A_S), averaged over heads and real queries: [B, H, L, L] to [B].

    MiniLM, arXiv 2002.10957, sec. 3.1 and 3.2; MiniLMv2, arXiv 2012.15828, sec. 3.
    """
    q, p = _log_softmax(student, visible), _log_softmax(teacher, visible)
    divergence = (p.exp() * (p - q)).sum(-1).mean(1)  # [B, L]; 0 for a query without visible keys
    return divergence.sum(1) / visible.any(-1).sum(1).clamp(min=1)


def _log_softmax(score: Tensor, visible: Tensor) -> Tensor:
    """Return the log-softmax over visible keys. Masked scores are finite, as −∞ − (−∞) is NaN in the backward pass."""
    return F.log_softmax(score.masked_fill(~visible[:, None], torch.finfo(score.dtype).min / 2), dim=-1)
