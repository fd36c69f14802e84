"""Block influence: equal to NumPy; and models without some of their layers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from layer_kit import BATCHES, batch_of

from demiglace.errors import ModelError
from demiglace.models.importance import block_influence, least_influential
from demiglace.models.layer_ablation import observe_layers, output_formats, run_from_layer, skip_layers
from demiglace.models.layer_stack import layer_stack
from demiglace.models.truncate import truncate_model
from factories import ARCHITECTURES, tiny_model


def states_of(model, batch):
    """Return the hidden states before and after each layer in float64, without the final norm."""
    seen = []
    handles = [layer.register_forward_hook(lambda *args: seen.append(args[2])) for layer in layer_stack(model)]
    with torch.no_grad():
        shown = model(**batch, output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    last = seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]
    return [h.double().numpy() for h in (*shown[:-1], last)]


# block influence


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_block_influence_equals_the_formula_over_real_tokens(arch):
    model, cosines = tiny_model(arch), [[] for _ in range(4)]
    for batch in BATCHES:
        states, real = states_of(model, batch), batch["attention_mask"].bool().numpy()
        for i, (x, y) in enumerate(pairwise(states)):
            for a, b in zip(x[real], y[real], strict=True):
                cosines[i].append(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))
    assert block_influence(model, BATCHES) == pytest.approx([1 - np.mean(c) for c in cosines], abs=1e-6)


def test_a_layer_that_changes_nothing_has_no_influence():
    model = tiny_model("gpt2")
    with torch.no_grad():
        for name, p in layer_stack(model)[2].named_parameters():
            if "c_proj" in name:
                p.zero_()
    found = block_influence(model, BATCHES)
    assert found[2] == pytest.approx(0, abs=1e-6)
    assert min(found[:2] + found[3:]) > 1e-3
    assert least_influential(found, 1) == (0, 1, 3)


def test_the_lowest_are_dropped_and_the_higher_of_equal_ones():
    assert least_influential([0.5, 0.1, 0.4, 0.2], 2) == (0, 2)
    assert least_influential([0.5, 0.1, 0.1, 0.1], 2) == (0, 1)
    assert least_influential([0.5, 0.1], 0) == (0, 1)


def test_padding_has_no_effect():
    model = tiny_model("bert")
    row = {name: value[:1] for name, value in batch_of(1, 6, 3).items()}
    padded = {name: torch.cat([value, torch.zeros(1, 5, dtype=torch.long)], 1) for name, value in row.items()}
    assert block_influence(model, [padded]) == pytest.approx(block_influence(model, [row]), abs=1e-6)


# models without some of their layers


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_skipping_layers_equals_truncation(arch):
    model, batch = tiny_model(arch), BATCHES[0]
    layers = layer_stack(model)
    with torch.no_grad():
        whole = model(**batch).logits
        forms = output_formats(model, layers, batch)
        with skip_layers(layers, (0, 2), forms):
            cut = model(**batch).logits
        torch.testing.assert_close(cut, truncate_model(model, (1, 3))(**batch).logits)
        assert not torch.allclose(cut, whole, atol=1e-3)
        assert torch.equal(model(**batch).logits, whole)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_running_from_a_layer_equals_truncation(arch):
    model, batch, given = tiny_model(arch), BATCHES[0], []
    layers = layer_stack(model)
    with torch.no_grad():
        forms = output_formats(model, layers, batch)
        with skip_layers(layers, (1,), forms), observe_layers(layers, lambda x, _: given.append(x)):
            model(**batch)
        with run_from_layer(layers, 2, given[2], (1,), forms):
            cut = model(**batch).logits
        assert torch.equal(cut, truncate_model(model, (0, 3))(**batch).logits)


def test_an_error_inside_restores_the_model():
    model, batch = tiny_model("bert"), BATCHES[0]
    layers = layer_stack(model)
    with torch.no_grad():
        whole, forms = model(**batch).logits, output_formats(model, layers, batch)
        with pytest.raises(ZeroDivisionError), skip_layers(layers, (1,), forms):
            raise ZeroDivisionError
        assert torch.equal(model(**batch).logits, whole)


def test_non_finite_numbers_are_refused():
    model = tiny_model("bert")
    with torch.no_grad():
        next(layer_stack(model)[1].parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match="not a finite number"):
        block_influence(model, BATCHES)
