"""Language models: the input of their heads, new models of any size, and errors."""

from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2LMHeadModel, PreTrainedModel

from demiglace.errors import ConfigError, ModelError
from demiglace.models.language_model import (
    check_head,
    head_input,
    head_of,
    is_masked,
    load_language_model,
    new_language_config,
    new_language_model,
)
from demiglace.models.loading import save_model
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import truncate_model
from factories import save_tiny, tiny_config, tiny_model, tiny_tokenizer
from text_kit import byte_tokenizer, save_lm, tiny_lm

ARCHITECTURES = ("gpt2", "llama", "bert", "roberta", "distilbert")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_head_of_its_input_gives_the_logits(arch: str) -> None:
    model, ids = tiny_lm(arch, 50), torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    logits = model(input_ids=ids).logits
    with head_input(model) as found:
        empty = model(input_ids=ids).logits
    output = found[0]
    bias = 0 if output.bias is None else output.bias
    torch.testing.assert_close(output.hidden @ output.weight.T + bias, logits)
    assert empty.shape[1] == 0 and model(input_ids=ids).logits.shape == logits.shape
    places = torch.tensor([[1, 5], [0, 6]])
    torch.testing.assert_close(output.at(places).hidden, output.hidden[torch.arange(2)[:, None], places].flatten(0, 1))
    torch.testing.assert_close(output.at(None).hidden, output.hidden.flatten(0, 1))


def test_a_classifier_has_no_language_model_head() -> None:
    assert head_of(tiny_model("gpt2")) is None


@pytest.mark.parametrize("arch", ["gpt2", "llama", "bert", "distilbert"])
def test_new_models_in_any_size(arch: str) -> None:
    tokenizer = byte_tokenizer(mask=True)
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    config = new_language_config(arch, tokenizer, sizes, positions=700, dropout=0.0)

    def made(seed: int) -> dict[str, torch.Tensor]:
        model = new_language_model(config, arch, seed=seed)
        assert model.config.num_hidden_layers == 3 and model.config.hidden_size == 48
        assert model.config.vocab_size == len(tokenizer) and model.config.max_position_embeddings >= 700
        assert is_masked(model.config) == (arch in ("bert", "distilbert"))
        return dict(model.state_dict())

    one, same, other = made(1), made(1), made(2)
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("arch", ["gpt2", "llama", "mistral", "qwen2", "bert", "distilbert"])
def test_end_of_text_used_as_padding_is_trained(arch: str, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(tmp_path, mask=True)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 0
    config = new_language_config(arch, tokenizer, {"hidden_size": 16, "num_hidden_layers": 1}, positions=8)
    model = new_language_model(config, arch)
    assert config.pad_token_id is None
    assert moved(model, 0)
    model.config.pad_token_id = 0  # as models have it that were made elsewhere
    save_model(model, tmp_path)
    loaded = load_language_model(str(tmp_path))
    assert moved(loaded, 0) and moved(truncate_model(loaded, (0,)), 0)


def moved(model: PreTrainedModel, token: int) -> bool:
    """Return whether the token has an embedding that is trained."""
    table = model.get_input_embeddings()
    ids = torch.tensor([[token, 5, token, 7]])
    model(input_ids=ids, labels=ids).loss.backward()
    return bool(table.weight[token].any()) and bool(table.weight.grad[token].any())


@pytest.mark.parametrize("arch", ["roberta", "bert"])
def test_a_dedicated_padding_token_is_not_trained(arch: str) -> None:
    tokenizer = byte_tokenizer(mask=True)
    tokenizer.pad_token = "!"
    pad = tokenizer.pad_token_id
    config = new_language_config(arch, tokenizer, {"hidden_size": 16, "num_hidden_layers": 1}, positions=700)
    model = new_language_model(config, arch)
    assert config.pad_token_id == pad and not model.get_input_embeddings().weight[pad].any()
    assert config.max_position_embeddings == 700 + (pad + 1 if arch == "roberta" else 0)
    assert ModelShape.of(model).max_positions == 700
    model(input_ids=torch.zeros(1, 700, dtype=torch.long))


def test_end_of_text_as_padding_is_refused_for_roberta_positions() -> None:
    with pytest.raises(
        ModelError, match=r"--architecture roberta numbers positions from the padding.*train --mask-token"
    ):
        new_language_config("roberta", byte_tokenizer(mask=True), {"hidden_size": 16}, positions=16)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
def test_only_the_number_of_layers_can_be_set(arch: str) -> None:
    config = new_language_config(arch, byte_tokenizer(), {"num_hidden_layers": 2}, positions=16)
    assert config.num_hidden_layers == 2
    config = new_language_config(arch, byte_tokenizer(), {"hidden_size": 48, "num_attention_heads": 4}, positions=16)
    assert (getattr(config, "head_dim", 12), config.num_key_value_heads) == (12, 4)


def test_hidden_size_alone_sets_heads_and_intermediate_size() -> None:
    config = new_language_config("llama", byte_tokenizer(), {"hidden_size": 192}, positions=16)
    assert (config.num_attention_heads, config.intermediate_size) == (3, 768)
    with pytest.raises(ConfigError, match=r"--hidden-size 100 cannot be divided into 3 heads"):
        new_language_config("gpt2", byte_tokenizer(), {"hidden_size": 100, "num_attention_heads": 3}, positions=16)


def test_config_of_a_model_directory(tmp_path: Path) -> None:
    lm = str(save_lm(tmp_path / "lm"))
    config = new_language_config(lm, byte_tokenizer(), {"num_hidden_layers": 2}, positions=16)
    assert (config.hidden_size, config.num_hidden_layers) == (32, 2)


def test_checkpoints_of_all_kinds_become_language_models(tmp_path: Path) -> None:
    saved = save_lm(tmp_path / "lm")
    loaded, original = load_language_model(str(saved)), tiny_lm("gpt2", len(byte_tokenizer()), 4)
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(loaded(input_ids=ids).logits, original(input_ids=ids).logits)
    classifier = save_tiny(tmp_path / "classifier", "gpt2")
    assert isinstance(load_language_model(str(classifier)), GPT2LMHeadModel)


def test_an_encoder_gets_a_new_head_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = save_tiny(tmp_path / "encoder", "bert")
    one, same = (load_language_model(str(encoder), seed=4) for _ in range(2))
    assert "has no masked-language-model head; a new one was initialized" in capsys.readouterr().err
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    save_model(one, tmp_path / "masked")
    tiny_tokenizer(tmp_path / "masked")
    load_language_model(str(tmp_path / "masked"))
    assert "is new" not in capsys.readouterr().err


def test_logits_changed_after_the_head_are_refused() -> None:
    config = Gemma2Config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )  # new weights, and the usual cap of 30, which hardly changes their small logits
    with pytest.raises(ModelError, match="changes the logits of its head"):
        check_head(Gemma2ForCausalLM(config).eval(), "gemma")


def test_other_models_are_refused() -> None:
    config = tiny_config("bert")
    config.architectures = ["BertForSequenceClassification"]
    assert is_masked(config)
    with pytest.raises(ModelError, match="no language-model head"):
        check_head(tiny_model("bert"), "a classifier")
