"""A teacher's distribution over its vocabulary told by K tokens: drawn from it, which is unbiased, or its likeliest.

Anshumann et al. 2025, *Sparse Logit Sampling*, ACL, arXiv 2503.16870: a student of drawn tokens has in expectation the
gradient of the whole distribution; one of the likeliest tokens learns that there are no others, and is too sure.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from demiglace.errors import ModelError

Kind = Literal["sampled", "top-k"]


def stratified_uniforms(seed: int, block: int, places: int, count: int) -> np.ndarray:
    """A random number in each of `count` equal parts of [0, 1), for each place of a block: float64 [places, count].

    A function of (seed, block) and the place. By themselves they are uniform, so what they draw is unbiased; spread
    out, it varies less than what independent ones draw (Douc, Cappé, Moulines 2005, arXiv cs/0507025).
    """
    numbers = np.random.default_rng((seed, block)).random((places, count))
    return (np.arange(count) + numbers) / count


def sample_tokens(logits: Tensor, numbers: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Tokens drawn from p = σ(z/τ), int64 [n, K], and the entropy of p in nats [n].

    They are the first ones up to which p adds up to more than the numbers, float64 [n, K]; in float64, because the
    probabilities of a large vocabulary's rare tokens are below the steps of float32. Raises `ModelError` for logits
    [n, V] that are no numbers.
    """
    scaled = logits / temperature
    whole = _checked(scaled.logsumexp(-1, keepdim=True))
    p = (scaled - whole).exp()
    sums = p.cumsum(-1, dtype=torch.float64)
    ids = torch.searchsorted(sums, numbers * sums[:, -1:], right=True)
    return ids.clamp_max(logits.shape[-1] - 1), whole[:, 0] - torch.linalg.vecdot(p, scaled)


def top_k_tokens(logits: Tensor, count: int, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens of the largest logits [n, V] and their probabilities, scaled to a sum of 1, [n, K]; their entropy [n].

    Raises `ModelError` as `sample_tokens` does.
    """
    largest, ids = logits.topk(count)
    p = _checked(torch.softmax(largest / temperature, dim=-1))
    return ids, p, torch.special.entr(p).sum(-1)


def _checked(numbers: Tensor) -> Tensor:
    if not torch.isfinite(numbers).all():
        raise ModelError("the teacher's logits are no finite numbers; look at its weights, or give --precision fp32.")
    return numbers
