"""Queries, keys and values: equal to the attention maps of transformers, for all architectures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForSequenceClassification,
    PreTrainedModel,
)

from demiglace.data.batching import Batch, collate
from demiglace.errors import ModelError
from demiglace.losses.attention import attention_mask_2d, scores
from demiglace.models.attention import INPUTS, attention_hooks
from demiglace.models.layer_stack import layer_stack
from demiglace.models.shape import ModelShape
from demiglace.signals.capture import capture
from demiglace.signals.request import Signals, attention_request, hidden_request
from factories import ARCHITECTURES, DECODERS, tiny_model
from training_kit import random_examples

LAYERS = (1, 4)
PLAIN = ("bert", "roberta", "distilbert", "electra", "gpt2")  # nothing but Q, K and V goes into their attention


def batch_for(arch: str) -> Batch:
    batch = collate(random_examples(6), np.arange(6))
    return batch if arch in ("bert", "electra", "deberta-v2") else replace(batch, token_type_ids=None)


def captured_signals(model: PreTrainedModel, batch: Batch) -> Signals:
    return capture(model, batch, attention_request(INPUTS, LAYERS))


@pytest.mark.parametrize("arch", PLAIN)
def test_softmax_of_scores_equals_the_models_attention(arch: str) -> None:
    batch, model = batch_for(arch), tiny_model(arch)
    shape = ModelShape.of(model)
    assert shape.causal == (arch in DECODERS)
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        found = captured_signals(model, batch)
        model.set_attn_implementation("eager")
        expected = model(**batch.inputs, output_attentions=True).attentions
    visible = attention_mask_2d(batch.attention_mask, shape.causal)[:, None]
    for layer in LAYERS:
        score = scores(found.attention["query", layer], found.attention["key", layer], shape.num_heads)
        own = score.masked_fill(~visible, -torch.inf).softmax(-1)
        real = visible.any(-1).expand(-1, shape.num_heads, -1)
        torch.testing.assert_close(own[real], expected[layer - 1][real], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_inputs_of_every_architecture_have_gradients(arch: str) -> None:
    batch, model = batch_for(arch), tiny_model(arch)
    found = captured_signals(model, batch)
    assert set(found.attention) == {(kind, layer) for kind in INPUTS for layer in LAYERS}
    shape = ModelShape.of(model)
    assert all(x.shape == (*batch.input_ids.shape, shape.attention_size) for x in found.attention.values())
    assert torch.equal(found.mask, batch.attention_mask)
    found.attention["query", 4].sum().backward()
    assert all(p.grad is not None for p in layer_stack(model)[2].parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_shared_keys_and_values_are_repeated_for_the_heads_that_use_them() -> None:
    """Llama's tiny model has 4 heads and 2 groups: heads 0 and 1 use the first, 2 and 3 the second."""
    batch, model = batch_for("llama"), tiny_model("llama")
    block = layer_stack(model)[0]
    grouped = []
    handle = block.self_attn.v_proj.register_forward_hook(lambda m, a, output: grouped.append(output))
    found = captured_signals(model, batch).attention["value", 1].unflatten(-1, (4, 8))
    handle.remove()
    groups = grouped[0].unflatten(-1, (2, 8))
    for head, group in enumerate((0, 0, 1, 1)):
        torch.testing.assert_close(found[:, :, head], groups[:, :, group])


def test_deberta_inputs_are_content_without_positions() -> None:
    batch, model = batch_for("deberta-v2"), tiny_model("deberta-v2")
    found = capture(model, batch, attention_request(INPUTS, [2]) | hidden_request("tokens", [1]))
    maps = layer_stack(model)[1].attention.self
    for kind, projection in zip(INPUTS, (maps.query_proj, maps.key_proj, maps.value_proj), strict=True):
        torch.testing.assert_close(found.attention[kind, 2], projection(found.states["tokens", 1]))


def test_values_of_gpt2_are_the_last_third() -> None:
    model, batch = tiny_model("gpt2"), batch_for("gpt2")
    whole = []
    handle = layer_stack(model)[0].attn.c_attn.register_forward_hook(lambda m, a, output: whole.append(output))
    found = captured_signals(model, batch)
    handle.remove()
    query, key, value = whole[0].split(32, dim=-1)
    for kind, part in zip(INPUTS, (query, key, value), strict=True):
        torch.testing.assert_close(found.attention[kind, 1], part)


def test_error_for_unknown_architectures_names_other_methods() -> None:
    config = GPTNeoXConfig(
        vocab_size=50, hidden_size=16, num_attention_heads=2, intermediate_size=16, num_hidden_layers=2, pad_token_id=0
    )
    model = GPTNeoXForSequenceClassification(config)
    assert ModelShape.of(model).attention_size == 0
    with pytest.raises(ModelError, match=r"GPTNeoXForSequenceClassification .* method that needs no attention"):
        attention_hooks(model, [1])


def test_shared_layers_have_a_shape() -> None:
    config = AlbertConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=16,
        num_hidden_layers=2,
    )
    assert ModelShape.of(AlbertForSequenceClassification(config)).attention_size == 0
