"""The chunked losses of language models against the plain form in float64, and the memory they are there to save."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from demiglace.losses.divergences import forward_kl, jensen_shannon, reverse_kl
from demiglace.losses.language import IGNORED, Outputs, cross_entropy, mean_divergence, next_tokens

TOKENS, VOCABULARY, CHUNK = 23, 41, 4
DIVERGENCES = {
    "forward": partial(forward_kl, temperature=2.0),
    "reverse": partial(reverse_kl, temperature=2.0),
    "jsd": partial(jensen_shannon, temperature=1.0, beta=0.3),
}


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements any operation, forward or backward, has returned in one tensor."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def outputs(width: int, seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, width, generator=generator, dtype=torch.float64) for n in (TOKENS, VOCABULARY))
    return Outputs(hidden.requires_grad_(), weight.requires_grad_())


@pytest.fixture
def targets() -> Tensor:
    drawn = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(3))
    drawn[[0, 5, 6, 7]] = IGNORED
    return drawn


def gradients(loss: Tensor, student: Outputs) -> tuple[Tensor, ...]:
    return torch.autograd.grad(3 * loss, (student.hidden, student.weight))


def same(chunked: Tensor, plain: Tensor, student: Outputs) -> None:
    torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(chunked, student), gradients(plain, student), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, CHUNK, TOKENS, 100])
def test_cross_entropy_is_the_plain_one(targets: Tensor, chunk: int) -> None:
    student = outputs(8, 0)
    plain = F.cross_entropy(student.hidden @ student.weight.T, targets)
    same(cross_entropy(student, targets, chunk), plain, student)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergence_is_the_plain_one(targets: Tensor, name: str) -> None:
    student, teacher = outputs(8, 0), outputs(12, 1)
    logits = (each.hidden @ each.weight.T for each in (student, teacher))
    plain = DIVERGENCES[name](*logits)[targets != IGNORED].mean()
    same(mean_divergence(student, teacher, targets, DIVERGENCES[name], CHUNK), plain, student)


def test_teacher_gets_no_gradient(targets: Tensor) -> None:
    student, teacher = outputs(8, 0), outputs(12, 1)
    mean_divergence(student, teacher, targets, DIVERGENCES["forward"], CHUNK).backward()
    assert teacher.hidden.grad is None and teacher.weight.grad is None
    assert student.weight.grad is not None


def test_no_counting_target_gives_zero() -> None:
    student = outputs(8, 0)
    loss = cross_entropy(student, torch.full((TOKENS,), IGNORED), CHUNK)
    assert loss == 0 and all(not gradient.any() for gradient in gradients(loss, student))


def test_sums_of_half_precision_states_are_float32() -> None:
    student = Outputs(torch.zeros(3000, 2, dtype=torch.bfloat16), torch.zeros(VOCABULARY, 2, dtype=torch.bfloat16))
    loss = cross_entropy(student, torch.zeros(3000, dtype=torch.long), 1)
    torch.testing.assert_close(loss, torch.tensor(float(VOCABULARY)).log(), rtol=1e-4, atol=0.0)


def test_next_tokens_are_those_that_follow() -> None:
    hidden, tokens = torch.arange(12.0).reshape(2, 3, 2), torch.tensor([[1, 2, 3], [4, 5, 6]])
    states, following = next_tokens(hidden, tokens)
    assert following.tolist() == [2, 3, 5, 6]
    assert states.tolist() == [[0, 1], [2, 3], [6, 7], [8, 9]]


@pytest.mark.parametrize("with_teacher", [False, True])
def test_never_more_than_one_chunk_of_logits(targets: Tensor, with_teacher: bool) -> None:
    student, teacher = outputs(2, 0), outputs(2, 1)
    if with_teacher:
        chunked: Callable[[int], Tensor] = partial(mean_divergence, student, teacher, targets, DIVERGENCES["jsd"])
    else:
        chunked = partial(cross_entropy, student, targets)
    assert _largest(chunked, TOKENS) == TOKENS * VOCABULARY
    assert _largest(chunked, CHUNK) == CHUNK * VOCABULARY
    assert _saved(chunked, CHUNK) < _saved(lambda _: F.cross_entropy(student.hidden @ student.weight.T, targets), 0)


def _largest(loss: Callable[[int], Tensor], chunk: int) -> int:
    with LargestTensor() as mode:
        loss(chunk).backward()
    return mode.largest


def _saved(loss: Callable[[int], Tensor], chunk: int) -> int:
    """Bytes of the distinct tensors that the forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(chunk)
    return sum(kept.values())


def test_bad_input(targets: Tensor) -> None:
    student, teacher = outputs(8, 0), outputs(8, 1)
    with pytest.raises(ValueError, match="at least 1 token, not 0"):
        cross_entropy(student, targets, 0)
    with pytest.raises(ValueError, match="22 targets for 23"):
        cross_entropy(student, targets[:-1], CHUNK)
    other = Outputs(teacher.hidden, teacher.weight[:-1])
    with pytest.raises(ValueError, match="41 tokens, the teacher's 40"):
        mean_divergence(student, other, targets, DIVERGENCES["forward"], CHUNK)
