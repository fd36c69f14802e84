"""Losses of causal language models, from the last hidden states and the head's weight, a chunk of tokens at a time.

Full logits are [N, V]: 4 × 1024 tokens of GPT-2 make 0.8 GB in float32, several times over with a teacher. Here the
logits of one chunk live at a time and are made again in the backward pass (gradient checkpointing, Chen et al. 2016,
arXiv 1604.06174), so the extra memory is O(chunk · V) whatever N; values and gradients are those of the plain form.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORED = -100
Divergence = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Outputs:
    """What a head makes logits from: hidden states [N, d] and the head's weight [V, d]; logits are hidden @ weightᵀ."""

    hidden: Tensor
    weight: Tensor


def next_tokens(hidden: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states [B, L, d] and the tokens [B, L] they were made of, to [B·(L−1), d] and the token after each."""
    return hidden[:, :-1].flatten(0, 1), token_ids[:, 1:].flatten()


def cross_entropy(student: Outputs, targets: Tensor, chunk: int) -> Tensor:
    """−1/N Σ log softmax(h·Wᵀ)[target], in nats a token; targets [N], those equal to −100 do not count.

    Zero, with zero gradient, where no target counts. Raises ValueError for a chunk below 1 or lengths that differ.
    """
    total = student.hidden.new_zeros(())
    for part in _chunks(len(targets), chunk, len(student.hidden)):
        total = total + _again(_cross_entropy_sum, student.hidden[part], student.weight, targets[part])
    return total / _count(targets)


def mean_divergence(student: Outputs, teacher: Outputs, targets: Tensor, divergence: Divergence, chunk: int) -> Tensor:
    """1/N Σ D(z_S, z_T) over the tokens whose target is not −100; D takes logits [n, V] twice and returns [n].

    D is a function of losses/divergences.py with its temperature (and β) filled in, and brings its own τ². The two
    models may differ in width, not in vocabulary. The teacher gets no gradient.
    Raises ValueError for unequal vocabularies, a chunk below 1 or lengths that differ.
    """
    if len(student.weight) != len(teacher.weight):
        raise ValueError(f"the student's head has {len(student.weight)} tokens, the teacher's {len(teacher.weight)}")

    def divergence_sum(hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, kept: Tensor) -> Tensor:
        teacher_logits = _logits(teacher_hidden, teacher.weight.detach())
        return divergence(_logits(hidden, weight), teacher_logits).masked_fill(~kept, 0.0).sum()

    total = student.hidden.new_zeros(())
    kept = targets != IGNORED
    for part in _chunks(len(targets), chunk, len(student.hidden), len(teacher.hidden)):
        teacher_hidden = teacher.hidden[part].detach()
        total = total + _again(divergence_sum, student.hidden[part], student.weight, teacher_hidden, kept[part])
    return total / _count(targets)


def _cross_entropy_sum(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(_logits(hidden, weight), targets, ignore_index=IGNORED, reduction="sum")


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """At least float32: a sum over tokens in bfloat16 stops growing after a few hundred of them."""
    logits = hidden @ weight.T
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _again(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The function's value; what it computes on the way is thrown away and computed again for the gradient."""
    value: Tensor = checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
    return value


def _chunks(tokens: int, chunk: int, *lengths: int) -> Iterator[slice]:
    if chunk < 1:
        raise ValueError(f"a chunk holds at least 1 token, not {chunk}")
    if any(length != tokens for length in lengths):
        raise ValueError(f"{tokens} targets for {', '.join(map(str, lengths))} hidden states")
    return (slice(start, start + chunk) for start in range(0, tokens, chunk))


def _count(targets: Tensor) -> Tensor:
    return torch.count_nonzero(targets != IGNORED).clamp(min=1)
