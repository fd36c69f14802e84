"""Captured signals: equal to the outputs of transformers, for all tested architectures."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, LongformerConfig, SqueezeBertConfig, XLNetConfig

from demiglace.data.batching import Batch, collate
from demiglace.errors import ModelError
from demiglace.models.layer_stack import layer_stack
from demiglace.models.pooling import pool
from demiglace.signals.capture import capture
from demiglace.signals.online import OnlineTeacher
from demiglace.signals.request import SignalRequest, hidden_request
from factories import ARCHITECTURES, tiny_model
from training_kit import random_examples

EVERYTHING = SignalRequest(logits=True) | hidden_request("mean", range(5)) | hidden_request("last", [4])


def batch_for(arch: str) -> Batch:
    batch = collate(random_examples(6), np.arange(6))
    keep = arch in ("bert", "electra", "deberta-v2")
    return batch if keep else Batch(**{**vars(batch), "token_type_ids": None})


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_equals_transformers_outputs(arch: str) -> None:
    model, batch = tiny_model(arch, num_layers=4), batch_for(arch)
    with torch.no_grad():
        found = capture(model, batch, EVERYTHING)
        expected = model(**batch.inputs, output_hidden_states=True)
    torch.testing.assert_close(found.logits, expected.logits)
    for layer in range(4):  # transformers' last hidden state has the final norm of decoders in it; ours has not
        mean = pool(expected.hidden_states[layer], batch.attention_mask, "mean")
        torch.testing.assert_close(found.states["mean", layer], mean)
    assert found.states["last", 4].shape == (6, 32)
    assert found.hidden("mean", [3, 1]).shape == (6, 2, 32)
    torch.testing.assert_close(found.hidden("mean", [3, 1])[:, 1], found.states["mean", 1])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_gradients_flow_and_hooks_are_removed(arch: str) -> None:
    model, batch = tiny_model(arch, num_layers=4), batch_for(arch)
    found = capture(model, batch, hidden_request("mean", [2]))
    assert found.logits is None
    found.states["mean", 2].sum().backward()
    stack = layer_stack(model)
    assert any(p.grad is not None for p in stack[1].parameters())
    assert all(p.grad is None for p in stack[2].parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in stack)


def test_hooks_are_removed_if_the_forward_pass_fails() -> None:
    model, batch = tiny_model("bert"), batch_for("bert")
    broken = Batch(**{**vars(batch), "input_ids": batch.input_ids + 10_000})
    with pytest.raises(IndexError):
        capture(model, broken, EVERYTHING)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in layer_stack(model))


def test_online_teacher_is_frozen_and_in_eval_mode() -> None:
    model = tiny_model("bert").train()
    signals = OnlineTeacher(model, EVERYTHING, "fp32").fetch(batch_for("bert"))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert signals.logits is not None
    assert not signals.logits.requires_grad


SIZES = {"vocab_size": 200, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def test_states_that_longformer_pads_have_the_batchs_tokens() -> None:
    config = LongformerConfig(
        **SIZES, hidden_size=16, attention_window=[64, 64], max_position_embeddings=128, pad_token_id=0
    )
    model, batch = AutoModelForSequenceClassification.from_config(config).eval(), batch_for("longformer")
    found = capture(model, batch, hidden_request("tokens", [0, 2]))
    assert found.hidden("tokens", [0, 2]).shape == (6, 2, batch.input_ids.shape[1], 16)


def test_layers_with_other_dimensions_are_refused_by_their_shape() -> None:
    config = XLNetConfig(vocab_size=200, d_model=16, n_layer=2, n_head=2, d_inner=16)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with pytest.raises(ModelError, match=r"states of shape .* for a batch of .*\[batch, tokens, width\]"):
        capture(model, batch_for("xlnet"), hidden_request("mean", [1]))


def test_layers_that_hooks_do_not_observe_are_refused() -> None:
    config = SqueezeBertConfig(
        **SIZES,
        hidden_size=16,
        embedding_size=16,
        **dict.fromkeys(("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups"), 1),
        output_groups=1,
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with pytest.raises(ModelError, match="does not call its layers as modules"):
        capture(model, batch_for("squeezebert"), hidden_request("mean", [1]))
