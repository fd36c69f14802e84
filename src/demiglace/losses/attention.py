"""Distances between what two models attend to, [B] each: means over heads and real queries, masked keys left out.

Everywhere `visible` is bool [B, L, L]: key j is seen by query i. Pairs that are not visible, and with them all rows and
columns of padding, count for nothing and get a gradient of exactly zero.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_mask_2d(mask: Tensor, causal: bool) -> Tensor:
    """Which keys each query sees: both are real tokens of `mask` [B, L], and if causal j ≤ i; bool [B, L, L]."""
    real = mask.bool()
    pairs = real[:, :, None] & real[:, None, :]
    return pairs.tril() if causal else pairs


def scores(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Q·Kᵀ/√d_h of every head: from [B, L, heads · d_h] each to float32 (or float64) [B, heads, L, L]."""
    q, k = _split(query, heads), _split(key, heads)
    return q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5


def _split(states: Tensor, heads: int) -> Tensor:
    wide = states if states.dtype == torch.float64 else states.float()
    return wide.unflatten(-1, (heads, -1)).transpose(1, 2)


def score_distance(student: Tensor, teacher: Tensor, visible: Tensor) -> Tensor:
    """Mean of (A_S − A_T)² over heads and visible pairs, from [B, H, L, L] (TinyBERT, arXiv 1909.10351, eq. 7)."""
    squares = (student - teacher).square().mean(1).masked_fill(~visible, 0.0)
    return squares.sum((1, 2)) / visible.sum((1, 2)).clamp(min=1)


def probability_distance(student: Tensor, teacher: Tensor, visible: Tensor) -> Tensor:
    """`score_distance` of the softmaxes over visible keys instead of the scores themselves."""
    return score_distance(_log_softmax(student, visible).exp(), _log_softmax(teacher, visible).exp(), visible)


def attention_kl(student: Tensor, teacher: Tensor, visible: Tensor) -> Tensor:
    """KL(softmax_j A_T ‖ softmax_j A_S), mean over heads and real queries, from [B, H, L, L].

    MiniLM, arXiv 2002.10957, sec. 3.1 and 3.2; MiniLMv2, arXiv 2012.15828, sec. 3.
    """
    ours, theirs = _log_softmax(student, visible), _log_softmax(teacher, visible)
    divergence = (theirs.exp() * (theirs - ours)).sum(-1).mean(1)  # [B, L]; 0 for a query that sees nothing
    return divergence.sum(1) / visible.any(-1).sum(1).clamp(min=1)


def _log_softmax(score: Tensor, visible: Tensor) -> Tensor:
    """Over visible keys; of the others a finite number, since −∞ minus −∞ would be no number in the backward pass."""
    return F.log_softmax(score.masked_fill(~visible[:, None], torch.finfo(score.dtype).min / 2), dim=-1)
