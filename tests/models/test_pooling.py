"""Pooling: against plain sums, and what padding must not change."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demiglace.models.pooling import pool

POOLINGS = ("mean", "first", "last")
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
def test_padding_changes_nothing(pooling, side, lengths, extra, filler):
    rows = states(lengths)
    hidden, mask = padded(rows, max(lengths) + extra, side, filler)
    plain = {"mean": lambda r: r.mean(0), "first": lambda r: r[0], "last": lambda r: r[-1]}[pooling]
    torch.testing.assert_close(pool(hidden, mask, pooling), torch.stack([plain(r) for r in rows]))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_only_pooled_tokens_get_a_gradient(pooling):
    hidden, mask = padded(states([2, 4]), 5, "right", 0.0)
    hidden.requires_grad_()
    pool(hidden, mask, pooling).sum().backward()
    reached = hidden.grad.abs().sum(-1) > 0
    expected = {
        "mean": mask.bool(),
        "first": torch.arange(5)[None] == torch.tensor([[0], [0]]),
        "last": torch.arange(5)[None] == torch.tensor([[1], [3]]),
    }[pooling]
    assert torch.equal(reached, expected)


def test_mean_of_bfloat16_is_added_up_in_float32():
    hidden = torch.ones(1, 1000, 1, dtype=torch.bfloat16)  # 256 + 1 is 256 in bfloat16
    pooled = pool(hidden, torch.ones(1, 1000), "mean")
    assert pooled.dtype == torch.float32 and pooled.item() == 1


def test_mean_of_an_empty_row_is_zero():
    hidden = torch.ones(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert torch.equal(pool(hidden, mask, "mean"), torch.tensor([[1.0] * 4, [0.0] * 4]))
