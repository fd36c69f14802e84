"""Terms on logits carried over to language models: every predicted token is a row of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from demiglace.errors import ConfigError
from demiglace.losses.language import chunk_size, token_losses
from demiglace.methods.base import Method, SignalRequests, Term, TermLoss, TrainingProgress
from demiglace.methods.terms.logits import LogitDistillation
from demiglace.methods.terms.scheduled import ScheduledTerm
from demiglace.models.language_model import HeadInput
from demiglace.models.shape import ModelShape
from demiglace.signals.request import SignalRequest, Signals, SparseLogits

_LOGITS_ALONE = (SignalRequest(), SignalRequest(logits=True))


def is_token_level(requests: SignalRequests) -> bool:
    """Whether a term compares nothing but outputs, so that it can be taken token by token, a chunk at a time."""
    return requests.student.logits and all(r in _LOGITS_ALONE for r in (requests.student, requests.teacher))


def sparse_temperature(name: str, method: Method, student: ModelShape, teacher: ModelShape) -> float:
    """The temperature τ of the distributions that a method can learn from by a few of their tokens.

    Raises `ConfigError` for a method, by its name, that does anything else with the teacher's logits than τ²·KL(teacher
    ‖ student) at one τ, or asks for what a cache of tokens does not hold: attention, every token's hidden states.
    """
    asking = [w.term for w in method.terms if w.term.requests(student, teacher).teacher.logits]
    found = {_temperature(term) for term in asking}
    if not method.requests(student, teacher).teacher.cacheable:
        fault = (
            "it asks the teacher for attention or for the hidden states of every token, which are too large to keep "
            "(with --method-options.pooling auto, where the method has it, a block is pooled)"
        )
    elif not found:
        fault = "it asks the teacher for no logits"
    elif len(found) > 1 or (temperature := found.pop()) is None:
        fault = "they have the gradient of KL(teacher ‖ student) at one temperature, and it does otherwise with logits"
    else:
        return temperature
    raise ConfigError(
        f"method {name} cannot learn from --cache-tokens: {fault}. Take --cache-tokens none, which asks the teacher "
        "for every batch, or vanilla-kd."
    )


def _temperature(term: Term) -> float | None:
    """That of a term that is τ²·KL(teacher ‖ student), whatever its weight's schedule; none for any other."""
    plain = term.term if isinstance(term, ScheduledTerm) else term
    if isinstance(plain, LogitDistillation) and plain.divergence == "forward-kl":
        return plain.temperature
    return None


def token_terms(
    terms: Sequence[TermLoss],
    weights: Sequence[float],
    student: HeadInput,
    teacher: HeadInput | SparseLogits | None,
    labels: Tensor,
    token_weights: Tensor,
    progress: TrainingProgress,
) -> tuple[Tensor, Tensor]:
    """Σ_k w_k · L_k with its gradient, and the terms L_k = Σ_i c_i · ℓ_k(i), detached [K].

    student, teacher: hidden [N, d], or of the teacher some tokens [N, K]; labels: int64 [N]; token_weights: c [N].
    """

    sparse, head = (teacher, None) if isinstance(teacher, SparseLogits) else (None, teacher)

    def losses(own: Tensor, other: Tensor | None, part: slice) -> Tensor:
        said = Signals(own), Signals(other, head=None if sparse is None else sparse[part])
        return torch.stack([term(*said, labels[part], progress) for term in terms])

    chunk = chunk_size(len(student.weight), student.hidden.device.type)
    return token_losses(student, head, losses, weights, token_weights, chunk)
