import csv
import importlib
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import AutoConfig, AutoTokenizer

from factories import save_tiny

pytest.importorskip("onnxruntime")

from demiglace import export
from demiglace.errors import ConfigError, ModelError, RunError, UserError
from demiglace.export import onnx as onnx_format
from demiglace.export.base import Artefact
from demiglace.export.measure import Measurement
from demiglace.export.onnx import OnnxRunner, export_onnx
from demiglace.runs.directory import open_run, read_manifest
from demiglace.runs.files import write_atomically

NAMES = ("bad", "good", "none")
STAGE = importlib.import_module("demiglace.commands.export")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model and rows of its kind."""
    home = tmp_path_factory.mktemp("source")
    save_tiny(home / "model", num_layers=1, label_names=NAMES)
    texts = [f"{a} {b}" for a in ("good", "bad", "lost") for b in ("film", "card", "money", "red", "blue")]
    lines = [f"the {t} is it,{NAMES[i % 3]}" for i, t in enumerate(texts)]
    (home / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    return home


@pytest.fixture(scope="module")
def call(source):
    """The options of a complete export, which `whole` has run."""
    teacher = save_tiny(source / "teacher", num_layers=2, label_names=NAMES)
    return call_of(source, source, quantize=["int8"], teacher=str(teacher), repeats=2, rows=10)


@pytest.fixture(scope="module")
def whole(call):
    return export(**call)


@pytest.fixture
def no_clock(monkeypatch, whole):
    """Exporting takes seconds: here the file is a copy of one export, and measuring only records its arguments."""
    exported = whole / "onnx/model.onnx"
    calls = []
    monkeypatch.setattr(
        onnx_format, "export_onnx", lambda model, tokenizer, path, output: write_atomically(path, exported.read_bytes())
    )

    def measured(artefact, batches, **options):
        calls.append((artefact.path, {size: len(several) for size, several in batches.items()}, options))
        times = {"p50": 1.0, "p95": 2.0}
        return Measurement({"1": times, "32": times}, 100.0)

    monkeypatch.setattr(STAGE, "measure", measured)
    return calls


def call_of(source, tmp_path, **options):
    given = {"model": str(source / "model"), "data": str(source / "rows.csv"), "output": tmp_path / "out"}
    return given | options


def test_the_whole_way(source, call, whole, capsys):
    run = whole
    found = {a["name"]: a for a in read_manifest(run)["artefacts"]}
    assert {name: (a["format"], a["precision"], a["role"]) for name, a in found.items()} == {
        "PyTorch teacher": ("pytorch", "fp32", "teacher"),
        "PyTorch": ("pytorch", "fp32", "original"),
        "ONNX fp32": ("onnx", "fp32", "export"),
        "ONNX int8": ("onnx", "int8", "export"),
    }
    assert list(found) == ["PyTorch teacher", "PyTorch", "ONNX fp32", "ONNX int8"]
    assert found["ONNX fp32"]["opset"] == 18 and "reduce_range" in found["ONNX int8"]
    assert found["ONNX fp32"]["label_agreement"] == 1.0
    assert 0 < found["ONNX fp32"]["largest_logit_difference"] < 1e-4
    assert found["ONNX int8"]["largest_logit_difference"] > found["ONNX fp32"]["largest_logit_difference"]
    assert (
        found["ONNX int8"]["bytes"] == (run / "onnx/model_quantized.onnx").stat().st_size < found["ONNX fp32"]["bytes"]
    )
    assert found["PyTorch teacher"]["parameters"] > found["PyTorch"]["parameters"]
    assert found["PyTorch teacher"]["label_agreement"] is None
    for artefact in found.values():
        assert artefact["peak_memory_mb"] > 0 and set(artefact["latency_ms"]) == {"1", "32"}
    shown = run.summary()
    assert "10 real rows" in shown and "labels at batch 1;" in shown and read_manifest(run)["check_batch"] == 1
    assert "ONNX int8" in shown and "scores on 15 rows" in shown
    logits = OnnxRunner(str(run / "onnx/model_quantized.onnx")).logits
    rows = list(csv.DictReader((source / "rows.csv").open()))
    inputs = dict(AutoTokenizer.from_pretrained(run)([r["text"] for r in rows], padding=True, return_tensors="np"))
    right = [NAMES[i] == row["label"] for i, row in zip(logits(inputs).argmax(1), rows, strict=True)]
    assert found["ONNX int8"]["metrics"]["accuracy"] == pytest.approx(np.mean(right))
    assert "metrics" in found["ONNX fp32"] and "metrics" not in found["PyTorch"]
    capsys.readouterr()
    before = (run / "manifest.json").read_bytes()
    export(**call)
    assert "up to date" in capsys.readouterr().err and (run / "manifest.json").read_bytes() == before


def test_the_directory_is_usable_alone(source, tmp_path, no_clock):
    run = export(**call_of(source, tmp_path))
    assert [p.name for p in (run / "onnx").iterdir()] == ["model.onnx"] and not list(run.glob("*.part"))
    tokenizer, config = AutoTokenizer.from_pretrained(run), AutoConfig.from_pretrained(run)
    texts = dict(tokenizer(["good film", "no"], padding=True, return_tensors="np"))
    logits = OnnxRunner(str(run / "onnx/model.onnx")).logits(texts)
    assert logits.shape == (2, 3) and [config.id2label[i] for i in range(3)] == list(NAMES)


def test_rows_without_labels_of_the_model_are_compared_and_not_scored(source, tmp_path, no_clock, capsys):
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\nthe film is red,x\nthe card is blue,\n")
    found = read_manifest(export(**call_of(source, tmp_path, data=str(rows))))
    assert found["rows"] == 2 and "scored_on" not in found and not any("metrics" in a for a in found["artefacts"])
    assert "get no scores: " in capsys.readouterr().err


def test_rows_of_the_run_by_default(source, tmp_path, no_clock):
    run = open_run(tmp_path / "run", "finetune", {"data": str(source / "rows.csv"), "validation_fraction": 0.4}, {})
    save_tiny(run.path / "model", num_layers=1, label_names=NAMES)
    run.finish()
    out = export(model=str(run.path), output=tmp_path / "out")
    assert read_manifest(out)["rows"] == 6  # 0.4 of 15
    assert read_manifest(out)["scored_on"] == {"set": "validation", "rows": 6}
    assert [counts for _, counts, _ in no_clock] == [{1: 6, 32: 1}] * 2


def test_options_reach_the_measurement(source, tmp_path, no_clock):
    export(**call_of(source, tmp_path, threads=2, repeats=7))
    assert [options for *_, options in no_clock] == [{"threads": 2, "repeats": 7}] * 2


def test_allow_pickle_reaches_the_process_that_measures(source, tmp_path, no_clock, monkeypatch):
    artefacts = []
    measured = STAGE.measure
    monkeypatch.setattr(STAGE, "measure", lambda a, *given, **options: artefacts.append(a) or measured(a, *given))
    export(**call_of(source, tmp_path, allow_pickle=True))
    assert [(a.format, a.allow_pickle) for a in artefacts] == [("pytorch", True), ("onnx", False)]


def test_plain_model_needs_rows(source, tmp_path):
    with pytest.raises(ConfigError, match=r"no manifest that names the rows it was trained on.*give --data"):
        export(model=str(source / "model"), output=tmp_path / "out")


def test_broken_parity_is_refused(source, tmp_path, no_clock, monkeypatch):
    opened = Artefact.open
    monkeypatch.setattr(
        Artefact, "open", lambda a, threads=1: SimpleNamespace(logits=lambda batch: -opened(a, threads).logits(batch))
    )
    with pytest.raises(UserError, match=r"model.onnx does not reproduce the PyTorch model: 0.0% of 15 rows"):
        export(**call_of(source, tmp_path))
    assert not (tmp_path / "out" / "manifest.json").exists() and not no_clock


def test_an_artefact_that_is_wrong_on_padded_rows_is_refused(source, tmp_path, no_clock, monkeypatch):
    opened = Artefact.open

    def wrong_where_padded(artefact, threads=1):
        logits = opened(artefact, threads).logits
        return SimpleNamespace(logits=lambda batch: logits(batch) * (1 if batch["attention_mask"].all() else -1))

    monkeypatch.setattr(Artefact, "open", wrong_where_padded)
    rows = tmp_path / "rows.csv"
    texts = [f"{'the bad card 7 ' * (i % 9)}good film" for i in range(30)]
    rows.write_text("text,label\n" + "".join(f"{text},good\n" for text in texts))
    with pytest.raises(UserError, match=r"with a batch of padded rows, .*model.onnx does not reproduce"):
        export(**call_of(source, tmp_path, data=str(rows)))


def test_several_precisions(source, tmp_path, no_clock):
    run = export(**call_of(source, tmp_path, quantize=["int4", "fp16", "none", "int4"]))
    found = [(a["precision"], a["files"]) for a in read_manifest(run)["artefacts"][1:]]
    files = {"fp32": "model.onnx", "int4": "model_q4.onnx", "fp16": "model_fp16.onnx"}
    assert found == [(precision, [f"onnx/{file}"]) for precision, file in files.items()]
    with pytest.raises(ConfigError, match="given 'int5', and export to ONNX writes fp32, fp16, int8, int4 only"):
        export(**call_of(source, tmp_path, quantize="int5"))


def test_bits_of_embedding_tables_are_an_option(source, tmp_path, no_clock):
    with pytest.raises(ConfigError, match="--embedding-bits 4 is about int8 and int4 files, and none is written; add"):
        export(**call_of(source, tmp_path, embedding_bits="4"))
    run = export(**call_of(source, tmp_path, quantize=["int8"], embedding_bits="4"))
    small = read_manifest(run)["artefacts"][-1]
    assert (small["name"], small["embedding_bits"]) == ("ONNX int8", 4)


def test_int8_that_differs_is_said(source, tmp_path, no_clock, monkeypatch, capsys):
    plain = STAGE._parity
    monkeypatch.setattr(
        STAGE, "_parity", lambda o, a: replace(plain(o, a), label_agreement=0.9 if a.precision == "int8" else 1.0)
    )
    run = export(**call_of(source, tmp_path, quantize="int8"))
    assert "same label as the original for only 90.0% of 15 rows" in capsys.readouterr().err
    assert read_manifest(run)["artefacts"][-1]["label_agreement"] == 0.9


def test_interrupted_export_starts_over(source, tmp_path, no_clock, monkeypatch):
    measured = STAGE.measure

    def interrupted(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(STAGE, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(**call_of(source, tmp_path))
    with pytest.raises(RunError, match="unfinished"):
        read_manifest(tmp_path / "out")
    monkeypatch.setattr(STAGE, "measure", measured)
    assert len(read_manifest(export(**call_of(source, tmp_path)))["artefacts"]) == 2


def test_missing_library(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install .onnx>="):
        export(**call_of(source, tmp_path))
    assert not (tmp_path / "out").exists()


def test_missing_model(tmp_path, source):
    with pytest.raises(ModelError, match="nowhere"):
        export(**call_of(source, tmp_path, model=str(tmp_path / "nowhere")))


def test_regression(source, tmp_path, no_clock, monkeypatch, planted):
    monkeypatch.setattr(onnx_format, "export_onnx", export_onnx)
    model = save_tiny(tmp_path / "model", num_layers=1, num_labels=1)
    rows = tmp_path / "rows.csv"
    rows.write_text("text,score\n" + "".join(f"{w} film,{i}.5\n" for i, w in enumerate(("good", "bad", "red"))))
    run = export(model=str(model), data=str(rows), output=tmp_path / "out")
    assert read_manifest(run)["artefacts"][-1]["label_agreement"] == 1.0
    batch = {k: np.ones((2, 5), dtype=np.int64) for k in ("input_ids", "attention_mask", "token_type_ids")}
    assert OnnxRunner(str(run / "onnx/model.onnx")).logits(batch).shape == (2, 1)
    assert not planted.exists()  # nothing was imported from the current directory


def test_unknown_format_names_those_there_are(source, tmp_path):
    with pytest.raises(ConfigError, match=r"--to: unknown format 'onxn'; did you mean 'onnx'\? Known: onnx"):
        export(**call_of(source, tmp_path, to="onxn"))
    assert not (tmp_path / "out").exists()
