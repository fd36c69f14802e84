"""Chunked language-model losses: equal to the direct computation in float64, with less memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from demiglace.losses.divergences import forward_kl, jensen_shannon, reverse_kl
from demiglace.losses.language import chunk_size, next_token_losses, token_losses

TOKENS, VOCABULARY, CHUNK = 23, 41, 4
WEIGHTS = (0.4, 1.5)
DIVERGENCES = {
    "forward": partial(forward_kl, temperature=2.0),
    "reverse": partial(reverse_kl, temperature=2.0),
    "jsd": partial(jensen_shannon, temperature=1.0, beta=0.3),
}


@dataclass(frozen=True)
class Head:
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        return F.linear(self.hidden, self.weight, self.bias)

    @property
    def trained(self) -> list[Tensor]:
        return [t for t in (self.hidden, self.weight, self.bias) if t is not None]


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements that an operation, forward or backward, returned in one tensor."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def head(width: int, seed: int, *, with_bias: bool = False, tokens: int = TOKENS) -> Head:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).requires_grad_()

    return Head(drawn(tokens, width), drawn(VOCABULARY, width), drawn(VOCABULARY) if with_bias else None)


TARGETS = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(3))
TOKEN_WEIGHTS = torch.rand(TOKENS, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def losses_of(name: str | None) -> Callable[[Tensor, Tensor | None, slice], Tensor]:
    """Return the cross-entropy and, if given, a divergence."""

    def losses(own: Tensor, other: Tensor | None, part: slice) -> Tensor:
        found = [F.cross_entropy(own, TARGETS[part], reduction="none")]
        if name is not None:
            assert other is not None
            found.append(DIVERGENCES[name](own, other))
        return torch.stack(found)

    return losses


def chunked(student: Head, teacher: Head | None, name: str | None, chunk: int) -> tuple[Tensor, Tensor]:
    weights = WEIGHTS[: 1 if name is None else 2]
    return token_losses(student, teacher, losses_of(name), weights, TOKEN_WEIGHTS, chunk)


def plain(student: Head, teacher: Head | None, name: str | None) -> tuple[Tensor, Tensor]:
    other = None if teacher is None else teacher.logits.detach()
    values = losses_of(name)(student.logits, other, slice(None)) @ TOKEN_WEIGHTS
    return values @ values.new_tensor(WEIGHTS[: len(values)]), values


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("chunk", [1, CHUNK, TOKENS, 100])
@pytest.mark.parametrize("name", [None, *DIVERGENCES])
def test_values_and_gradients_equal_the_direct_computation(name: str | None, chunk: int, with_bias: bool) -> None:
    student, teacher = head(8, 0, with_bias=with_bias), head(12, 1) if name else None
    (ours, our_values), (theirs, their_values) = chunked(student, teacher, name, chunk), plain(student, teacher, name)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(our_values, their_values.detach(), rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(3 * loss, student.trained) for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_teacher_gets_no_gradient() -> None:
    student, teacher = head(8, 0), head(12, 1, with_bias=True)
    chunked(student, teacher, "forward", CHUNK)[0].backward()
    assert all(t.grad is None for t in teacher.trained)
    assert all(t.grad is not None for t in student.trained)


def test_a_frozen_student_has_a_loss() -> None:
    student = Head(*(t.detach() for t in head(8, 0).trained))
    loss, values = chunked(student, None, None, CHUNK)
    assert not loss.requires_grad
    torch.testing.assert_close(values, plain(student, None, None)[1])


def test_tokens_of_weight_zero_have_no_gradient() -> None:
    student = head(8, 0)
    loss, _ = token_losses(student, None, losses_of(None), (1.0,), torch.zeros(TOKENS, dtype=torch.float64), CHUNK)
    loss.backward()
    assert loss == 0 and all(t.grad is not None and not t.grad.any() for t in student.trained)


def test_autocast_casts_products_but_not_sums() -> None:
    tokens = 3000  # in bfloat16 a sum of so many losses would stop growing
    student = Head(*(torch.zeros(n, 2).requires_grad_() for n in (tokens, VOCABULARY)))

    def losses(own: Tensor, _other: Tensor | None, part: slice) -> Tensor:
        assert own.dtype == torch.float32
        return F.cross_entropy(own, torch.zeros(len(own), dtype=torch.long), reduction="none")[None]

    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = token_losses(student, None, losses, (1.0,), torch.full((tokens,), 1 / tokens), 7)
    torch.testing.assert_close(loss, torch.tensor(float(VOCABULARY)).log(), rtol=1e-4, atol=0.0)
    loss.backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in student.trained)


def test_small_gradients_survive_fp16() -> None:
    """The loss is scaled after the forward pass, in which these gradients are computed."""
    student = head(8, 0)
    weights = torch.full((TOKENS,), 1e-9)
    expected = torch.autograd.grad(
        token_losses(student, None, losses_of(None), (1.0,), weights, CHUNK)[0], student.trained
    )
    half = Head(*(t.detach().float().requires_grad_() for t in student.trained))
    with torch.autocast("cpu", torch.float16):
        loss, _ = token_losses(half, None, losses_of(None), (1.0,), weights, CHUNK)
    gradients = torch.autograd.grad(loss * 2.0**16, half.trained)
    for found, exact in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found / 2**16, exact.float(), rtol=0.02, atol=1e-11)


class Casts(TorchDispatchMode):
    """Counts the tensors of one shape that are cast to bfloat16."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self._shape, self.count = shape, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and result.dtype == torch.bfloat16 and result.shape == self._shape:
            self.count += 1
        return result


def test_autocast_casts_the_head_once_for_all_chunks() -> None:
    student, teacher = head(8, 0), head(12, 1)
    with torch.autocast("cpu", torch.bfloat16), Casts((VOCABULARY, 12)) as of_teacher, Casts((VOCABULARY, 8)) as own:
        chunked(student, teacher, "forward", CHUNK)
    assert (of_teacher.count, own.count) == (1, 1)
    with torch.autocast("cpu", torch.bfloat16), Casts((VOCABULARY, 8)) as own:
        next_token_losses(student, TARGETS, CHUNK)
    assert own.count == 1


def test_next_token_losses_equal_the_direct_computation() -> None:
    output = head(8, 0, with_bias=True)
    expected = F.cross_entropy(output.logits, TARGETS, reduction="none").float()
    torch.testing.assert_close(next_token_losses(output, TARGETS, CHUNK), expected.detach())


@pytest.mark.parametrize("name", [None, "jsd"])
def test_at_most_one_chunk_of_logits_in_memory(name: str | None) -> None:
    student, teacher = head(2, 0), head(2, 1) if name else None
    assert largest(lambda: chunked(student, teacher, name, TOKENS)[0].backward()) == TOKENS * VOCABULARY
    assert largest(lambda: chunked(student, teacher, name, CHUNK)[0].backward()) == CHUNK * VOCABULARY
    assert largest(lambda: next_token_losses(student, TARGETS, CHUNK)) == CHUNK * VOCABULARY


def largest(work: Callable[[], object]) -> int:
    with LargestTensor() as mode:
        work()
    return mode.largest


def test_chunks_shrink_as_vocabularies_grow() -> None:
    assert chunk_size(50_257, "cpu") < chunk_size(8_192, "cpu") < chunk_size(8_192, "cuda")
    assert chunk_size(10**9, "cpu") >= 1


def test_bad_input() -> None:
    student, teacher = head(8, 0), head(8, 1)
    with pytest.raises(ValueError, match="at least 1 token, not 0"):
        chunked(student, None, None, 0)
    with pytest.raises(ValueError, match="22 tokens for 23"):
        token_losses(student, None, losses_of(None), (1.0,), TOKEN_WEIGHTS[:-1], CHUNK)
    with pytest.raises(ValueError, match="41 tokens, the teacher's 40"):
        chunked(student, Head(teacher.hidden, teacher.weight[:-1]), "jsd", CHUNK)
