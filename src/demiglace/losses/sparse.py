"""KL divergence to a distribution that is represented by a few tokens (Anshumann et al. 2025, arXiv 2503.16870)."""

import torch.nn.functional as F
from torch import Tensor


def sparse_kl_div(student_logits: Tensor, ids: Tensor, weights: Tensor, entropy: Tensor, temperature: float) -> Tensor:
    """Compute τ²·(−Σ_k w_k·log q(id_k) − H), q = σ(z_S/τ): logits [B, C], ids int64 and weights [B, K], H [B] to [B].

    It is the cross-entropy with the tokens minus an entropy H in nats. For tokens sampled from the teacher's p =
    σ(z_T/τ), with weights 1/K and H the entropy of p, the expected value is τ²·KL(p ‖ q), with its gradient τ·(q − p);
    a single value may be negative. For the top K tokens with renormalized probabilities p' and the entropy of p', it is
    τ²·KL(p' ‖ q), whose minimum is not at q = p.
    """
    q = F.log_softmax(student_logits / temperature, dim=-1)
    return -(temperature**2) * ((weights * q.gather(-1, ids)).sum(-1) + entropy)
