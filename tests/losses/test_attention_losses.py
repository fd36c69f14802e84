"""Attention losses: equal to the equations in NumPy float64, and not affected by padding."""

import numpy as np
import pytest
import torch
from torch import Tensor

from demiglace.losses.attention import (
    attention_kl,
    attention_mask_2d,
    probability_distance,
    score_distance,
    scores,
)
from demiglace.losses.hidden import mean_over_tokens

HEADS, WIDTH = 2, 6
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])  # padded on the right, and on the left
DISTANCES = [score_distance, probability_distance, attention_kl]


@pytest.fixture
def maps() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(3, HEADS, 4, 4)), generator.normal(size=(3, HEADS, 4, 4))


def visible(causal: bool = False) -> Tensor:
    return attention_mask_2d(torch.from_numpy(MASK), causal)


def seen(row: int, query: int, causal: bool) -> list[int]:
    return [j for j in range(4) if MASK[row, j] and (j <= query or not causal)]


def reference(kind: str, student: np.ndarray, teacher: np.ndarray, causal: bool) -> list[float]:
    """Compute the loss for each query over its visible keys, then the mean over heads and over queries or pairs."""
    rows = []
    for b in range(3):
        parts, pairs, queries = [], 0, 0
        for i in np.flatnonzero(MASK[b]):
            keys = seen(b, i, causal)
            pairs, queries = pairs + len(keys), queries + 1
            for h in range(HEADS):
                a_s, a_t = student[b, h, i, keys], teacher[b, h, i, keys]
                q, p = np.exp(a_s) / np.exp(a_s).sum(), np.exp(a_t) / np.exp(a_t).sum()
                parts.append(
                    {
                        "score_distance": ((a_s - a_t) ** 2).sum(),
                        "probability_distance": ((q - p) ** 2).sum(),
                        "attention_kl": (p * np.log(p / q)).sum(),
                    }[kind]
                )
        rows.append(sum(parts) / HEADS / (queries if kind == "attention_kl" else pairs))
    return rows


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_equal_the_equations(distance, causal: bool, maps: tuple[np.ndarray, np.ndarray]) -> None:
    found = distance(*map(torch.from_numpy, maps), visible(causal))
    np.testing.assert_allclose(found.numpy(), reference(distance.__name__, *maps, causal), rtol=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
def test_zero_at_equality_else_positive(distance, maps: tuple[np.ndarray, np.ndarray]) -> None:
    student, teacher = map(torch.from_numpy, maps)
    assert (distance(teacher, teacher, visible()) == 0).all()
    assert (distance(student, teacher, visible()) > 0).all()


@pytest.mark.parametrize("distance", DISTANCES)
def test_masked_pairs_get_no_gradient_and_have_no_effect(distance, maps: tuple[np.ndarray, np.ndarray]) -> None:
    student, teacher = map(torch.from_numpy, maps)
    student.requires_grad_()
    hidden = ~visible(causal=True)[:, None].expand(-1, HEADS, -1, -1)
    loss = distance(student, teacher, visible(causal=True))
    loss.sum().backward()
    assert (student.grad[hidden] == 0).all()
    assert torch.isfinite(student.grad).all()
    changed = distance(student.detach().masked_fill(hidden, 1e4), teacher.masked_fill(hidden, -1e4), visible(True))
    torch.testing.assert_close(changed, loss.detach())


def test_a_row_of_padding_alone_is_zero() -> None:
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    a = torch.randn(1, HEADS, 4, 4, requires_grad=True)
    for distance in DISTANCES:
        loss = distance(a, torch.randn(1, HEADS, 4, 4), nothing)
        loss.sum().backward()
        assert loss.item() == 0.0
        assert torch.isfinite(a.grad).all()


def test_kl_is_invariant_to_a_shift_of_a_querys_scores(maps: tuple[np.ndarray, np.ndarray]) -> None:
    student, teacher = map(torch.from_numpy, maps)
    shift = torch.arange(4.0, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        attention_kl(student + shift, teacher - shift, visible()), attention_kl(student, teacher, visible())
    )


def test_scores_are_scaled_products_of_each_head() -> None:
    generator = np.random.default_rng(1)
    query, key = generator.normal(size=(3, 4, WIDTH)), generator.normal(size=(3, 4, WIDTH))
    found = scores(torch.from_numpy(query), torch.from_numpy(key), HEADS).numpy()
    size = WIDTH // HEADS
    for h in range(HEADS):
        cut = slice(h * size, (h + 1) * size)
        expected = np.einsum("bid,bjd->bij", query[..., cut], key[..., cut]) / np.sqrt(size)
        np.testing.assert_allclose(found[:, h], expected, rtol=1e-12)


def test_scores_of_half_precision_are_computed_in_float32() -> None:
    query = torch.full((1, 2, WIDTH), 300.0, dtype=torch.float16)  # 300 · 300 does not fit float16
    found = scores(query, query, HEADS)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()


def test_mean_over_tokens_ignores_padding() -> None:
    values = torch.tensor([[1.0, 2.0, float("nan"), 4.0]], requires_grad=True)
    mean = mean_over_tokens(values[..., None], torch.tensor([[1, 1, 0, 1]])[..., None])[..., 0]
    mean.sum().backward()
    assert mean.item() == pytest.approx(7 / 3)
    assert values.grad.tolist() == [pytest.approx([1 / 3, 1 / 3, 0.0, 1 / 3])]
