"""The loss on sparse logits: equal to its formula and to the full divergence."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from demiglace.losses.divergences import forward_kl
from demiglace.losses.sparse import sparse_kl_div

ROWS, VOCABULARY, TEMPERATURE = 6, 9, 2.0
GENERATOR = np.random.default_rng(0)
STUDENT, TEACHER = (3 * GENERATOR.normal(size=(ROWS, VOCABULARY)) for _ in range(2))
IDS = GENERATOR.integers(0, VOCABULARY, (ROWS, 4))
WEIGHTS = GENERATOR.dirichlet(np.ones(4), ROWS)


def test_equals_the_formula() -> None:
    rest = GENERATOR.random(ROWS)
    found = sparse_kl_div(*(torch.from_numpy(a) for a in (STUDENT, IDS, WEIGHTS, rest)), TEMPERATURE)
    logarithms = log_softmax(STUDENT / TEMPERATURE, axis=1)
    for row in range(ROWS):
        expected = -sum(w * logarithms[row, i] for i, w in zip(IDS[row], WEIGHTS[row], strict=True)) - rest[row]
        assert float(found[row]) == pytest.approx(TEMPERATURE**2 * expected, rel=1e-12)


def test_all_tokens_with_their_probabilities_give_the_divergence() -> None:
    p = softmax(TEACHER / TEMPERATURE, axis=1)
    ids = np.broadcast_to(np.arange(VOCABULARY), p.shape).copy()
    target = (torch.from_numpy(a) for a in (ids, p, entropy(p, axis=1)))
    students = [torch.from_numpy(STUDENT).requires_grad_() for _ in range(2)]
    sparse, divergence = (
        sparse_kl_div(students[0], *target, TEMPERATURE),
        forward_kl(students[1], torch.from_numpy(TEACHER), TEMPERATURE),
    )
    torch.testing.assert_close(sparse, divergence)
    sparse.sum().backward(), divergence.sum().backward()
    torch.testing.assert_close(students[0].grad, students[1].grad)


def test_a_token_twice_counts_twice() -> None:
    logits, none = torch.from_numpy(STUDENT[:1]), torch.zeros(1)
    twice = sparse_kl_div(logits, torch.tensor([[3, 3, 5]]), torch.full((1, 3), 1 / 3), none, TEMPERATURE)
    once = sparse_kl_div(logits, torch.tensor([[3, 5]]), torch.tensor([[2 / 3, 1 / 3]]), none, TEMPERATURE)
    torch.testing.assert_close(twice, once)
