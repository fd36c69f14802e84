"""`truncate` and `distill` to a narrower student, and `plan` of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_kit import QUICK, SAVED, arguments, in_child, strike, weights
from transformers import AutoModel, AutoModelForCausalLM

import demiglace
from demiglace.cli import main
from demiglace.models.width import narrow_config, sizes_of
from demiglace.runs.directory import read_manifest
from demiglace.training import loop
from factories import save_decoder, save_sentence_encoder
from text_kit import save_lm, sentences, write_jsonl

NARROW = {"intermediate_size": 24, "hidden_size": 16}
AFTER = {"intermediate_size": 24, "num_attention_heads": 2, "hidden_size": 16}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_jsonl(tmp_path_factory.mktemp("text") / "train.jsonl", sentences(12)))


def test_truncate_by_text_and_by_magnitude(base: Path, text: str, tmp_path: Path, capsys: Any) -> None:
    line = arguments("truncate", layers=2, **NARROW)
    assert main([*line, str(base), "-o", str(tmp_path / "by-text"), "--calibration", text]) == 0
    printed = capsys.readouterr().err
    assert (
        "intermediate_size 64 -> 24, num_attention_heads 4 -> 2, hidden_size 32 -> 16; units chosen by act" in printed
    )
    assert main([*line, str(base), "-o", str(tmp_path / "by-size")]) == 0
    assert "units chosen by weight magnitude" in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "by-text")
    width = manifest["width"]
    assert width["before"] == {"intermediate_size": 64, "num_attention_heads": 4, "hidden_size": 32}
    assert width["after"] == AFTER
    assert manifest["after"]["parameters"] == manifest["parameters"] < manifest["before"]["parameters"] / 2
    assert len(width["kept"]["hidden_size"][0]) == 16
    units = json.loads((tmp_path / "by-text" / "width.json").read_text())
    assert [len(of_layer) for of_layer in units["intermediate_size"]] == [24, 24]
    model = AutoModel.from_pretrained(tmp_path / "by-text")
    assert sizes_of(model.config) == AFTER
    assert model.config.num_hidden_layers == 2
    by_size = read_manifest(tmp_path / "by-size")
    assert [n["kind"] for n in by_size["notices"]] == ["units without text"]
    assert by_size["width"]["kept"] != width["kept"]


def test_truncate_a_decoder_at_full_depth(text: str, tmp_path: Path) -> None:
    save_lm(tmp_path / "lm", "llama")
    sizes = {"num_attention_heads": 2, "intermediate_size": 10, "hidden_size": 24}
    demiglace.truncate(model=tmp_path / "lm", output=tmp_path / "student", calibration=[text], **sizes)
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert sizes_of(student.config) == sizes
    assert (student.config.num_hidden_layers, student.config.num_key_value_heads, student.config.head_dim) == (4, 1, 8)
    assert read_manifest(tmp_path / "student")["keep"] == [0, 1, 2, 3]


def test_measured_layers_and_units_together(text: str, tmp_path: Path) -> None:
    save_decoder(tmp_path / "lm", num_labels=0)
    options = {"layers": 2, "strategy": "block-influence", "calibration": [text], "intermediate_size": 32}
    demiglace.truncate(model=tmp_path / "lm", output=tmp_path / "student", **options)
    manifest = read_manifest(tmp_path / "student")
    assert manifest["importance"]["measure"] == "block influence"
    assert manifest["width"]["after"]["intermediate_size"] == 32


@pytest.mark.parametrize(("method", "epochs"), [("rail-balanced", 2), ("minilmv2", 4)])
def test_distill_classifiers(method: str, epochs: int, teacher: Path, rows: dict[str, str], tmp_path: Path) -> None:
    options = {"layers": 2, "method": method, **NARROW, **rows, **QUICK, "epochs": epochs}
    assert main(arguments("distill", teacher=teacher, output=tmp_path / "run", **options)) == 0
    manifest = read_manifest(tmp_path / "run")
    assert manifest["width"]["after"] == AFTER
    assert manifest["keep"] == [0, 2]
    student = AutoModel.from_pretrained(tmp_path / "run" / "model")
    assert sizes_of(student.config) == AFTER
    planned = demiglace.plan(teacher=teacher, flops=1e9, **options)
    assert f"{manifest['parameters']:,} parameters" in "\n".join(planned.lines)


def test_the_units_are_those_of_the_labelled_rows(teacher: Path, rows: dict[str, str], tmp_path: Path) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("text\n" + "\n".join(f"a film of words number {i} and more" for i in range(40)), encoding="utf-8")
    shared = {"layers": 2, "method": "vanilla-kd", **NARROW, **rows, **QUICK, "epochs": 1}
    for name, unlabelled in (("without", {}), ("with", {"unlabelled": [texts]})):
        demiglace.distill(teacher=teacher, output=tmp_path / name, **shared, **unlabelled)
    units = [(tmp_path / name / "width.json").read_bytes() for name in ("without", "with")]
    assert units[0] == units[1]
    assert read_manifest(tmp_path / "with")["rows"]["unlabelled"] == 40


def test_distill_a_narrow_language_model_at_full_depth(text: str, tmp_path: Path) -> None:
    save_lm(tmp_path / "lm", "llama")
    options = {"corpus": [text], "validation_corpus": [text], "method": "vanilla-kd", "block_size": 16, "epochs": 1}
    demiglace.distill(
        teacher=tmp_path / "lm", output=tmp_path / "run", num_attention_heads=2, intermediate_size=16, **options
    )
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert sizes_of(student.config) == {"intermediate_size": 16, "num_attention_heads": 2, "hidden_size": 32}
    assert student.config.num_hidden_layers == 4


def test_a_killed_run_resumes_with_the_same_units(
    teacher: Path, rows: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = arguments("distill", teacher=teacher, layers=2, method="vanilla-kd", **NARROW, **rows, **SAVED)
    assert main([*line, "-o", str(tmp_path / "full")]) == 0
    killed = [*line, "-o", str(tmp_path / "killed")]
    assert in_child(killed, lambda: strike(loop, "save_checkpoint", 2)) < 0
    units = (tmp_path / "killed" / "width.json").read_bytes()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    assert main(killed) == 0
    assert (tmp_path / "killed" / "width.json").read_bytes() == units == (tmp_path / "full" / "width.json").read_bytes()
    full = weights(tmp_path / "full")
    assert all(torch.equal(w, full[name]) for name, w in weights(tmp_path / "killed").items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_attention_heads": 2}, "2 heads need --hidden-size 16"),
        ({"hidden_size": 20}, "give 16 or 24"),
        ({"intermediate_size": 100}, "the model has 64: give 1 to 64"),
        ({"student": "x", "hidden_size": 16}, "both were given"),
        ({}, "neither was given"),
    ],
)
def test_what_distill_refuses(
    options: dict[str, Any], message: str, teacher: Path, rows: dict[str, str], tmp_path: Path, capsys: Any
) -> None:
    if "student" in options:
        options = options | {"student": teacher}
    assert main(arguments("distill", teacher=teacher, output=tmp_path / "run", **options, **rows, **QUICK)) == 2
    assert message in capsys.readouterr().err


def test_a_refused_size_leaves_no_model(base: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["truncate", str(base), "-o", str(tmp_path / "s"), "--hidden-size", "12"]) == 2
    assert "give 8 or 16" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
    save_sentence_encoder(tmp_path / "encoder")
    line = ["truncate", str(tmp_path / "encoder"), "-o", str(tmp_path / "s")]
    assert main([*line, "--hidden-size", "16"]) == 2
    assert "embeddings would have another width" in capsys.readouterr().err
    assert main([*line, "--intermediate-size", "16"]) == 0


def test_the_shape_alone(base: Path) -> None:
    config = AutoModel.from_pretrained(base).config
    assert sizes_of(narrow_config(config, **NARROW)) == AFTER
