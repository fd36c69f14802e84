"""Terms on logits carried over to language models: every predicted token is a row of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from demiglace.losses.language import chunk_size, token_losses
from demiglace.methods.base import Progress, Requests, TermLoss
from demiglace.models.language import HeadInput
from demiglace.signals.request import SignalRequest, Signals

_LOGITS_ALONE = (SignalRequest(), SignalRequest(logits=True))


def is_of_tokens(requests: Requests) -> bool:
    """Whether a term compares nothing but outputs, so that it can be taken token by token, a chunk at a time."""
    return requests.student.logits and all(r in _LOGITS_ALONE for r in (requests.student, requests.teacher))


def token_terms(
    terms: Sequence[TermLoss],
    weights: Sequence[float],
    student: HeadInput,
    teacher: HeadInput | None,
    labels: Tensor,
    token_weights: Tensor,
    progress: Progress,
) -> tuple[Tensor, Tensor]:
    """Σ_k w_k · L_k with its gradient, and the terms L_k = Σ_i c_i · ℓ_k(i), detached [K].

    student, teacher: hidden [N, d]; labels: int64 [N]; token_weights: c [N].
    """

    def losses(own: Tensor, other: Tensor | None, part: slice) -> Tensor:
        said = Signals(own), Signals(other)
        return torch.stack([term(*said, labels[part], progress) for term in terms])

    chunk = chunk_size(len(student.weight), student.hidden.device.type)
    return token_losses(student, teacher, losses, weights, token_weights, chunk)
