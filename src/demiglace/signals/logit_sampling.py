"""Represent the teacher's next-token distribution by K tokens: sampled (unbiased) or the top K (biased).

Anshumann et al. 2025, *Sparse Logit Sampling*, ACL, arXiv 2503.16870. With sampled tokens, the expected gradient of the
student is that of the full distribution. With the top K, the student learns that all other tokens have probability 0,
and becomes overconfident.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from demiglace.errors import ModelError

Kind = Literal["sampled", "top-k"]


def stratified_uniforms(seed: int, block: int, positions: int, count: int) -> np.ndarray:
    """Draw a uniform number from each of `count` equal parts of [0, 1) for each position of a block.

    Return float64 [positions, count], a pure function of seed and block. Stratified sampling is unbiased and has a
    lower variance than independent draws (Douc, Cappé, Moulines 2005, arXiv cs/0507025).
    """
    uniforms = np.random.default_rng((seed, block)).random((positions, count))
    return (np.arange(count) + uniforms) / count


def sample_tokens(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Sample tokens from p = σ(z/τ) by inversion; return their ids, int64 [n, K], and the entropy of p in nats [n].

    logits: [n, V]; uniforms: float64 [n, K]. The cumulative sum is in float64, because the probabilities of rare tokens
    in a large vocabulary are below the resolution of float32. Raises `ModelError` for logits that are not finite.
    """
    scaled = logits / temperature
    log_normalizer = _check_finite(scaled.logsumexp(-1, keepdim=True))
    p = (scaled - log_normalizer).exp()
    cumulative = p.cumsum(-1, dtype=torch.float64)
    ids = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)
    return ids.clamp_max(logits.shape[-1] - 1), log_normalizer[:, 0] - torch.linalg.vecdot(p, scaled)


def top_k_tokens(logits: Tensor, count: int, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tokens of the largest logits [n, V], their renormalized probabilities, both [n, K], and their entropy.

    The entropy is in nats [n]. Raises `ModelError` as `sample_tokens` does.
    """
    largest, ids = logits.topk(count)
    p = _check_finite(torch.softmax(largest / temperature, dim=-1))
    return ids, p, torch.special.entr(p).sum(-1)


def _check_finite(numbers: Tensor) -> Tensor:
    if not torch.isfinite(numbers).all():
        raise ModelError("the teacher's logits are not finite numbers; check its weights, or give --precision fp32.")
    return numbers
