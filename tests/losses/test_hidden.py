"""Losses on hidden states: equal to NumPy float64."""

import numpy as np
import pytest
import torch

from demiglace.losses.hidden import attention_weighted_teacher, mean_squared, normalized_squared


@pytest.fixture
def states() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(3, 2, 7)), generator.normal(size=(3, 4, 7))


def test_normalized_squared_is_two_minus_twice_the_cosine(states: tuple[np.ndarray, np.ndarray]) -> None:
    student, teacher = states[0], states[1][:, :2]
    norms = np.linalg.norm(student, axis=-1) * np.linalg.norm(teacher, axis=-1)
    expected = 2 - 2 * (student * teacher).sum(-1) / norms
    found = normalized_squared(torch.from_numpy(student), torch.from_numpy(teacher))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_normalized_squared_ignores_length_and_is_at_most_four(states: tuple[np.ndarray, np.ndarray]) -> None:
    h = torch.from_numpy(states[0])
    assert normalized_squared(h, 3 * h).abs().max() < 1e-12
    torch.testing.assert_close(normalized_squared(h, -2 * h), torch.full(h.shape[:-1], 4.0, dtype=h.dtype))


def test_mean_squared(states: tuple[np.ndarray, np.ndarray]) -> None:
    student, teacher = states[0], states[1][:, :2]
    found = mean_squared(torch.from_numpy(student), torch.from_numpy(teacher))
    np.testing.assert_allclose(found.numpy(), ((student - teacher) ** 2).mean(-1), rtol=1e-10)


def test_attention_weighted_teacher_mixes_layers_by_softmax(states: tuple[np.ndarray, np.ndarray]) -> None:
    student, teacher = states
    expected = np.empty_like(student)
    for b in range(3):
        for i in range(2):
            scores = np.array([student[b, i] @ teacher[b, j] for j in range(4)])
            weights = np.exp(scores - scores.max())
            expected[b, i] = (weights / weights.sum()) @ teacher[b]
    found = attention_weighted_teacher(torch.from_numpy(student), torch.from_numpy(teacher))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
