"""Which layers matter: block influence against plain NumPy, greedy removal against trying everything."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from demiglace.errors import ModelError
from demiglace.models.bypass import bypassed, layer_forms
from demiglace.models.importance import (
    block_influence,
    greedy,
    least_influential,
    measure_of,
    whole_loss,
)
from demiglace.models.stack import layer_stack
from demiglace.models.truncate import truncate_model
from factories import ARCHITECTURES, tiny_config, tiny_model


def batch_of(rows, length, seed, left=False):
    """Random tokens; every second row is padded by two."""
    ids = torch.randint(5, 60, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[1::2, slice(0, 2) if left else slice(-2, None)] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


BATCHES = [batch_of(4, 9, 0), batch_of(3, 6, 1)]


def language_model(arch, seed=0, layers=4):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(arch, layers)).eval()
    with torch.no_grad():  # so that layers differ in what they do
        for i, layer in enumerate(layer_stack(model)):
            for p in layer.parameters():
                if p.dim() > 1:
                    p.mul_(0.2 + (3 * i % 4))
    return model


def states_of(model, batch):
    """Hidden states before and after each layer, none of them normed after the last, in float64."""
    seen = []
    handles = [layer.register_forward_hook(lambda *args: seen.append(args[2])) for layer in layer_stack(model)]
    with torch.no_grad():
        told = model(**batch, output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    last = seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]
    return [h.double().numpy() for h in (*told[:-1], last)]


# block influence


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_block_influence_is_its_formula_over_the_real_tokens(arch):
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


def test_the_lowest_are_dropped_and_of_equals_the_higher():
    assert least_influential([0.5, 0.1, 0.4, 0.2], 2) == (0, 2)
    assert least_influential([0.5, 0.1, 0.1, 0.1], 2) == (0, 1)
    assert least_influential([0.5, 0.1], 0) == (0, 1)


def test_padding_does_not_count():
    model = tiny_model("bert")
    row = {name: value[:1] for name, value in batch_of(1, 6, 3).items()}
    padded = {name: torch.cat([value, torch.zeros(1, 5, dtype=torch.long)], 1) for name, value in row.items()}
    assert block_influence(model, [padded]) == pytest.approx(block_influence(model, [row]), abs=1e-6)


# models without some of their layers


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_bypassed_model_is_the_truncated_one(arch):
    model, batch = tiny_model(arch), BATCHES[0]
    layers = layer_stack(model)
    with torch.no_grad():
        whole = model(**batch).logits
        forms = layer_forms(model, layers, batch)
        with bypassed(layers, (0, 2), forms):
            cut = model(**batch).logits
        torch.testing.assert_close(cut, truncate_model(model, (1, 3))(**batch).logits)
        assert not torch.allclose(cut, whole, atol=1e-3)
        assert torch.equal(model(**batch).logits, whole)


def test_an_error_inside_leaves_the_model_whole():
    model, batch = tiny_model("bert"), BATCHES[0]
    layers = layer_stack(model)
    with torch.no_grad():
        whole, forms = model(**batch).logits, layer_forms(model, layers, batch)
        with pytest.raises(ZeroDivisionError), bypassed(layers, (1,), forms):
            raise ZeroDivisionError
        assert torch.equal(model(**batch).logits, whole)


# greedy


def next_token_loss(model):
    """Plainly, token by token, in float64."""
    losses = []
    for batch in BATCHES:
        with torch.no_grad():
            probabilities = model(**batch).logits.double().log_softmax(-1)
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            ids = batch["input_ids"][row]
            losses += [-probabilities[row, t, ids[t + 1]].item() for t in range(length - 1)]
    return float(np.mean(losses))


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_greedy_is_what_trying_every_layer_finds(arch):
    model = language_model(arch)
    gone, left = [], [0, 1, 2, 3]
    for _ in range(2):
        losses = {i: next_token_loss(truncate_model(model, [j for j in left if j != i])) for i in left}
        best = min(losses, key=losses.__getitem__)
        gone.append((best, losses[best]))
        left.remove(best)
    calls = []
    found = greedy(model, BATCHES, 2, measure_of(model), lambda: calls.append(1))
    assert [r.layer for r in found] == [layer for layer, _ in gone]
    assert [r.loss for r in found] == pytest.approx([loss for _, loss in gone], rel=1e-5)
    assert len(calls) == 4 + 3
    assert whole_loss(model, BATCHES, measure_of(model)) == pytest.approx(next_token_loss(model), rel=1e-5)


def test_the_first_layer_to_go_is_the_best_one_of_all():
    model = language_model("gpt2", seed=1)
    losses = [next_token_loss(truncate_model(model, keep)) for keep in combinations(range(4), 3)]
    (found,) = greedy(model, BATCHES, 1, measure_of(model))
    assert found.loss == pytest.approx(min(losses), rel=1e-5)
    assert found.loss < max(losses) - 1e-3  # there was something to choose


def expected_kl(model, cut):
    values = []
    for batch in BATCHES:
        with torch.no_grad():
            p, q = (m(**batch).logits.double().softmax(-1).numpy() for m in (model, cut))
        values += (p * np.log(p / q)).sum(-1).tolist()
    return np.mean(values)


def expected_square(model, cut):
    with torch.no_grad():
        return np.mean(
            [((a - b) ** 2).item() for x in BATCHES for a, b in zip(model(**x).logits, cut(**x).logits, strict=True)]
        )


def expected_turn(model, cut):
    values = []
    for batch in BATCHES:
        with torch.no_grad():
            a, b = (m.base_model(**batch).last_hidden_state.double().numpy() for m in (model, cut))
        real = batch["attention_mask"].bool().numpy()
        values += [1 - x @ y / np.sqrt(x @ x * (y @ y)) for x, y in zip(a[real], b[real], strict=True)]
    return np.mean(values)


@pytest.mark.parametrize(
    ("model", "name", "expected"),
    [
        pytest.param(tiny_model("bert"), "KL of the classes", expected_kl, id="classifier"),
        pytest.param(tiny_model("deberta-v2"), "KL of the classes", expected_kl, id="deberta"),
        pytest.param(tiny_model("gpt2"), "KL of the classes", expected_kl, id="decoder"),
        pytest.param(tiny_model("bert", num_labels=1), "squared difference", expected_square, id="regressor"),
        pytest.param(AutoModel.from_config(tiny_config("roberta")).eval(), "1 − cos", expected_turn, id="bare encoder"),
        pytest.param(AutoModel.from_config(tiny_config("llama")).eval(), "1 − cos", expected_turn, id="bare decoder"),
        pytest.param(
            AutoModelForMaskedLM.from_config(tiny_config("bert")).eval(), "1 − cos", expected_turn, id="masked"
        ),
    ],
)
def test_every_kind_of_model_has_its_loss(model, name, expected):
    measure = measure_of(model)
    assert measure.name.startswith(name)
    assert whole_loss(model, BATCHES, measure) == pytest.approx(0, abs=1e-6)
    (found,) = greedy(model, BATCHES, 1, measure)
    losses = [expected(model, truncate_model(model, [j for j in range(4) if j != i])) for i in range(4)]
    assert found.layer == int(np.argmin(losses))
    assert found.loss == pytest.approx(min(losses), rel=1e-4, abs=1e-7)


def test_padding_on_the_left_gives_no_loss_of_its_own():
    model = language_model("llama")
    row = {name: value[:1] for name, value in batch_of(1, 6, 3).items()}
    padded = {name: torch.cat([torch.zeros(1, 3, dtype=torch.long), value], 1) for name, value in row.items()}
    measure = measure_of(model)
    assert whole_loss(model, [padded], measure) == pytest.approx(whole_loss(model, [row], measure), rel=1e-4)


def test_numbers_that_are_none_are_refused():
    model = tiny_model("bert")
    with torch.no_grad():
        next(layer_stack(model)[1].parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match="no finite number"):
        block_influence(model, BATCHES)
    with pytest.raises(ModelError, match=r"KL of the classes .*no finite number"):
        greedy(model, BATCHES, 1, measure_of(model))
