"""Properties of the divergences, and references in NumPy float64 straight from the equations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from demiglace.losses.divergences import forward_kl, squared_error

LOGITS = arrays(np.float64, (4, 5), elements=st.floats(-8, 8))
TEMPERATURES = st.sampled_from([1.0, 2.0, 5.0, 20.0])


def reference_kl(student: np.ndarray, teacher: np.ndarray, temperature: float) -> np.ndarray:
    p, q = (np.exp(z / temperature) / np.exp(z / temperature).sum(-1, keepdims=True) for z in (teacher, student))
    return temperature**2 * (p * np.log(p / q)).sum(-1)


@given(LOGITS, LOGITS, TEMPERATURES)
def test_kl_is_the_equation(student: np.ndarray, teacher: np.ndarray, temperature: float) -> None:
    found = forward_kl(torch.from_numpy(student), torch.from_numpy(teacher), temperature).numpy()
    np.testing.assert_allclose(found, reference_kl(student, teacher, temperature), rtol=1e-6, atol=1e-9)


@given(LOGITS, LOGITS, TEMPERATURES, st.floats(-50, 50))
def test_kl_is_no_less_than_zero_zero_at_equality_and_blind_to_shifts(
    student: np.ndarray, teacher: np.ndarray, temperature: float, shift: float
) -> None:
    s, t = torch.from_numpy(student), torch.from_numpy(teacher)
    found = forward_kl(s, t, temperature)
    assert (found >= -1e-9).all()
    assert forward_kl(t, t, temperature).abs().max() < 1e-9
    torch.testing.assert_close(forward_kl(s + shift, t - shift, temperature), found, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("temperature", [10.0, 100.0])
def test_kl_gradient_keeps_its_size_with_temperature(temperature: float) -> None:
    """For large τ the gradient tends to (z_S − z_T) / C for centred logits (Hinton et al. 2015, eq. 4)."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    student = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    teacher, student = (z - z.mean(-1, keepdim=True) for z in (teacher, student))
    student.requires_grad_()
    forward_kl(student, teacher, temperature).sum().backward()
    expected = (student.detach() - teacher) / 6
    assert (student.grad - expected).abs().max() < 2 / temperature


def test_squared_error_is_the_mean_over_outputs() -> None:
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert squared_error(student, teacher).tolist() == [2.5]
