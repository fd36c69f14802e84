"""Loading classifiers: when the head is kept, errors, and no output of libraries."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertForSequenceClassification,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
)
from transformers.utils import logging

from demiglace.cli import main
from demiglace.errors import ModelError
from demiglace.models.language_model import load_language_model
from demiglace.models.loading import (
    label_names_of,
    load_as_saved,
    load_classifier,
    load_config,
    save_model,
    silence_transformers,
)
from demiglace.notices import collected, collecting
from factories import ARCHITECTURES, save_tiny, tiny_config, tiny_model, tiny_tokenizer

COLOURS = ("blue", "green", "red")


def encoder_of(model):
    prefix = model.base_model_prefix + "."
    return {k: v for k, v in model.state_dict().items() if k.startswith(prefix)}


def head_of(model):
    prefix = model.base_model_prefix + "."
    return {k: v for k, v in model.state_dict().items() if not k.startswith(prefix)}


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)


def edit_config(path: Path, **values) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def edit_weights(path: Path, change) -> None:
    file = path / "model.safetensors"
    weights = load_file(file)
    save_file(change(weights), file, metadata={"format": "pt"})


# heads and labels


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_checkpoints_own_head_and_labels(arch, tmp_path, capsys):
    path = save_tiny(tmp_path, arch, num_layers=2, label_names=COLOURS)
    model = load_classifier(path, None)
    assert same(model.state_dict(), tiny_model(arch, num_layers=2).state_dict())
    assert label_names_of(model) == COLOURS
    assert not model.training and model.dtype == torch.float32
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_other_labels_get_a_new_head_on_the_same_encoder(arch, tmp_path, capsys):
    path = save_tiny(tmp_path, arch, num_layers=2, label_names=COLOURS)
    old = tiny_model(arch, num_layers=2)
    for names in (("no", "yes"), ("a", "b", "c")):  # another number, and other names for as many
        model = load_classifier(path, names, seed=1)
        assert same(encoder_of(model), encoder_of(old))
        assert label_names_of(model) == names
        assert model.config.problem_type == "single_label_classification"
        weights = [k for k, v in head_of(model).items() if v.ndim == 2]
        assert weights
        for key in weights:
            ours, theirs = head_of(model)[key], head_of(old)[key]
            assert ours.shape != theirs.shape or not torch.equal(ours, theirs), key
        assert f"head is new: the model has none for {len(names)} classes" in capsys.readouterr().err


@pytest.mark.parametrize("path_labels", [COLOURS, ("LABEL_0", "LABEL_1", "LABEL_2")])
def test_a_head_of_the_same_or_of_unnamed_labels_is_kept(path_labels, tmp_path, capsys):
    path = save_tiny(tmp_path, num_layers=2, label_names=path_labels)
    model = load_classifier(path, COLOURS)
    assert same(head_of(model), head_of(tiny_model("bert", num_layers=2)))
    assert label_names_of(model) == COLOURS
    assert "head is new" not in capsys.readouterr().err


def test_a_new_head_depends_on_the_seed_alone(tmp_path):
    path = save_tiny(tmp_path, num_layers=2)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load_classifier(path, ("no", "yes"), seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    again, other = (load_classifier(path, ("no", "yes"), seed=s) for s in (3, 4))
    assert same(first.state_dict(), again.state_dict())
    assert not same(head_of(first), head_of(other))


def test_regression_has_one_output_and_no_names(tmp_path, capsys):
    path = save_tiny(tmp_path / "a", num_layers=1)
    model = load_classifier(path, ())
    assert (model.config.num_labels, model.config.problem_type, label_names_of(model)) == (1, "regression", ())
    assert "for regression" in capsys.readouterr().err
    save_model(model, tmp_path / "b")
    assert same(load_classifier(tmp_path / "b", ()).state_dict(), model.state_dict())
    assert same(load_classifier(tmp_path / "b", None).state_dict(), model.state_dict())
    assert capsys.readouterr().err == ""


def test_one_class_is_refused(tmp_path):
    with pytest.raises(ModelError, match="only one class, 'spam'"):
        load_classifier(save_tiny(tmp_path, num_layers=1), ("spam",))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_bare_encoder_gets_a_head_or_is_refused(arch, tmp_path, capsys):
    torch.manual_seed(0)
    bare = AutoModel.from_config(tiny_config(arch, num_layers=1))
    bare.save_pretrained(tmp_path)
    tiny_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="no trained classification head"):
        load_classifier(tmp_path, None)
    model = load_classifier(tmp_path, ("no", "yes"))
    for key, weight in encoder_of(model).items():  # RoBERTa's classifier leaves the pooler out
        assert torch.equal(weight, bare.state_dict()[key.partition(".")[2]]), key
    assert "head is new" in capsys.readouterr().err


def test_a_missing_pooler_is_drawn_from_the_seed(tmp_path):
    path = save_tiny(tmp_path, num_layers=1)
    edit_weights(path, lambda w: {k: v for k, v in w.items() if "pooler" not in k})
    first, again = (load_classifier(path, ("no", "yes"), seed=3) for _ in range(2))
    assert same(first.state_dict(), again.state_dict())
    with pytest.raises(ModelError, match="no trained classification head"):
        load_classifier(path, None)


# options


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_sets_every_probability(arch, dropout, tmp_path):
    model = load_classifier(save_tiny(tmp_path, arch, num_layers=1), None, dropout=dropout)
    found = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert found <= {dropout}
    model.train()
    ids = torch.full((1, 8), 40)
    torch.manual_seed(0)
    once, twice = (model(input_ids=ids).logits for _ in range(2))
    assert torch.equal(once, twice) == (dropout == 0)


def test_dropout_is_left_alone_by_default(tmp_path):
    assert load_classifier(save_tiny(tmp_path, num_layers=1), None).config.hidden_dropout_prob == 0.1


@pytest.mark.parametrize(("arch", "kernel"), [("bert", "sdpa"), ("deberta-v2", "eager")])
def test_sdpa_is_used_where_there_is_one(arch, kernel, tmp_path):
    path = save_tiny(tmp_path, arch, num_layers=1)
    assert load_classifier(path, None).config._attn_implementation == kernel
    assert load_classifier(path, None, attention="eager").config._attn_implementation == "eager"


def test_half_precision_checkpoints_are_read_in_float32(tmp_path):
    tiny_model("bert", num_layers=1).to(torch.bfloat16).save_pretrained(tmp_path)
    tiny_tokenizer(tmp_path)
    assert load_classifier(tmp_path, None).dtype == torch.float32


def test_a_decoder_without_padding_gets_its_tokenizers(tmp_path):
    path = save_tiny(tmp_path, "gpt2", num_layers=1)
    edit_config(path, pad_token_id=None)
    tiny_tokenizer(path, pad_token=None)
    model = load_classifier(path, None)
    assert model.config.pad_token_id == 3
    padded = torch.tensor([[40, 41, 42, 3, 3]])
    torch.testing.assert_close(
        model(input_ids=padded, attention_mask=(padded != 3).long()).logits, model(input_ids=padded[:, :3]).logits
    )


# damage and danger


def pickled(path: Path) -> Path:
    save_tiny(path, num_layers=1)
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    return path


def test_a_pickle_is_refused_unless_allowed(tmp_path):
    path = pickled(tmp_path)
    with pytest.raises(ModelError, match=r"pickle file \(pytorch_model.bin\).*--allow-pickle"):
        load_classifier(path, None)
    model = load_classifier(path, None, allow_pickle=True)
    assert same(model.state_dict(), tiny_model("bert", num_layers=1).state_dict())


def test_safetensors_are_preferred_to_a_pickle_beside_them(tmp_path):
    path = save_tiny(tmp_path, num_layers=1)
    (path / "pytorch_model.bin").write_bytes(b"not to be read")
    load_classifier(path, None, allow_pickle=True)


def test_a_pickle_that_would_run_code_runs_none(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = pickled(tmp_path / "m")
    torch.save({"weights": Evil()}, path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds more than tensors; it is not read"):
        load_classifier(path, None, allow_pickle=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 torn archive"])
def test_a_damaged_pickle_is_refused(content, tmp_path):
    path = pickled(tmp_path)
    (path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(str(path))):
        load_classifier(path, None, allow_pickle=True)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:-4], lambda b: b"", lambda b: b"x" * 99])
def test_damaged_weights_are_refused_with_the_file_name(damage, tmp_path):
    file = save_tiny(tmp_path, num_layers=1) / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        load_classifier(tmp_path, None)


def test_no_weights_are_refused(tmp_path):
    (save_tiny(tmp_path, num_layers=1) / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="contains no weights"):
        load_classifier(tmp_path, None)


def test_a_missing_shard_is_refused(tmp_path):
    save_tiny(tmp_path, num_layers=1)
    model = tiny_model("bert", num_layers=1)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert same(load_classifier(tmp_path, None).state_dict(), model.state_dict())
    shards[-1].unlink()
    with pytest.raises(ModelError, match="expected a file beside it"):
        load_classifier(tmp_path, None)


def test_missing_encoder_weights_are_refused(tmp_path):
    path = save_tiny(tmp_path, num_layers=2)
    edit_weights(path, lambda w: {k: v for k, v in w.items() if "layer.1.intermediate" not in k})
    for names in (None, ("no", "yes")):
        with pytest.raises(ModelError, match=r"lacks 2 of the weights.*layer\.1\.intermediate"):
            load_classifier(path, names)


def test_weights_of_another_shape_than_the_config_says_are_refused(tmp_path):
    path = save_tiny(tmp_path, num_layers=1)
    edit_config(path, vocab_size=90)
    with pytest.raises(ModelError, match="word_embeddings"):
        load_classifier(path, ("no", "yes"))


@pytest.mark.parametrize(
    "config",
    [
        "{bad",
        '{"model_type": "nonesuch"}',
        '{"model_type": "bert", "hidden_size": "wide"}',
        '{"model_type": "nonesuch", "auto_map": {"AutoConfig": "code.Config"}}',
    ],
)
def test_bad_configs_are_refused(config, tmp_path):
    (save_tiny(tmp_path, num_layers=1) / "config.json").write_text(config)
    with pytest.raises(ModelError, match=r"could not be loaded|is no config of a model"):
        load_classifier(tmp_path, None)


def test_remote_code_is_not_run(tmp_path):
    path = save_tiny(tmp_path / "m", num_layers=1)
    (path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    edit_config(path, auto_map={"AutoConfig": "code.C", "AutoModelForSequenceClassification": "code.M"})
    load_classifier(path, None)  # BERT, which transformers knows itself
    assert not (tmp_path / "ran").exists()


def test_architectures_without_a_classifier_are_named(tmp_path):
    save_tiny(tmp_path, num_layers=1)
    edit_config(tmp_path, model_type="vit")
    with pytest.raises(ModelError, match="a vit model"):
        load_classifier(tmp_path, None)


def test_an_unreachable_name_says_where_it_was_looked_for():
    with pytest.raises(
        ModelError,
        match=r"no directory nobody/nothing here\. As a name on the Hugging Face hub it is not in the local cache",
    ):
        load_classifier("nobody/nothing", None)


# as saved


def test_as_saved_has_the_class_of_its_config(tmp_path):
    classifier = save_tiny(tmp_path / "a", num_layers=1)
    assert isinstance(load_as_saved(classifier), BertForSequenceClassification)
    for factory in (AutoModel, AutoModelForCausalLM):
        model = factory.from_config(tiny_config("gpt2", num_layers=1)).to(torch.bfloat16)
        model.save_pretrained(tmp_path / "b")
        again = load_as_saved(tmp_path / "b")
        assert type(again) is type(model) and again.dtype == torch.bfloat16
        assert same(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("named", [["Nonesuch"], ["AutoTokenizer"], [], None])
def test_as_saved_is_the_bare_encoder_where_the_class_is_unknown(named, tmp_path):
    path = save_tiny(tmp_path, num_layers=1)
    edit_config(path, architectures=named)
    assert type(load_as_saved(path)).__name__ == "BertModel"


def test_as_saved_requires_every_weight(tmp_path):
    path = save_tiny(tmp_path, num_layers=1)
    edit_weights(path, lambda w: {k: v for k, v in w.items() if "classifier" not in k})
    with pytest.raises(ModelError, match=r"lacks 2 of the weights.*classifier"):
        load_as_saved(path)


def test_silence_transformers_restores_the_settings_after_an_error():
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(KeyError), silence_transformers():
        assert not logging.is_progress_bar_enabled()
        raise KeyError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


# what a checkpoint holds beside the model


def test_weights_without_a_place_in_the_config_are_counted(tmp_path, capsys):
    path = save_tiny(tmp_path, num_layers=2, label_names=COLOURS)
    edit_config(path, num_hidden_layers=1)
    for load in (lambda: load_as_saved(path), lambda: load_classifier(path, COLOURS)):
        assert load().config.num_hidden_layers == 1
        warning = " ".join(capsys.readouterr().err.split())
        assert "warning" in warning and "holds 16 weights" in warning and "(bert.encoder.layer.1." in warning


@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_heads_poolers_and_constants_are_not_counted(prefix, tmp_path, capsys):
    path = save_tiny(tmp_path, num_layers=1, label_names=COLOURS)
    constants = {f"{prefix}embeddings.position_ids": torch.zeros(1), "cls.predictions.bias": torch.zeros(1)}
    edit_weights(path, lambda weights: {k.replace("bert.", prefix): w for k, w in weights.items()} | constants)
    load_as_saved(path)
    assert capsys.readouterr().err == ""


def test_an_adapter_beside_the_weights_is_refused(tmp_path):
    path = save_tiny(tmp_path, num_layers=1)
    save_file({"a": torch.zeros(1)}, path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"holds an adapter \(adapter_model.safetensors\).*merge_and_unload"):
        load_as_saved(path)


def test_a_multimodal_model_is_refused_and_its_text_part_is_read(tmp_path):
    sizes = {"num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    text = sizes | {"vocab_size": 40, "num_key_value_heads": 1, "head_dim": 8}
    config = Gemma3Config(text_config=text, vision_config=sizes | {"image_size": 28, "patch_size": 14})
    model = Gemma3ForConditionalGeneration(config)
    save_model(model, tmp_path / "both")
    for load in (load_as_saved, load_config):
        with pytest.raises(ModelError, match=r"gemma3 model, which reads more.*language_model.save_pretrained"):
            load(tmp_path / "both")
    save_model(model.model.language_model, tmp_path / "text")
    read = load_language_model(str(tmp_path / "text"))
    ids = torch.arange(8)[None]
    with torch.no_grad():
        torch.testing.assert_close(read(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_weights_that_have_no_place_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_tiny(tmp_path / "m", num_layers=3, label_names=COLOURS)
    edit_config(tmp_path / "m", num_hidden_layers=1)
    with collecting():
        load_classifier(tmp_path / "m", None)
        load_classifier(tmp_path / "m", None)
        (notice,) = collected()
    assert (notice["kind"], notice["weights"]) == ("unused weights", 32)  # 16 for each of two layers
    assert capsys.readouterr().err.count("holds 32 weights for which its config.json has no place") == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value, capsys):
    directory = save_tiny(tmp_path / "m", num_layers=2)
    weights = load_file(directory / "model.safetensors")
    name = next(name for name in weights if "query.weight" in name)
    weights[name][0, 0] = value
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    assert main(["truncate", str(directory), "--layers", "1", "-o", str(tmp_path / "out")]) == 2
    assert f"NaN or infinite values in 1 of its weights ({name})" in capsys.readouterr().err
