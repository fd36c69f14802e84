"""Distances between the outputs of two models, one number a row: unreduced and unweighted, logits [B, C] to [B].

p is the teacher's distribution σ(z_T/τ), q the student's σ(z_S/τ). All are 0 for equal distributions, never negative,
the same whatever number is added to all logits of a row, and carry the factor τ², which keeps the size of the gradient
the same for every τ (Hinton et al. 2015, arXiv 1503.02531, sec. 2).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """τ²·KL(p ‖ q)."""
    q, p = _log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * _kl(p, q)


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """τ²·KL(q ‖ p) (MiniLLM, Gu et al. 2024, arXiv 2306.08543)."""
    q, p = _log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * _kl(q, p)


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, temperature: float, beta: float) -> Tensor:
    """τ²·(β·KL(p ‖ m) + (1 − β)·KL(q ‖ m)) with m = β·p + (1 − β)·q and 0 < β < 1 (GKD, arXiv 2306.13649, eq. 1).

    Divided by β it goes to KL(p ‖ q) as β goes to 0; divided by 1 − β to KL(q ‖ p) as β goes to 1.
    """
    q, p = _log_probabilities(student_logits, teacher_logits, temperature)
    m = _mix(p, q, beta)
    return temperature**2 * (beta * _kl(p, m) + (1 - beta) * _kl(q, m))


def skew_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float, skew: float) -> Tensor:
    """τ²·KL(p ‖ λ·p + (1 − λ)·q) with 0 ≤ λ < 1 (DistiLLM, Ko et al. 2024, arXiv 2402.03898, eq. 2)."""
    q, p = _log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * _kl(p, _mix(p, q, skew))


def skew_reverse_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float, skew: float) -> Tensor:
    """τ²·KL(q ‖ (1 − λ)·p + λ·q) with 0 ≤ λ < 1 (DistiLLM, arXiv 2402.03898)."""
    q, p = _log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * _kl(q, _mix(q, p, skew))


def squared_error(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """‖z_S − z_T‖² / C, from logits [B, C] to [B]; on regression outputs (C = 1) the squared difference."""
    return (student_logits - teacher_logits).square().mean(-1)


def hard_label(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Compute −log q of the teacher's most likely class at τ = 1, logits [B, C] to [B] (Lee 2013, *Pseudo-Label*).

    No divergence: it is not 0 for equal distributions.
    """
    return F.cross_entropy(student_logits, teacher_logits.argmax(-1), reduction="none")


def _log_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return F.log_softmax(student / temperature, dim=-1), F.log_softmax(teacher / temperature, dim=-1)


def _kl(first: Tensor, second: Tensor) -> Tensor:
    """KL of two distributions given by their logarithms."""
    return (first.exp() * (first - second)).sum(-1)


def _mix(first: Tensor, second: Tensor, share: float) -> Tensor:
    """log(share·first + (1 − share)·second), from logarithms, without leaving them."""
    return second if share == 0 else torch.logaddexp(first + math.log(share), second + math.log1p(-share))
