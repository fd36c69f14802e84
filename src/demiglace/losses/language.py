"""Losses of language models, computed from the last hidden states and the head, one chunk of tokens at a time.

Full logits are [N, V]: 4 × 1024 tokens of GPT-2 take 0.8 GB in float32, and several times that with a teacher. Here
only the logits of one chunk are in memory at a time. Loss and gradient of a chunk are both computed in the forward
pass, and only the gradients of the hidden states and of the head are kept (cf. Hsu et al. 2024, Liger Kernel, arXiv
2410.10989, sec. 3.2). So the extra memory is O(chunk · V) for any N, no product is computed twice, and values and
gradients equal those of the direct computation.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# logits of a chunk: 16 MB in float32 on a CPU, which fit its caches; a GPU needs larger chunks to be fully used
_CHUNK_NUMBERS = {"cpu": 1 << 22, "cuda": 1 << 27}

# (student logits [n, V], teacher logits [n, V] or None, slice of the N tokens) -> losses [K, n]
ChunkLosses = Callable[[Tensor, Tensor | None, slice], Tensor]


class Outputs(Protocol):
    """The input of a language-model head, which computes the logits h·Wᵀ + b."""

    @property
    def hidden(self) -> Tensor:
        """Return the hidden states [N, d]."""

    @property
    def weight(self) -> Tensor:
        """Return the weight of the head [V, d]."""

    @property
    def bias(self) -> Tensor | None:
        """Return the bias of the head [V], or None."""


def chunk_size(vocabulary: int, device: str) -> int:
    """Return the number of tokens of a chunk for this vocabulary size and device type."""
    return max(16, _CHUNK_NUMBERS.get(device, 1 << 27) // vocabulary)


def token_losses(
    student: Outputs,
    teacher: Outputs | None,
    losses: ChunkLosses,
    term_weights: Sequence[float],
    token_weights: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Return Σ_k w_k · L_k with its gradient, and each L_k = Σ_i c_i · ℓ_k(i), detached [K], in at least float32.

    ℓ_k(i) is the k-th of `losses` for token i, w the term weights [K], c the token weights [N]. The teacher gets no
    gradient, and the result can be differentiated once. Under autocast, matrix products use its dtype. Raises
    `ValueError` for different vocabulary sizes, a chunk below 1, and different numbers of tokens.
    """
    if teacher is not None and len(teacher.weight) != len(student.weight):
        raise ValueError(f"the student's head has {len(student.weight)} tokens, the teacher's {len(teacher.weight)}")
    lengths = [len(student.hidden), *([] if teacher is None else [len(teacher.hidden)])]
    parts = list(_chunks(len(token_weights), chunk, lengths))
    teacher_weight = None if teacher is None else _cast(teacher.weight)  # once, not for every chunk

    def chunk_losses(part: slice, logits: Tensor) -> Tensor:
        """Return the weighted losses of a chunk [K]."""
        teacher_logits = None
        if teacher is not None and teacher_weight is not None:
            with torch.no_grad():
                teacher_logits = _logits(teacher.hidden[part], teacher_weight, teacher.bias)
        # not a matrix product: autocast would round it
        return (losses(logits, teacher_logits, part) * token_weights[part]).sum(-1)

    inputs = student.hidden, student.weight, student.bias
    total, values = _ChunkedLoss.apply(*inputs, chunk_losses, parts, tuple(term_weights))
    return total, values


class _ChunkedLoss(torch.autograd.Function):
    """Compute the gradient in the forward pass; the backward pass multiplies it with the incoming gradient."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        chunk_losses: Callable[[slice, Tensor], Tensor],
        parts: Sequence[slice],
        term_weights: tuple[float, ...],
    ) -> tuple[Tensor, Tensor]:
        needs_grad = any(ctx.needs_input_grad)
        sum_dtype = torch.promote_types(hidden.dtype, torch.float32)
        values = hidden.new_zeros(len(term_weights), dtype=sum_dtype)
        factors = values.new_tensor(term_weights)
        matrix = _cast(weight)
        # fp16 would round small gradients to 0 here, before the loss is scaled
        grad_dtype = torch.float32 if matrix.dtype == torch.float16 else matrix.dtype
        grad_hidden = (
            torch.empty_like(hidden, dtype=torch.promote_types(hidden.dtype, grad_dtype)) if needs_grad else None
        )
        grad_weight = torch.zeros_like(weight, dtype=sum_dtype) if needs_grad else None
        grad_bias = None if bias is None or not needs_grad else torch.zeros_like(bias, dtype=sum_dtype)
        for part in parts:
            states = _cast(hidden[part])
            logits = _logits(states, matrix, bias).requires_grad_(needs_grad)
            with torch.set_grad_enabled(needs_grad):
                losses = chunk_losses(part, logits)
                loss = (losses * factors).sum()
            values += losses.detach()
            if grad_hidden is not None and grad_weight is not None:
                (grad_logits,) = torch.autograd.grad(loss, logits)
                if grad_bias is not None:
                    grad_bias += grad_logits.sum(0)
                grad_logits = grad_logits.to(grad_dtype)
                with torch.autocast(hidden.device.type, enabled=False):
                    grad_hidden[part] = grad_logits @ matrix.to(grad_dtype)
                    _add_product(grad_weight, grad_logits, states.to(grad_dtype))
        ctx.gradients = grad_hidden, grad_weight, grad_bias
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(values)
        return (values * factors).sum(), values

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_hidden, grad_weight, grad_bias = ctx.gradients
        grad_bias = None if grad_bias is None else (grad_bias * grad).to(ctx.dtypes[2])
        # in place: the tensors are not shared and are used once
        grad_hidden, grad_weight = grad_hidden.mul_(grad).to(ctx.dtypes[0]), grad_weight.mul_(grad).to(ctx.dtypes[1])
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _add_product(total: Tensor, grad: Tensor, states: Tensor) -> None:
    """Add gradᵀ · states to `total` in place."""
    if total.dtype == states.dtype:
        total.addmm_(grad.T, states)
    else:
        total += grad.T @ states


def next_token_losses(output: Outputs, targets: Tensor, chunk: int) -> Tensor:
    """Return −log softmax(h·Wᵀ + b)[target] of each token in nats, float32 [N], without a gradient.

    Raises `ValueError` for a chunk below 1 and different numbers of tokens.
    """
    losses = torch.empty(len(targets), dtype=torch.float32, device=targets.device)
    with torch.no_grad():
        matrix = _cast(output.weight)
        for part in _chunks(len(targets), chunk, [len(output.hidden)]):
            logits = _logits(output.hidden[part], matrix, output.bias)
            losses[part] = F.cross_entropy(logits, targets[part], reduction="none")
    return losses


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute logits in at least float32: a sum over tokens in bfloat16 stops growing after a few hundred of them."""
    logits = F.linear(_cast(hidden), _cast(weight))
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    return logits if bias is None else logits + bias.detach()


def _cast(tensor: Tensor) -> Tensor:
    """Detach a tensor and cast it to the dtype of autocast, if enabled, as a linear layer does."""
    kind = tensor.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
    return tensor.detach().to(dtype)


def _chunks(tokens: int, chunk: int, lengths: Sequence[int]) -> Iterator[slice]:
    if chunk < 1:
        raise ValueError(f"a chunk needs at least 1 token, not {chunk}")
    if any(length != tokens for length in lengths):
        raise ValueError(f"{tokens} tokens for {', '.join(map(str, lengths))} hidden states")
    return (slice(start, min(start + chunk, tokens)) for start in range(0, tokens, chunk))
