"""Sizes and floating-point operations of models, and their stack of layers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, BartConfig, BartModel, MambaConfig, MixtralConfig

from demiglace.errors import ModelError
from demiglace.models.layer_stack import layer_stack
from demiglace.models.shape import ModelShape, forward_flops
from factories import ARCHITECTURES, MAX_LENGTH, VOCABULARY, tiny_config, tiny_model


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_shape_of_every_architecture(arch):
    model = tiny_model(arch, num_layers=2, num_labels=5)
    shape = ModelShape.of(model)
    assert (shape.architecture, shape.num_layers, shape.hidden_size) == (type(model).__name__, 2, 32)
    assert (shape.num_heads, shape.vocab_size, shape.num_labels) == (4, len(VOCABULARY), 5)
    assert shape.max_positions == MAX_LENGTH
    assert shape.parameters == model.num_parameters()
    assert 0 < shape.embedding_parameters < shape.parameters


def test_max_positions_is_the_longest_accepted_row():
    """RoBERTa's position table has more rows than a text can have tokens."""
    model = tiny_model("roberta", num_layers=1)
    longest = ModelShape.of(model).max_positions
    assert longest < model.config.max_position_embeddings
    with torch.inference_mode():
        model(input_ids=torch.full((1, longest), 10))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, longest + 1), 10))


def test_a_bare_encoder_has_no_labels():
    assert ModelShape.of(AutoModel.from_config(tiny_config("bert"))).num_labels == 0


@pytest.mark.parametrize("arch", ["bert", "distilbert", "gpt2"])
def test_flops_equal_the_counted_operations(arch):
    model = tiny_model(arch, num_layers=3, hidden=64)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(input_ids=torch.full((1, 128), 10), attention_mask=torch.ones(1, 128))
    # biases and norms are in the formula's P; the pooler and head run on one token and not on all
    assert forward_flops(ModelShape.of(model), 128) == pytest.approx(counter.get_total_flops(), rel=0.06)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_layer_stack_is_in_order(arch):
    model = tiny_model(arch, num_layers=3)
    called = []
    for i, layer in enumerate(layer_stack(model)):
        layer.register_forward_hook(lambda *_, i=i: called.append(i))
    model(input_ids=torch.full((1, 4), 10))
    assert called == [0, 1, 2]


def test_experts_inside_layers_are_not_the_stack():
    config = MixtralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    model = AutoModel.from_config(config)
    assert layer_stack(model) is model.layers


def test_encoder_decoder_models_are_refused():
    config = BartConfig(
        vocab_size=50,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
    )
    with pytest.raises(ModelError, match=r"BartModel.*encoder\.layers, decoder\.layers"):
        layer_stack(BartModel(config))


def test_a_model_without_attention_has_no_heads_and_is_causal():
    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4)
    shape = ModelShape.of(AutoModel.from_config(config))
    assert (shape.num_layers, shape.num_heads, shape.attention_size, shape.causal) == (2, 0, 0, True)
    assert forward_flops(shape, 200) == 2 * forward_flops(shape, 100)  # no products of pairs of tokens


def test_a_config_without_a_size_is_refused_by_name():
    model = tiny_model("bert")
    object.__setattr__(model.config, "vocab_size", None)
    with pytest.raises(ModelError, match="bert model has no vocab_size"):
        ModelShape.of(model)
