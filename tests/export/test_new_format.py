"""A new export format is one file and one row: every command and reader works with the toy exporter of this folder."""

import os
import sys
from pathlib import Path

import pytest
import toy_exporter

from demiglace import export
from demiglace.cli import main
from demiglace.config.export_formats import EXPORTERS
from demiglace.errors import ConfigError, ModelError, UserError
from demiglace.export.base import Exporter, address_of, exporter_for, format_at
from demiglace.report.runs.load import collect
from demiglace.runs.directory import read_manifest
from factories import save_tiny

NAMES = ("bad", "good")


@pytest.fixture
def toy(monkeypatch):
    """The row, and a path on which the process that measures finds the file."""
    monkeypatch.setitem(EXPORTERS, "toy", "toy_exporter:ToyExporter")
    paths = [str(Path(toy_exporter.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    home = tmp_path_factory.mktemp("source")
    save_tiny(home / "model", num_layers=1, label_names=NAMES)
    texts = [f"{a} {b}" for a in ("good", "bad", "lost") for b in ("film", "card", "money", "red")]
    rows = [f"the {text} is it,{NAMES[i % 2]}" for i, text in enumerate(texts)]
    (home / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return home


def call_of(source, tmp_path, **options):
    given = {"model": str(source / "model"), "data": str(source / "rows.csv"), "output": tmp_path / "out", "to": "toy"}
    return given | {"repeats": 1} | options


def test_the_toy_is_written_checked_measured_and_reported(toy, source, tmp_path):
    run = export(**call_of(source, tmp_path, quantize="int8"))
    entries = {a["name"]: a for a in read_manifest(run)["artefacts"]}
    assert list(entries) == ["PyTorch", "Toy fp32", "Toy int8"]
    full, small = entries["Toy fp32"], entries["Toy int8"]
    assert (full["format"], full["precision"], full["role"], full["labels"]) == ("toy", "fp32", "export", 2)
    assert full["bytes"] == (run / "model.fp32.npz").stat().st_size
    assert full["label_agreement"] == 1.0 and full["largest_logit_difference"] < 1e-4
    assert small["precision"] == "int8" and small["largest_logit_difference"] > full["largest_logit_difference"]
    assert all(a["peak_memory_mb"] > 0 and set(a["latency_ms"]) == {"1", "32"} for a in entries.values())
    assert [(a.name, a.role) for a in collect([run]).artefacts] == [
        ("PyTorch", "original"), ("Toy fp32", "export"), ("Toy int8", "export")
    ]  # fmt: skip
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "library_name: toy" in card and "| Toy int8 |" in card and "onnx" not in card.lower()


def test_its_refusals_come_before_any_work(toy, source, tmp_path, monkeypatch):
    number = save_tiny(tmp_path / "number", num_layers=1, num_labels=1)
    with pytest.raises(ModelError, match=r"a model for regression cannot be exported to Toy: its archive holds"):
        export(**call_of(source, tmp_path, model=str(number)))
    monkeypatch.setattr(toy_exporter.ToyExporter, "packages", ("numpy", "toy_runtime"))
    with pytest.raises(UserError, match=r"^export to Toy needs toy_runtime, .*; run: pip install toy-runtime$"):
        export(**call_of(source, tmp_path))
    monkeypatch.setattr(toy_exporter.ToyExporter, "precisions", ("fp32",))
    with pytest.raises(ConfigError, match="--quantize was given 'int8', and export to Toy writes fp32 only"):
        export(**call_of(source, tmp_path, quantize="int8"))
    assert not (tmp_path / "out").exists()


def test_without_the_row_the_name_is_unknown(source, tmp_path):
    with pytest.raises(ConfigError, match=r"--to: unknown format 'toy'"):
        export(**call_of(source, tmp_path))
    with pytest.raises(ConfigError, match=r"unknown export format 'toy'.*export the model again"):
        address_of("toy")


def test_every_row_names_an_exporter_of_that_name():
    for name, address in EXPORTERS.items():
        exporter = exporter_for(name)
        assert isinstance(exporter, Exporter) and exporter.name == name and exporter.precisions
        assert format_at(address_of(name)).title == format_at(address).title


def test_help_lists_the_formats(capsys):
    assert main(["export", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in EXPORTERS)


def test_packages_of_onnx_are_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript, which is not installed; run: pip install 'onnx>="):
        exporter_for("onnx").require_packages()
