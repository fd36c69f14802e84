"""Importance of units: the derivative of the log-likelihood by a mask, for every kind of model."""

import pytest
import torch
from layer_kit import BATCHES, batch_of
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForTokenClassification

from demiglace.data.tokenize import TokenizedSplit
from demiglace.models.layer_stack import layer_stack
from demiglace.models.loading import load_sentence_encoder
from demiglace.models.narrow_student import student_units
from demiglace.models.truncate import make_student
from demiglace.models.width import SIZES
from demiglace.models.width_importance import importance_on_rows, measure_importance
from demiglace.notices import collected, collecting
from factories import save_sentence_encoder, tiny_config, tiny_model


def several_labels():
    model = tiny_model("bert", 2)
    model.config.problem_type = "multi_label_classification"
    return model


KINDS = {
    "classes": lambda: tiny_model("bert", 2),
    "labels": several_labels,
    "numbers": lambda: tiny_model("bert", 2, num_labels=1),
    "words": lambda: AutoModelForTokenClassification.from_config(tiny_config("bert", 2)),
    "masked tokens": lambda: AutoModelForMaskedLM.from_config(tiny_config("electra", 2)),
    "hidden states": lambda: AutoModel.from_config(tiny_config("distilbert", 2)),
    "next tokens": lambda: AutoModelForCausalLM.from_config(tiny_config("llama", 2)),
    "next tokens of rows of states": lambda: AutoModelForCausalLM.from_config(tiny_config("gpt2", 2)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_measured(kind):
    torch.manual_seed(0)
    model = KINDS[kind]().train()
    before = [p.requires_grad for p in model.parameters()]
    scores = measure_importance(model, BATCHES, SIZES)
    heads = 2 if kind == "next tokens" else 4
    feed_forward = 128 if "rows" in kind else 64
    shapes = {"intermediate_size": (2, feed_forward), "num_attention_heads": (2, heads), "hidden_size": (1, 32)}
    assert {name: tuple(score.shape) for name, score in scores.items()} == shapes
    assert all((score > 0).any(1).all() for score in scores.values())
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == before
    again = measure_importance(model, BATCHES, SIZES)
    assert all(torch.equal(again[name], scores[name]) for name in SIZES)


def test_a_sentence_encoder_is_measured(tmp_path):
    model = load_sentence_encoder(save_sentence_encoder(tmp_path, num_layers=2))
    assert measure_importance(model, BATCHES, ("intermediate_size",))["intermediate_size"].shape == (2, 64)


def test_the_derivative_by_a_mask_is_that_by_the_weights():
    """Of one row, Σ a·∂/∂a of a unit is Σ w·∂/∂w of the weights that read it."""
    model, batch = AutoModelForCausalLM.from_config(tiny_config("llama", 2)).eval(), batch_of(1, 9, 0)
    labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"], -100)
    (model(**batch, labels=labels).loss * 8).backward()
    scores = measure_importance(model, [batch], ("intermediate_size", "num_attention_heads"))
    for i, layer in enumerate(layer_stack(model)):
        for size, module in (
            ("intermediate_size", layer.mlp.down_proj),
            ("num_attention_heads", layer.self_attn.o_proj),
        ):
            of_inputs = (module.weight * module.weight.grad).sum(0).double()
            expected = of_inputs.unflatten(0, (scores[size].shape[1], -1)).sum(1).square()
            torch.testing.assert_close(scores[size][i], expected, rtol=1e-4, atol=1e-12)


def test_units_that_nothing_reads_are_removed():
    """The largest weights lead into units whose outputs are multiplied with zero."""
    model = tiny_model("bert", 4)
    with torch.no_grad():
        for i, layer in enumerate(layer_stack(model)):
            layer.intermediate.dense.weight[i] = 5.0
            layer.output.dense.weight[:, i] = 0
    ids = torch.cat([b["input_ids"].flatten() for b in BATCHES]).numpy()
    rows = TokenizedSplit(
        ids=ids,
        offsets=torch.arange(0, len(ids) + 1, 9).numpy(),
        type_ids=None,
        labels=ids[:6] * 0,
        pad_id=0,
        pad_left=False,
    )
    student = make_student(model, (0, 2), "alternate", 0)
    units = student_units(model, student, (0, 2), {"intermediate_size": 63}, rows)
    assert units == {"intermediate_size": [[i for i in range(64) if i != j] for j in (0, 2)]}
    with collecting():
        by_magnitude = student_units(model, student, (0, 2), {"intermediate_size": 63}, None)
        assert [notice["kind"] for notice in collected()] == ["units without text"]
    assert by_magnitude != units


def test_half_precision_is_measured_in_single():
    model, ids = tiny_model("bert", 2), torch.arange(5, 23).numpy()
    rows = TokenizedSplit(
        ids=ids, offsets=torch.tensor([0, 9, 18]).numpy(), type_ids=None, labels=ids[:2] * 0, pad_id=0, pad_left=False
    )
    expected = importance_on_rows(model, rows, ("hidden_size",))
    half = tiny_model("bert", 2).to(torch.bfloat16)
    scores = importance_on_rows(half, rows, ("hidden_size",))
    assert half.dtype == torch.bfloat16
    assert (scores["hidden_size"] / expected["hidden_size"]).log().abs().median() < 0.5
