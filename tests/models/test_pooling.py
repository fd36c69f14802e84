"""Pooling: equal to direct sums, and not affected by padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.models.pooling import norm_ratios, pool

POOLINGS = ("mean", "normalized-mean", "first", "last")
lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def states(lengths: list[int]) -> list[torch.Tensor]:
    torch.manual_seed(len(lengths))
    return [torch.randn(n, 5) for n in lengths]


def padded(rows: list[torch.Tensor], width: int, side: str, filler: float) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = torch.full((len(rows), width, 5), filler)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        hidden[i, place], mask[i, place] = row, 1
    return hidden, mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", POOLINGS)
@given(lengths=lengths, extra=st.integers(0, 4), filler=st.sampled_from([0.0, 1e30, float("nan")]))
@settings(max_examples=20, deadline=None)
def test_padding_has_no_effect_on_pooling(pooling, side, lengths, extra, filler):
    rows = states(lengths)
    hidden, mask = padded(rows, max(lengths) + extra, side, filler)
    plain = {
        "mean": lambda r: r.mean(0),
        "normalized-mean": lambda r: (r / r.square().mean(1, keepdim=True).sqrt()).mean(0),
        "first": lambda r: r[0],
        "last": lambda r: r[-1],
    }[pooling]
    torch.testing.assert_close(pool(hidden, mask, pooling), torch.stack([plain(r) for r in rows]))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_only_pooled_tokens_get_a_gradient(pooling):
    hidden, mask = padded(states([2, 4]), 5, "right", 0.0)
    hidden.requires_grad_()
    pool(hidden, mask, pooling).sum().backward()
    reached = hidden.grad.abs().sum(-1) > 0
    expected = {
        "mean": mask.bool(),
        "normalized-mean": mask.bool(),
        "first": torch.arange(5)[None] == torch.tensor([[0], [0]]),
        "last": torch.arange(5)[None] == torch.tensor([[1], [3]]),
    }[pooling]
    assert torch.equal(reached, expected)


def test_mean_of_bfloat16_is_summed_in_float32():
    hidden = torch.ones(1, 1000, 1, dtype=torch.bfloat16)  # 256 + 1 is 256 in bfloat16
    pooled = pool(hidden, torch.ones(1, 1000), "mean")
    assert pooled.dtype == torch.float32 and pooled.item() == 1


@pytest.mark.parametrize("pooling", ["mean", "normalized-mean"])
def test_mean_of_an_empty_row_is_zero(pooling):
    hidden = torch.ones(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(pool(hidden, mask, pooling), torch.tensor([[1.0] * 4, [0.0] * 4]))


def test_the_normalized_mean_does_not_depend_on_the_norms_of_tokens():
    hidden, mask = torch.randn(2, 5, 8), torch.ones(2, 5)
    scaled = hidden * torch.tensor([1000.0, 1.0, 0.1, 7.0, 1e-3])[:, None]
    torch.testing.assert_close(pool(scaled, mask, "normalized-mean"), pool(hidden, mask, "normalized-mean"))
    assert not torch.allclose(pool(scaled, mask, "mean"), pool(hidden, mask, "mean"))


@pytest.mark.parametrize("side", ["left", "right"])
def test_norm_ratios_are_relative_to_the_rows_own_median(side):
    rows = [torch.tensor([[50.0], [1.0], [2.0], [3.0], [4.0]]), torch.tensor([[2.0], [2.0], [40.0]])]
    hidden, mask = padded(rows, 6, side, float("nan"))
    expected = torch.zeros(2, 6)
    expected[mask.bool()] = torch.tensor([50 / 3, 1 / 3, 2 / 3, 1.0, 4 / 3, 1.0, 1.0, 20.0])
    torch.testing.assert_close(norm_ratios(hidden, mask), expected)
