"""Loss terms on logits for language models: each predicted token is treated as a row."""

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
    """Return whether a term compares only logits, so that it can be computed for one chunk of tokens at a time."""
    return requests.student.logits and all(r in _LOGITS_ALONE for r in (requests.student, requests.teacher))


def sparse_temperature(name: str, method: Method, student: ModelShape, teacher: ModelShape) -> float:
    """Return the temperature τ of a method that can be trained on sparse teacher logits (a few tokens' probabilities).

    Raises `ConfigError` for a method that uses the teacher's logits for anything but τ²·KL(teacher ‖ student) at one τ,
    or that needs signals which are not cached for tokens: attention and the hidden states of every token. name: of the
    method, for the message.
    """
    logit_terms = [w.term for w in method.terms if w.term.requests(student, teacher).teacher.logits]
    temperatures = {_temperature(term) for term in logit_terms}
    if not method.requests(student, teacher).teacher.is_cacheable:
        fault = (
            "it needs the teacher's attention or the hidden states of every token, which are too large to cache "
            "(if the method has the option, --method-options.pooling auto uses pooled states)"
        )
    elif not temperatures:
        fault = "it uses no logits of the teacher"
    elif len(temperatures) > 1 or (temperature := temperatures.pop()) is None:
        fault = "cached tokens only give KL(teacher ‖ student) at one temperature, and it uses logits in another way"
    else:
        return temperature
    raise ConfigError(
        f"method {name} cannot learn from --cache-tokens: {fault}. Give --cache-tokens none, which runs the teacher on "
        "every batch, or use vanilla-kd."
    )


def _temperature(term: Term) -> float | None:
    """Return τ of a term τ²·KL(teacher ‖ student), with or without a schedule; None for any other term."""
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
    """Return Σ_k w_k · L_k with its gradient, and the terms L_k = Σ_i c_i · ℓ_k(i), detached [K].

    student: hidden [N, d]; teacher: hidden [N, d], or sparse logits [N, K]; labels: int64 [N]; weights: w;
    token_weights: c [N].
    """

    sparse, head = (teacher, None) if isinstance(teacher, SparseLogits) else (None, teacher)

    def losses(student_logits: Tensor, teacher_logits: Tensor | None, part: slice) -> Tensor:
        signals = Signals(student_logits), Signals(teacher_logits, head=None if sparse is None else sparse[part])
        return torch.stack([term(*signals, labels[part], progress) for term in terms])

    chunk = chunk_size(len(student.weight), student.hidden.device.type)
    return token_losses(student, head, losses, weights, token_weights, chunk)
