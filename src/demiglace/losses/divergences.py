"""Divergences between the logits of two models: [B, C] to [B], one number for each row, unreduced and unweighted.

p is the teacher's distribution σ(z_T/τ), q the student's σ(z_S/τ). Divergences are 0 for equal distributions, never
negative, and invariant to adding a constant to all logits of a row. The factor τ² keeps the size of the gradient about
the same for every τ (Hinton et al. 2015, arXiv 1503.02531, sec. 2).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Compute τ²·KL(p ‖ q), logits [B, C] to [B] (Hinton et al. 2015, arXiv 1503.02531)."""
    q, p = _log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * _kl(p, q)


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Compute τ²·KL(q ‖ p), logits [B, C] to [B] (MiniLLM, Gu et al. 2024, arXiv 2306.08543)."""
    q, p = _log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * _kl(q, p)


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, temperature: float, beta: float) -> Tensor:
    """Compute τ²·(β·KL(p ‖ m) + (1 − β)·KL(q ‖ m)), m = β·p + (1 − β)·q, 0 < β < 1 (GKD, arXiv 2306.13649, eq. 1).

    Divided by β it tends to KL(p ‖ q) as β → 0; divided by 1 − β it tends to KL(q ‖ p) as β → 1.
    """
    q, p = _log_probabilities(student_logits, teacher_logits, temperature)
    m = _mix(p, q, beta)
    return temperature**2 * (beta * _kl(p, m) + (1 - beta) * _kl(q, m))


def skew_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float, skew: float) -> Tensor:
    """Compute τ²·KL(p ‖ λ·p + (1 − λ)·q), 0 ≤ λ < 1 (DistiLLM, Ko et al. 2024, arXiv 2402.03898, eq. 2)."""
    q, p = _log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * _kl(p, _mix(p, q, skew))


def skew_reverse_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float, skew: float) -> Tensor:
    """Compute τ²·KL(q ‖ (1 − λ)·p + λ·q), 0 ≤ λ < 1 (DistiLLM, arXiv 2402.03898)."""
    q, p = _log_probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * _kl(q, _mix(q, p, skew))


def squared_error(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Compute ‖z_S − z_T‖² / C, logits [B, C] to [B]; for regression outputs (C = 1), the squared difference."""
    return (student_logits - teacher_logits).square().mean(-1)


def hard_label(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Compute −log q of the teacher's most likely class at τ = 1, logits [B, C] to [B] (Lee 2013, *Pseudo-Label*).

    It is not a divergence: it is not 0 for equal distributions.
    """
    return F.cross_entropy(student_logits, teacher_logits.argmax(-1), reduction="none")


def _log_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return F.log_softmax(student / temperature, dim=-1), F.log_softmax(teacher / temperature, dim=-1)


def _kl(first: Tensor, second: Tensor) -> Tensor:
    """Compute KL(first ‖ second) of log-probabilities."""
    return (first.exp() * (first - second)).sum(-1)


def _mix(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Compute the log of share·first + (1 − share)·second from log-probabilities, in log space."""
    return second if share == 0 else torch.logaddexp(first + math.log(share), second + math.log1p(-share))
