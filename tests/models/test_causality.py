"""Causal attention is detected by behaviour: module names do not distinguish EuroBERT from Llama."""

import pytest
import torch
from transformers import (
    AutoModel,
    BloomConfig,
    EuroBertConfig,
    GPTNeoXConfig,
    ModernBertConfig,
    NomicBertConfig,
    PreTrainedConfig,
)

from demiglace.models.causality import is_causal
from demiglace.models.shape import ModelShape
from factories import ARCHITECTURES, DECODERS, tiny_model

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "pad_token_id": 0,
}
OTHERS = [
    (EuroBertConfig(**SIZES, num_key_value_heads=4), False),
    (NomicBertConfig(**SIZES), False),
    (ModernBertConfig(**SIZES), False),
    (GPTNeoXConfig(**SIZES), True),
    (BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4), True),
]
others = pytest.mark.parametrize(("config", "expected"), OTHERS, ids=lambda v: getattr(v, "model_type", None))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture(arch: str) -> None:
    assert ModelShape.of(tiny_model(arch)).causal == (arch in DECODERS)


@others
def test_with_and_without_weights(config: PreTrainedConfig, expected: bool) -> None:
    torch.manual_seed(0)
    assert is_causal(AutoModel.from_config(config)) == expected
    with torch.device("meta"):
        without_weights = AutoModel.from_config(config)
    assert is_causal(without_weights) == expected


def test_pythia_is_causal_although_its_queries_are_not_found() -> None:
    shape = ModelShape.of(AutoModel.from_config(GPTNeoXConfig(**SIZES)))
    assert (shape.attention_size, shape.causal) == (0, True)


def test_only_the_first_layer_runs_and_the_model_is_unchanged() -> None:
    model = tiny_model("gpt2").train()
    model.transformer.h[1].eval()
    called: list[int] = []
    for i, block in enumerate(model.transformer.h):
        block.register_forward_pre_hook(lambda *_, i=i: called.append(i))
    state = torch.get_rng_state()
    assert is_causal(model)
    assert called == [0]
    assert model.training and not model.transformer.h[1].training
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(block._forward_hooks for block in model.transformer.h)
