"""Distances between hidden states over the last axis: [..., d] and [..., d] to [...]."""

import torch.nn.functional as F
from torch import Tensor


def normalized_squared(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute ‖h_S/‖h_S‖ − h_T/‖h_T‖‖², between 0 and 4 (RAIL-KD, arXiv 2109.10164; PKD, arXiv 1908.09355, eq. 7)."""
    return (F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)).square().sum(-1)


def mean_squared(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute ‖h_S − h_T‖² / d (ALP-KD, arXiv 2012.14022)."""
    return (student - teacher).square().mean(-1)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute 1 − cos(h_S, h_T), between 0 and 2 (DistilBERT, arXiv 1910.01108, sec. 2)."""
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def attention_weighted_teacher(student: Tensor, teacher: Tensor) -> Tensor:
    """Mix the states of all teacher layers for each student layer, weighted by attention.

    C_i = Σ_j softmax_j(h_i^S · h_j^T) h_j^T, from [B, m, d] and [B, n, d] to [B, m, d] (ALP-KD, arXiv 2012.14022).
    """
    return (student @ teacher.transpose(1, 2)).softmax(dim=-1) @ teacher


def mean_over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """Average over the real tokens of a row, Σ mask·v / Σ mask: [..., L, u] to [..., u].

    mask is broadcast to the shape of `values`. Padding is ignored, whatever its values, and its gradient is exactly
    zero.
    """
    return values.masked_fill(~mask.bool(), 0.0).sum(-2) / mask.sum(-2).clamp(min=1)
