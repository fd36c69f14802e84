"""Losses of language models, from the last hidden states and the head's weight, a chunk of tokens at a time.

Full logits are [N, V]: 4 × 1024 tokens of GPT-2 make 0.8 GB in float32, several times over with a teacher. Here the
logits of one chunk live at a time: its loss and its gradient are made together, in the forward pass, and only the
gradients of the hidden states and of the head stay (cf. Hsu et al. 2024, Liger Kernel, arXiv 2410.10989, sec. 3.2). So
the extra memory is O(chunk · V) whatever N, no product is made twice, and values and gradients are the plain form's.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# logits of a chunk: on a CPU 16 MB in float32, which stay near its caches; a GPU wants larger pieces to be busy
_CHUNK_NUMBERS = {"cpu": 1 << 22, "cuda": 1 << 27}

# (student logits [n, V], teacher logits [n, V] or none, which of the N tokens) -> losses [K, n]
ChunkLosses = Callable[[Tensor, Tensor | None, slice], Tensor]


class Outputs(Protocol):
    """What a head makes logits from: hidden states [N, d], weight [V, d], bias [V] or none; logits h·Wᵀ + b."""

    @property
    def hidden(self) -> Tensor:
        """[N, d]."""

    @property
    def weight(self) -> Tensor:
        """[V, d]."""

    @property
    def bias(self) -> Tensor | None:
        """[V], or none."""


def chunk_size(vocabulary: int, device: str) -> int:
    """Tokens of a chunk for a vocabulary of this size on a kind of device."""
    return max(16, _CHUNK_NUMBERS.get(device, 1 << 27) // vocabulary)


def token_losses(
    student: Outputs,
    teacher: Outputs | None,
    losses: ChunkLosses,
    term_weights: Sequence[float],
    token_weights: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Σ_k w_k · L_k with its gradient, and every L_k = Σ_i c_i · ℓ_k(i), detached [K]; float32 at least.

    ℓ_k(i) is what `losses` says of token i, w the term weights [K], c the token weights [N]. The teacher gets no
    gradient, and the result can be differentiated once. In autocast the products are made in its number format.
    Raises ValueError for unequal vocabularies, a chunk below 1, and lengths that differ.
    """
    if teacher is not None and len(teacher.weight) != len(student.weight):
        raise ValueError(f"the student's head has {len(student.weight)} tokens, the teacher's {len(teacher.weight)}")
    lengths = [len(student.hidden), *([] if teacher is None else [len(teacher.hidden)])]
    parts = list(_chunks(len(token_weights), chunk, lengths))
    matrix = None if teacher is None else _cast(teacher.weight)  # once, and not for every chunk

    def measured(part: slice, logits: Tensor) -> Tensor:
        """The weighted losses of a chunk [K]."""
        with torch.no_grad():
            other = None if teacher is None or matrix is None else _logits(teacher.hidden[part], matrix, teacher.bias)
        return (losses(logits, other, part) * token_weights[part]).sum(-1)  # no product: autocast would round it

    total, values = _Chunked.apply(student.hidden, student.weight, student.bias, measured, parts, tuple(term_weights))
    return total, values


class _Chunked(torch.autograd.Function):
    """The gradient is made with the loss, and waits for what multiplies it."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        measured: Callable[[slice, Tensor], Tensor],
        parts: Sequence[slice],
        term_weights: tuple[float, ...],
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        values = hidden.new_zeros(len(term_weights), dtype=exact)
        factors = values.new_tensor(term_weights)
        by_hidden = torch.empty_like(hidden) if wanted else None
        by_weight = torch.zeros_like(weight, dtype=exact) if wanted else None
        by_bias = None if bias is None or not wanted else torch.zeros_like(bias, dtype=exact)
        matrix = _cast(weight)
        for part in parts:
            states = _cast(hidden[part])
            logits = _logits(states, matrix, bias).requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                found = measured(part, logits)
                loss = (found * factors).sum()
            values += found.detach()
            if by_hidden is not None and by_weight is not None:
                (slope,) = torch.autograd.grad(loss, logits)
                if by_bias is not None:
                    by_bias += slope.sum(0)
                slope = slope.to(states.dtype)
                by_hidden[part] = slope @ matrix
                _add_product(by_weight, slope, states)
        ctx.gradients = by_hidden, by_weight, by_bias
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(values)
        return (values * factors).sum(), values

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        by_hidden, by_weight, by_bias = ctx.gradients
        by_bias = None if by_bias is None else (by_bias * slope).to(ctx.dtypes[1])
        # ours alone and needed once, so they are multiplied in place
        return by_hidden.mul_(slope), by_weight.mul_(slope).to(ctx.dtypes[0]), by_bias, None, None, None


def _add_product(total: Tensor, slope: Tensor, states: Tensor) -> None:
    """total += slopeᵀ · states."""
    if total.dtype == states.dtype:
        total.addmm_(slope.T, states)
    else:
        total += slope.T @ states


def next_token_losses(output: Outputs, targets: Tensor, chunk: int) -> Tensor:
    """−log softmax(h·Wᵀ + b)[target] of every token, in nats, float32 [N]; without a gradient.

    Raises ValueError for a chunk below 1 and lengths that differ.
    """
    found = torch.empty(len(targets), dtype=torch.float32, device=targets.device)
    with torch.no_grad():
        matrix = _cast(output.weight)
        for part in _chunks(len(targets), chunk, [len(output.hidden)]):
            logits = _logits(output.hidden[part], matrix, output.bias)
            found[part] = F.cross_entropy(logits, targets[part], reduction="none")
    return found


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """At least float32: a sum over tokens in bfloat16 stops growing after a few hundred of them."""
    logits = F.linear(_cast(hidden), _cast(weight))
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    return logits if bias is None else logits + bias.detach()


def _cast(tensor: Tensor) -> Tensor:
    """In autocast's number format, as it would be for a layer's product."""
    kind = tensor.device.type
    wanted = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
    return tensor.detach().to(wanted)


def _chunks(tokens: int, chunk: int, lengths: Sequence[int]) -> Iterator[slice]:
    if chunk < 1:
        raise ValueError(f"a chunk holds at least 1 token, not {chunk}")
    if any(length != tokens for length in lengths):
        raise ValueError(f"{tokens} tokens for {', '.join(map(str, lengths))} hidden states")
    return (slice(start, min(start + chunk, tokens)) for start in range(0, tokens, chunk))
