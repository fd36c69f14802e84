"""Distances between hidden states, over their last axis: [..., d] and [..., d] to [...]."""

import torch.nn.functional as F
from torch import Tensor


def normalised_squared(student: Tensor, teacher: Tensor) -> Tensor:
    """‖h_S/‖h_S‖ − h_T/‖h_T‖‖², between 0 and 4 (RAIL-KD, arXiv 2109.10164; PKD, arXiv 1908.09355, eq. 7)."""
    return (F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)).square().sum(-1)


def mean_squared(student: Tensor, teacher: Tensor) -> Tensor:
    """‖h_S − h_T‖² / d (ALP-KD, arXiv 2012.14022)."""
    return (student - teacher).square().mean(-1)


def attend(student: Tensor, teacher: Tensor) -> Tensor:
    """For each student layer the teacher layers' states, weighted by their likeness to it.

    C_i = Σ_j softmax_j(h_i^S · h_j^T) h_j^T, from [B, m, d] and [B, n, d] to [B, m, d] (ALP-KD, arXiv 2012.14022).
    """
    return (student @ teacher.transpose(1, 2)).softmax(dim=-1) @ teacher
