"""Greedy layer removal: equal to trying every layer, with fewer operations."""

from itertools import combinations

import numpy as np
import pytest
import torch
from layer_kit import BATCHES, batch_of, language_model
from transformers import AutoModel, AutoModelForMaskedLM

from demiglace.errors import ModelError
from demiglace.models.greedy import LayerRemoval, ablation_loss, contenders, greedy
from demiglace.models.layer_ablation import output_formats, skip_layers
from demiglace.models.layer_stack import layer_stack
from demiglace.models.truncate import truncate_model
from factories import tiny_config, tiny_model


def next_token_loss(model):
    """Compute the loss token by token in float64."""
    losses = []
    for batch in BATCHES:
        with torch.no_grad():
            probabilities = model(**batch).logits.double().log_softmax(-1)
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            ids = batch["input_ids"][row]
            losses += [-probabilities[row, t, ids[t + 1]].item() for t in range(length - 1)]
    return float(np.mean(losses))


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_greedy_equals_trying_every_layer(arch):
    model = language_model(arch)
    gone, left = [], [0, 1, 2, 3]
    for _ in range(2):
        losses = {i: next_token_loss(truncate_model(model, [j for j in left if j != i])) for i in left}
        best = min(losses, key=losses.__getitem__)
        gone.append((best, losses[best]))
        left.remove(best)
    calls = []
    full, found = greedy(model, BATCHES, 2, ablation_loss(model), lambda: calls.append(1))
    assert [r.layer for r in found] == [layer for layer, _ in gone]
    assert [r.loss for r in found] == pytest.approx([loss for _, loss in gone], rel=1e-5)
    assert len(calls) == 2 * len(BATCHES)
    assert full == pytest.approx(next_token_loss(model), rel=1e-5)


def test_the_first_removed_layer_is_the_best_of_all():
    model = language_model("gpt2", seed=1)
    losses = [next_token_loss(truncate_model(model, keep)) for keep in combinations(range(4), 3)]
    (found,) = greedy(model, BATCHES, 1, ablation_loss(model))[1]
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
def test_every_model_type_has_its_loss(model, name, expected):
    measure = ablation_loss(model)
    assert measure.name.startswith(name)
    full, (found,) = greedy(model, BATCHES, 1, measure)
    assert full == pytest.approx(0, abs=1e-6)
    losses = [expected(model, truncate_model(model, [j for j in range(4) if j != i])) for i in range(4)]
    assert found.layer == int(np.argmin(losses))
    assert found.loss == pytest.approx(min(losses), rel=1e-4, abs=1e-7)


def test_left_padding_adds_no_loss():
    model = language_model("llama")
    row = {name: value[:1] for name, value in batch_of(1, 6, 3).items()}
    padded = {name: torch.cat([torch.zeros(1, 3, dtype=torch.long), value], 1) for name, value in row.items()}
    losses = [greedy(model, [batch], 1, ablation_loss(model)) for batch in (padded, row)]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4)
    assert losses[0][1][0].loss == pytest.approx(losses[1][1][0].loss, rel=1e-4)


def test_non_finite_numbers_are_refused():
    model = tiny_model("bert")
    with torch.no_grad():
        next(layer_stack(model)[1].parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match=r"KL of the classes .*not a finite number"):
        greedy(model, BATCHES, 1, ablation_loss(model))


# what it computes


class Operations:
    """Counts tokens times layers that run, while the test's monkeypatch is active."""

    def __init__(self, model, monkeypatch):
        self.count, kind = 0, type(layer_stack(model)[0])
        forward = kind.forward

        def counted(layer, *args, **kwargs):
            hidden = args[0] if args else kwargs["hidden_states"]
            self.count += hidden.shape[0] * hidden.shape[1]
            return forward(layer, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", counted)

    def of(self, run):
        before = self.count
        result = run()
        return result, self.count - before


@torch.no_grad()
def trying_everything(model, batches, count):
    """Remove layers one at a time; each try is a pass of all remaining layers over all batches."""
    layers, measure = layer_stack(model), ablation_loss(model)
    full = [measure.outputs(model, batch) for batch in batches]
    forms, gone = output_formats(model, layers, batches[0]), []
    for _ in range(count):
        losses = {}
        for i in sorted({*range(len(layers))} - {r.layer for r in gone}):
            with skip_layers(layers, (i, *(r.layer for r in gone)), forms):
                items = [measure.loss(f, measure.outputs(model, b)) for f, b in zip(full, batches, strict=True)]
            losses[i] = torch.cat(items).double().mean().item()
        best = min(losses, key=losses.__getitem__)
        gone.append(LayerRemoval(best, losses[best]))
    return gone


def joined(batches):
    """Return one batch of all rows, which have the same length."""
    return [{name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}]


def rows_of_batches(sizes, length, seed):
    return [batch_of(rows, length, 100 * seed + i) for i, rows in enumerate(sizes)]


def operations_of_trying_everything(layers, count):
    """Return the layers that run for each token: k tries of k − 1 layers while k layers remain."""
    return sum(k * (k - 1) for k in range(layers - count + 1, layers + 1))


@pytest.mark.parametrize("arch", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("seed", range(3))
def test_selection_equals_that_of_trying_everything(arch, seed, monkeypatch):
    model = tiny_model(arch, 8, seed=seed) if arch == "bert" else language_model(arch, seed, 8)
    batches, operations = rows_of_batches((4, 4, 4, 6, 14), 12, seed), Operations(model, monkeypatch)
    expected, before = operations.of(lambda: trying_everything(model, joined(batches), 4))
    (_, found), now = operations.of(lambda: greedy(model, batches, 4, ablation_loss(model)))
    assert [r.layer for r in found] == [r.layer for r in expected]
    assert [r.loss for r in found] == pytest.approx([r.loss for r in expected], rel=1e-4)
    assert before > 32 * 12 * operations_of_trying_everything(8, 4)
    assert now < 0.75 * before  # where no layer is ruled out early, the layers before each tried one are saved


def test_half_of_twenty_layers_are_found_with_a_quarter_of_the_operations(monkeypatch):
    model = tiny_model("gpt2", 20, hidden=16)
    with torch.no_grad():  # layers that matter more or less
        for layer, factor in zip(layer_stack(model), np.random.default_rng(0).permutation(20), strict=True):
            layer.attn.c_proj.weight.mul_(1.35**factor / 4)
            layer.mlp.c_proj.weight.mul_(1.35**factor / 4)
    batches, operations = rows_of_batches((8, 16, 40, 128), 6, 0), Operations(model, monkeypatch)
    _, expected = greedy(model, joined(batches), 10, ablation_loss(model), error=0)
    (_, found), now = operations.of(lambda: greedy(model, batches, 10, ablation_loss(model)))
    assert [r.layer for r in found] == [r.layer for r in expected]
    assert [r.loss for r in found] == pytest.approx([r.loss for r in expected], rel=1e-4)
    assert now <= 192 * 6 * operations_of_trying_everything(20, 10) / 4


def test_a_layer_is_ruled_out_only_with_enough_rows():
    noise = np.random.default_rng(0).normal(size=8)
    noise -= noise.mean()
    clear, unclear, best = 2 + 0.1 * noise, 0.1 + noise, np.zeros(8)
    assert contenders({0: clear, 1: best, 2: unclear}, 32) == [1, 2]
    assert contenders({0: clear, 1: best, 2: unclear}, 32, error=0) == [0, 1, 2]
    assert contenders({0: clear[:3], 1: best[:3]}, 32) == [0, 1]
    assert contenders({0: best, 1: best, 2: clear}, 32) == [0, 1]  # equals both stay
    assert contenders({0: unclear, 1: best}, 8) == [1]  # all rows are seen: no chance is left


def test_an_equally_good_layer_is_ruled_out_at_the_given_error_rate():
    draw, out = np.random.default_rng(0), 0
    for _ in range(4000):
        out += len(contenders({0: draw.normal(size=8), 1: draw.normal(size=8)}, 10_000, error=0.05)) < 2
    assert 0.08 < out / 4000 < 0.12  # one-sided, and either may be the best so far
