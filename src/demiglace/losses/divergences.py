"""Distances between the outputs of two models, one number a row: unreduced and unweighted."""

import torch.nn.functional as F
from torch import Tensor


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """τ²·KL(σ(z_T/τ) ‖ σ(z_S/τ)), from logits [B, C] to [B].

    The factor τ² keeps the size of the gradient the same for every τ (Hinton et al. 2015, arXiv 1503.02531, sec. 2).
    """
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    student = F.log_softmax(student_logits / temperature, dim=-1)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(-1)


def squared_error(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """‖z_S − z_T‖² / C, from logits [B, C] to [B]; on regression outputs (C = 1) the squared difference."""
    return (student_logits - teacher_logits).square().mean(-1)
