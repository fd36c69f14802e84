"""`demiglace evaluate` on an export directory gives the labels that the export's own check measured."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from demiglace import evaluate, export
from demiglace.cli import main
from demiglace.config.data import DataLocation
from demiglace.data.rows.evaluation_sets import texts_of
from demiglace.data.tokenize import tokenize
from demiglace.errors import ConfigError, ModelError, RunError
from demiglace.export.exported import exported_artefact
from demiglace.export.measure import Measurement
from demiglace.export.onnx import OnnxRunner
from demiglace.export.parity import predict_with
from demiglace.models.loading import load_tokenizer
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import file_name, read_json, write_json
from factories import save_tiny

NAMES = ("bad", "good", "none")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model, labelled rows, and its export in fp32 and int8; measuring, which takes processes, is left out."""
    home = tmp_path_factory.mktemp("exported")
    save_tiny(home / "model", num_layers=2, label_names=NAMES)
    texts = [f"{a} {b} {c}" for a in ("good", "bad", "lost") for b in ("film", "card", "x") for c in ("a", "no", "9")]
    rows = [f"the {text},{NAMES[i % 3]}" for i, text in enumerate(texts)]
    (home / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        times = {"p50": 1.0, "p95": 2.0}
        measurement = Measurement({"1": times, "32": times}, 100.0)
        patch.setattr(importlib.import_module("demiglace.commands.export"), "measure", lambda *_, **__: measurement)
        export(model=str(home / "model"), data=str(home / "rows.csv"), output=home / "onnx", quantize=("int8", "int4"))
    return home


@pytest.mark.parametrize(
    ("named", "file", "precision"),
    [
        ("onnx", "model.onnx", "fp32"),
        ("onnx/onnx/model.onnx", "model.onnx", "fp32"),
        ("onnx/onnx/model_quantized.onnx", "model_quantized.onnx", "int8"),
        ("onnx/onnx/model_q4.onnx", "model_q4.onnx", "int4"),
    ],
)
def test_labels_and_logits_are_those_of_the_check(home, tmp_path, named, file, precision):
    rows = str(home / "rows.csv")
    run = evaluate(model=str(home / named), data=(rows,), teacher=str(home / "model"), output=tmp_path / "out")
    result = read_manifest(run)["sets"][rows]
    measured = next(
        a for a in read_manifest(home / "onnx")["artefacts"] if a["precision"] == precision and a["role"] == "export"
    )
    assert result["agreement"] == measured["label_agreement"] and result["rows"] == 27
    examples = tokenize(texts_of(rows, DataLocation()), load_tokenizer(home / "onnx"), 128)
    expected = predict_with(OnnxRunner(str(home / "onnx/onnx" / file)), examples)
    logits = np.load(run / f"{file_name(rows)}.npy")
    np.testing.assert_array_equal(logits, expected)
    labels = np.load(run / f"{file_name(rows)}.labels.npy")
    assert result["metrics"]["accuracy"] == np.mean(logits.argmax(1) == labels)


@pytest.mark.parametrize("named", ["onnx", "onnx/onnx/model_q4.onnx"])
def test_the_command_takes_an_export_and_a_file_in_it(home, named, capsys):
    assert main(["evaluate", str(home / named), "--data", str(home / "rows.csv")]) == 0
    assert "accuracy" in capsys.readouterr().out


def test_precisions_are_different_runs(home, tmp_path):
    evaluate(model=str(home / "onnx"), data=(str(home / "rows.csv"),), output=tmp_path / "out")
    with pytest.raises(RunError, match="artefact"):
        evaluate(
            model=str(home / "onnx/onnx/model_quantized.onnx"), data=(str(home / "rows.csv"),), output=tmp_path / "out"
        )


def test_rows_that_the_model_cannot_take_are_refused(home, tmp_path):
    (tmp_path / "long.csv").write_text(f"text,label\n{'good ' * 400},good\n")
    with pytest.raises(ConfigError, match="the model takes 256 at most"):
        evaluate(model=str(home / "onnx"), data=(str(tmp_path / "long.csv"),), max_length=300, output=tmp_path / "out")


def test_other_directories_and_files_are_no_exports(home):
    assert exported_artefact(home / "model") is exported_artefact("some/hub-name") is None
    with pytest.raises(
        ModelError,
        match=r"config.json is not an exported model; .*onnx/model.onnx, onnx/model_quantized.onnx, onnx/model_q4.onnx",
    ):
        exported_artefact(home / "onnx" / "config.json")


def test_a_missing_file_and_an_unfinished_export_are_named(home, tmp_path):
    for name in ("run.json", "manifest.json"):
        (tmp_path / name).write_bytes((home / "onnx" / name).read_bytes())
    with pytest.raises(ModelError, match=r"model.onnx is missing; export the model again"):
        exported_artefact(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(RunError, match="unfinished"):
        exported_artefact(tmp_path)


@pytest.mark.parametrize("with_files", [True, False])  # the first exports listed no files
def test_an_export_with_the_models_at_its_root_is_read(home, tmp_path, with_files):
    old = tmp_path / "moved"
    shutil.copytree(home / "onnx", old)
    manifest = {k: v for k, v in read_json(old / "manifest.json").items() if k not in ("files", "checksum")}
    for entry in manifest["artefacts"]:
        entry["file"] = entry["file"].replace("onnx/model_quantized", "model.int8").replace("onnx/onnx/", "onnx/")
        entry["files"] = [Path(entry["file"]).name]
        if not with_files:
            del entry["files"]
    write_json(old / "manifest.json", manifest)
    (old / "onnx/model.onnx").rename(old / "model.onnx")
    (old / "onnx/model_quantized.onnx").rename(old / "model.int8.onnx")
    assert exported_artefact(old).files == (old / "model.onnx",)
    assert exported_artefact(old / "model.int8.onnx").precision == "int8"
    rows = str(home / "rows.csv")
    now, before = (evaluate(model=str(m), data=(rows,)).metrics for m in (home / "onnx", old / "model.onnx"))
    assert now == before


def test_all_files_of_an_artefact_count(home):
    artefact = exported_artefact(home / "onnx")
    assert artefact.files == (Path(home / "onnx/onnx/model.onnx"),) and artefact.precision == "fp32"
