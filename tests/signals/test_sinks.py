"""Attention sinks are found at planted positions only."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from demiglace.data.tokenize import TokenizedSplit
from demiglace.signals.sinks import Sinks, find_sinks
from factories import plant_sink, tiny_model
from training_kit import random_examples


def rows_of(length: int, count: int = 40, pad_left: bool = False) -> TokenizedSplit:
    """Return rows of one length, without segments."""
    ids = np.random.default_rng(0).integers(5, 60, count * length).astype(np.int32)
    offsets = np.arange(count + 1, dtype=np.int64) * length
    return TokenizedSplit(ids, offsets, None, np.zeros(count, np.int64), pad_id=0, pad_left=pad_left)


def test_a_planted_first_token_is_found_in_all_layers() -> None:
    examples = replace(random_examples(40), type_ids=None)
    model = plant_sink(tiny_model("gpt2"))
    found = find_sinks(model, examples, range(5))
    assert (found.rows, found.layers) == (32, (0, 1, 2, 3, 4))
    assert (found.first, found.last, found.between) == (32, 0, 0)
    assert found.largest_ratio > 100


@pytest.mark.parametrize(("position", "expected"), [(3, (0, 0, 32)), (5, (0, 32, 0))])
def test_positions_are_distinguished(position: int, expected: tuple[int, int, int]) -> None:
    found = find_sinks(plant_sink(tiny_model("gpt2"), position), rows_of(6), [1, 2])
    assert (found.first, found.last, found.between) == expected


@pytest.mark.parametrize("arch", ["bert", "gpt2", "llama"])
def test_models_without_sinks_have_none(arch: str) -> None:
    found = find_sinks(tiny_model(arch), rows_of(6), range(1, 5))
    assert found == Sinks(32, (), 0, 0, 0, found.largest_ratio)
    assert 1 <= found.largest_ratio < 10


def test_fewer_long_rows_but_at_least_two() -> None:
    assert find_sinks(tiny_model("gpt2"), rows_of(250), [1]).rows == 16
    assert find_sinks(tiny_model("gpt2"), rows_of(6, count=3), [1]).rows == 3


def test_random_state_and_gradients_are_unchanged() -> None:
    model, state = tiny_model("gpt2"), torch.get_rng_state()
    find_sinks(model, rows_of(6), [1])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
