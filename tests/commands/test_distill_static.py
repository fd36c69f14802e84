"""`distill --student static` end to end, the commands that read its run, and what is refused."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_kit import QUICK, RESULTS, SAVED, arguments, in_child, strike, weights, write_csv, write_rows

from demiglace.cli import main
from demiglace.distillation.static_student import token_vectors
from demiglace.models.loading import load_classifier, load_tokenizer
from demiglace.runs.directory import read_manifest
from demiglace.training import loop
from factories import VOCABULARY, save_sentence_encoder

SHORT = {name: value for name, value in QUICK.items() if name != "learning_rate"}
STATIC = {"student": "static", "embedding_size": 8}


def run(output: Path, teacher: Path, **options: Any) -> int:
    """The exit code of `demiglace distill --student static`."""
    return main(arguments("distill", teacher=teacher, output=output, **STATIC | options))


@pytest.fixture(scope="module")
def student(home: Path, teacher: Path, rows: dict[str, str]) -> Path:
    """A static student, with the defaults of method and learning rate."""
    assert run(home / "static", teacher, **rows, **SHORT) == 0
    return home / "static"


def test_it_is_saved(student: Path) -> None:
    manifest = read_manifest(student)
    assert manifest.keys() >= RESULTS
    assert manifest["config"]["method"] == manifest["method"] == "vanilla-kd"
    assert manifest["config"]["learning_rate"] == 0.01
    assert (manifest["layers"], manifest["parameters"]) == (0, len(VOCABULARY) * 8 + 9 * 2)
    model = load_classifier(student, None)
    assert set(weights(student)) == set(model.state_dict())
    assert "demiglace" in json.loads((student / "model" / "config.json").read_text())["loaded_by"]


def test_it_learns(tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    given = SHORT | {"epochs": 20, "method": "none", "learning_rate": 0.05}
    assert run(tmp_path / "run", teacher, **rows, **given) == 0
    assert read_manifest(tmp_path / "run")["metrics"]["test"]["accuracy"] >= 0.75  # the words decide the labels


def test_its_card_says_what_loads_it(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (student / "model" / "README.md").read_text(encoding="utf-8")
    assert "library_name: demiglace" in card
    assert "A static student (the mean of its tokens’ vectors, and a linear layer), distilled from" in card
    code = card.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    monkeypatch.chdir(student / "model")
    exec(code, names)
    assert names["logits"].shape == (1, 2)


def test_other_students_keep_their_defaults(tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    assert main(arguments("distill", teacher=teacher, output=tmp_path / "run", layers=1, **rows, **SHORT)) == 0
    config = read_manifest(tmp_path / "run")["config"]
    assert (config["method"], config["learning_rate"]) == ("rail-balanced", 1e-4)


def test_it_is_evaluated_exported_and_fine_tuned(
    student: Path, tmp_path: Path, teacher: Path, rows: dict[str, str]
) -> None:
    pytest.importorskip("onnxruntime")
    evaluate = ["evaluate", str(student), "--data", rows["test"], "--teacher", str(teacher)]
    assert main([*evaluate, "--output", str(tmp_path / "scores")]) == 0
    sets = read_manifest(tmp_path / "scores")["sets"]
    (found,) = sets.values()
    assert found["metrics"]["accuracy"] == read_manifest(student)["metrics"]["test"]["accuracy"]
    given = arguments("export", model=student, output=tmp_path / "onnx", quantize="int8", repeats=2)
    assert main(given) == 0
    full, quantized = read_manifest(tmp_path / "onnx")["artefacts"][1:]
    assert full["label_agreement"] == 1.0 and full["largest_logit_difference"] < 1e-4
    assert quantized["label_agreement"] >= 0.9
    assert main(arguments("finetune", model=student, output=tmp_path / "tuned", **rows, **QUICK)) == 0
    assert read_manifest(tmp_path / "tuned")["layers"] == 0


def test_its_cost_is_planned(teacher: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    options = {name: value for name, value in rows.items() if name != "test"} | STATIC | SHORT
    assert main(arguments("plan", teacher=teacher, calibration_seconds=0.1, **options)) == 0
    assert "StaticForSequenceClassification, 0 layers of 8, 826 parameters" in capsys.readouterr().out


def test_a_trimmed_vocabulary_makes_a_smaller_table_of_the_same_logits(
    tmp_path: Path, teacher: Path, rows: dict[str, str]
) -> None:
    still = rows | SHORT | {"epochs": 1, "learning_rate": 1e-12, "vocabulary": "trim", "embedding_size": 4}
    assert run(tmp_path / "run", teacher, **still) == 0
    manifest, kept = read_manifest(tmp_path / "run"), json.loads((tmp_path / "run" / "vocabulary.json").read_text())
    ids = kept["vocabulary"]["kept"]
    assert manifest["parameters"] == len(ids) * 4 + 5 * 2 < len(VOCABULARY) * 4
    full = load_classifier(teacher, None), load_tokenizer(teacher)
    expected = token_vectors(*full, ids, 4)
    torch.testing.assert_close(weights(tmp_path / "run")["static.embeddings.weight"], expected, rtol=1e-5, atol=1e-6)
    model, tokenizer = load_classifier(tmp_path / "run", None), load_tokenizer(tmp_path / "run" / "model")
    encoded = tokenizer(["the good film", "no"], padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**encoded).logits
    tokens = full[1](["the good film", "no"])["input_ids"]
    means = torch.stack([expected[[ids.index(i) for i in row]].mean(0) for row in tokens])
    torch.testing.assert_close(found, model.classifier(means).detach(), rtol=1e-4, atol=1e-5)
    assert main(["evaluate", str(tmp_path / "run"), "--data", rows["test"]]) == 0


@pytest.mark.parametrize("kind", ["pairs", "regression", "label sets"])
def test_every_kind_of_rows_with_one_output_vector(kind: str, tmp_path: Path, base: Path) -> None:
    if kind == "label sets":
        texts = [f"{a} {b}" for a in ("good", "bad", "red", "blue", "film", "card") for b in ("yes", "no", "it")]
        lists = ["good" if "good" in t else "bad,yes" if "yes" in t else "none" for t in texts]
        file = write_csv(tmp_path / "rows.csv", [{"text": t, "labels": n} for t, n in zip(texts, lists, strict=True)])
        given = {"data": str(file), "problem": "multi-label", "validation_fraction": 0.3} | SHORT
    else:
        given = write_rows(tmp_path / "rows", kind) | SHORT
    assert main(arguments("finetune", model=base, output=tmp_path / "teacher", **given)) == 0
    assert run(tmp_path / "run", tmp_path / "teacher", **given) == 0
    ours, theirs = read_manifest(tmp_path / "run"), read_manifest(tmp_path / "teacher")
    assert (ours["labels"], ours["problem"]) == (theirs["labels"], theirs["problem"])
    assert ours["metrics"]["validation"].keys() == theirs["metrics"]["validation"].keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rail-balanced"}, "a static student has none; give --method vanilla-kd, pseudo-labels or none"),
        ({"method": "mate-kd"}, "rewrites text by the gradients"),
        ({"layers": 2}, "both were given"),
        ({"strategy": "top"}, "--strategy top: a static student has no layers"),
        ({"gradient_checkpointing": "true"}, "--gradient-checkpointing: a static student has no layers"),
        ({"embedding_size": 64}, "--embedding-size 64 was given, and the teacher's states have 32 dimensions"),
        ({"student": None, "layers": 2}, "give --student static, or leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    teacher: Path,
    rows: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tmp_path / "run", teacher, **rows, **SHORT, **options) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_other_kinds_of_teachers_are_refused(tmp_path: Path, rows: dict[str, str], capsys: Any) -> None:
    encoder = save_sentence_encoder(tmp_path / "encoder", num_layers=1)
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(f"the film is red {n}" for n in range(20)) + "\n")
    given = {"data": tmp_path / "texts.csv", "validation_fraction": 0.2}
    assert run(tmp_path / "run", encoder, **given, **SHORT) == 2
    assert "a static student classifies or scores texts" in " ".join(capsys.readouterr().err.split())


def test_a_static_model_has_no_layers_to_truncate(student: Path, tmp_path: Path, capsys: Any) -> None:
    assert main([*arguments("truncate", output=tmp_path / "cut", layers=1), str(student)]) == 2
    assert "no single stack of layers" in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, teacher: Path, rows: dict[str, str]) -> None:
    options = rows | SAVED | STATIC | {"dropout": 0.1, "teacher": teacher}
    assert main(arguments("distill", output=tmp_path / "whole", **options)) == 0
    line = arguments("distill", output=tmp_path / "run", **options)
    assert in_child(line, partial(strike, loop, "save_checkpoint", 3, after=True)) < 0
    assert main(line) == 0
    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert np.isfinite(read_manifest(tmp_path / "run")["metrics"]["test"]["accuracy"])
