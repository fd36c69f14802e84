"""Truncated models are compared with the model without the dropped layers; what differs is refused in words."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    LongformerConfig,
    ModernBertConfig,
)

from demiglace.errors import ModelError
from demiglace.models.importance import droppable, least_influential
from demiglace.models.layer_ablation import check_observed, hidden_states_of
from demiglace.models.layer_stack import layer_stack
from demiglace.models.measured_layers import kinds_to_keep
from demiglace.models.truncate import check_fit, make_student, truncate_model
from demiglace.models.truncation_check import check_equal, misfit
from demiglace.notices import collected, collecting
from factories import tiny_model


def inverse_gpt2(scale: float = 0.3) -> torch.nn.Module:
    """A GPT-2 with weights of this scale that divides attention scores by the number of the layer."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=60, n_embd=32, n_layer=4, n_head=4, scale_attn_by_inverse_layer_idx=True, initializer_range=scale
    )
    return AutoModelForCausalLM.from_config(config).eval()


def modernbert() -> torch.nn.Module:
    config = ModernBertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48, pad_token_id=0
    )
    return AutoModelForSequenceClassification.from_config(config).eval()


def test_layers_that_use_their_number_keep_it_or_are_refused() -> None:
    model = inverse_gpt2()
    with pytest.raises(ModelError, match=r"layers 1,3 would not compute.*layer's number.*--strategy bottom"):
        truncate_model(model, (1, 3))
    with pytest.raises(ModelError, match="layers 0,2"):
        truncate_model(model, (0, 2))
    assert len(layer_stack(truncate_model(model, (0, 1)))) == 2
    for strategy in ("random", "embeddings"):  # new layers compute nothing that could change
        assert len(layer_stack(make_student(model, (1, 3), strategy, 0))) == 2


def test_the_small_scores_of_a_new_model_differ_too() -> None:
    with pytest.raises(ModelError, match="would not compute"):
        truncate_model(inverse_gpt2(0.02), (1, 3))


def test_a_changed_weight_is_a_difference() -> None:
    model = tiny_model("bert")
    student = truncate_model(model, (0, 2))
    check_equal(model, student, (0, 2))
    with torch.no_grad():
        layer_stack(student)[1].output.dense.weight.mul_(1.5)
    with pytest.raises(ModelError, match="would not compute"):
        check_equal(model, student, (0, 2))


def test_half_precision_and_training_mode_are_compared_too() -> None:
    model = tiny_model("llama").to(torch.bfloat16).train()
    assert truncate_model(model, (1, 2)).dtype == torch.bfloat16
    assert model.training


def test_a_classifier_without_a_padding_token_can_be_truncated() -> None:
    model = tiny_model("gpt2")
    model.config.pad_token_id = None
    assert len(layer_stack(truncate_model(model, (0, 2)))) == 2


def test_a_first_layer_that_differs_must_be_kept() -> None:
    with pytest.raises(ModelError, match=r"layer 2 would become, has no attn_norm.weight; .* --keep 0,1\b"):
        check_fit(modernbert(), (2, 3))
    assert check_fit(modernbert(), (0, 3)).device.type == "meta"


def test_rows_that_the_dropped_layers_pad_further_are_compared() -> None:
    config = LongformerConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=80,
        attention_window=[4, 8, 16, 32],
        pad_token_id=1,
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    assert truncate_model(model, (0, 2)).config.attention_window == [4, 16]


def test_measuring_strategies_keep_the_last_layer_of_a_kind() -> None:
    kinds = kinds_to_keep(modernbert())  # full attention in layers 0 and 3; no norm in layer 0
    assert [kinds.index(kind) for kind in kinds] == [0, 1, 1, 3]
    assert least_influential([0.0, 1.0, 2.0, 0.5], 1, kinds) == (0, 2, 3)
    assert least_influential([0.0, 1.0, 2.0, 0.5], 1) == (1, 2, 3)
    assert droppable([0, 1, 3], kinds) == [0, 1, 3]  # one of each kind: any may go


def test_misfits_are_named() -> None:
    weight = {"h.0.w": torch.zeros(2, 3)}
    assert misfit(weight, weight, "h", (1,)) == ""
    assert "has a w of shape [4] instead of [2, 3]" in misfit(weight, {"h.0.w": torch.zeros(4)}, "h", (1,))
    assert "which layer 1 would become, has no w" in misfit(weight, {}, "h", (1,))
    assert "has another weight, v" in misfit(weight, weight | {"h.0.v": torch.zeros(1)}, "h", (1,))
    assert "does not set the number of layers" in misfit(weight, weight | {"h.1.w": torch.zeros(1)}, "h", (1,))


def test_layers_without_hidden_states_are_named() -> None:
    states = torch.zeros(1)
    assert hidden_states_of(states) is states and hidden_states_of((states, None)) is states
    with pytest.raises(ModelError, match="return a dict instead of hidden states"):
        hidden_states_of({"feature_map": states})
    with pytest.raises(ModelError, match="does not call its layers"):
        check_observed(False)


def test_a_kind_of_which_no_layer_is_kept_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    make_student(modernbert(), (0, 1), "alternate", 0)
    assert "warning" not in capsys.readouterr().err
    with collecting():
        with pytest.raises(ModelError):
            make_student(modernbert(), (1, 2), "alternate", 0)
        kept = collected()
    assert [(n["kind"], n["layers"]) for n in kept] == [("lost kind of layer", 2)]
    assert "no full_attention layer is kept; such layers are 0,3" in " ".join(capsys.readouterr().err.split())
