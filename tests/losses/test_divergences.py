"""Divergences: their properties, and references in NumPy float64 written from the equations."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from demiglace.losses.divergences import (
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    squared_error,
)

LOGITS = arrays(np.float64, (4, 5), elements=st.floats(-8, 8))
TEMPERATURES = st.sampled_from([1.0, 2.0, 5.0, 20.0])


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(-1)


# name -> the loss, the same from the two distributions, and the size of its gradient against forward KL's for large τ
DIVERGENCES = {
    "forward": (forward_kl, lambda p, q: kl(p, q), 1.0),
    "reverse": (reverse_kl, lambda p, q: kl(q, p), 1.0),
    "jsd": (
        partial(jensen_shannon, beta=0.3),
        lambda p, q: 0.3 * kl(p, 0.3 * p + 0.7 * q) + 0.7 * kl(q, 0.3 * p + 0.7 * q),
        0.3 * 0.7,
    ),
    "skew": (partial(skew_kl, skew=0.1), lambda p, q: kl(p, 0.1 * p + 0.9 * q), 0.9**2),
    "skew-0": (partial(skew_kl, skew=0.0), lambda p, q: kl(p, q), 1.0),
    "skew-reverse": (partial(skew_reverse_kl, skew=0.1), lambda p, q: kl(q, 0.9 * p + 0.1 * q), 0.9**2),
}
each = pytest.mark.parametrize("name", DIVERGENCES)


@each
@given(LOGITS, LOGITS, TEMPERATURES)
def test_equals_the_equation(name: str, student: np.ndarray, teacher: np.ndarray, temperature: float) -> None:
    loss, reference, _ = DIVERGENCES[name]
    p, q = (np.exp(z / temperature) / np.exp(z / temperature).sum(-1, keepdims=True) for z in (teacher, student))
    found = loss(torch.from_numpy(student), torch.from_numpy(teacher), temperature).numpy()
    np.testing.assert_allclose(found, temperature**2 * reference(p, q), rtol=1e-6, atol=1e-9)


@each
@given(LOGITS, LOGITS, TEMPERATURES, st.floats(-50, 50))
def test_non_negative_zero_at_equality_and_shift_invariant(
    name: str, student: np.ndarray, teacher: np.ndarray, temperature: float, shift: float
) -> None:
    loss, s, t = DIVERGENCES[name][0], torch.from_numpy(student), torch.from_numpy(teacher)
    found = loss(s, t, temperature)
    assert (found >= -1e-9).all()
    assert loss(t, t, temperature).abs().max() < 1e-9
    torch.testing.assert_close(loss(s + shift, t - shift, temperature), found, rtol=1e-6, atol=1e-7)


@each
@pytest.mark.parametrize("temperature", [10.0, 100.0])
def test_the_gradient_keeps_its_size_with_temperature(name: str, temperature: float) -> None:
    """For large τ it tends to a multiple of (z_S − z_T) / C for centred logits (Hinton et al. 2015, eq. 4)."""
    loss, _, factor = DIVERGENCES[name]
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    student = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    teacher, student = (z - z.mean(-1, keepdim=True) for z in (teacher, student))
    student.requires_grad_()
    loss(student, teacher, temperature).sum().backward()
    expected = factor * (student.detach() - teacher) / 6
    assert (student.grad - expected).abs().max() < 3 / temperature


def test_limits_of_jsd() -> None:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    beta = 1e-6
    torch.testing.assert_close(
        jensen_shannon(student, teacher, 1.0, beta) / beta, forward_kl(student, teacher, 1.0), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        jensen_shannon(student, teacher, 1.0, 1 - beta) / beta, reverse_kl(student, teacher, 1.0), rtol=1e-4, atol=1e-5
    )


def test_skewed_divergences_stay_finite_where_kl_does_not() -> None:
    student, teacher = torch.tensor([[0.0, -1e9]]), torch.tensor([[-1e9, 0.0]])
    assert torch.isfinite(skew_kl(student, teacher, 1.0, 0.1)).all()
    assert torch.isfinite(skew_reverse_kl(student, teacher, 1.0, 0.1)).all()
    assert torch.isfinite(jensen_shannon(student, teacher, 1.0, 0.5)).all()


def test_squared_error_is_the_mean_over_outputs() -> None:
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert squared_error(student, teacher).tolist() == [2.5]
