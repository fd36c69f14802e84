"""`report --tables`: the page's tables as files."""

import csv
import json
from pathlib import Path

import pytest
from comparison_kit import write_comparison
from report_runs import write_demo

import demiglace
from demiglace.errors import RunError


def test_tables_of_runs(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    demiglace.report(runs=[str(demo)], output=tmp_path / "p.html", tables=tmp_path / "tables")
    files = {f.name: f.read_text("utf-8") for f in (tmp_path / "tables").iterdir()}
    assert files.keys() == {"tables.md", "tables.tex", "results.csv", "results.json"}
    rows = list(csv.DictReader(files["results.csv"].splitlines()))
    found = {(r["row"], r["column"]): r["value"] for r in rows if r["table"] == "models of banking77"}
    assert {r["number"] for r in rows if r["table"] == "models of banking77"} == {"1", "2", "3"}
    assert float(found["teacher", "Accuracy"]) == 0.928
    assert "**92.8**" in files["tables.md"] and r"\textbf{92.8" in files["tables.tex"]
    models = json.loads(files["results.json"])[0]["rows"]
    assert [m["Accuracy"] for m in models] == [0.928, 0.918, 0.915]


def test_tables_of_a_comparison(tmp_path: Path) -> None:
    home = write_comparison(tmp_path / "c", tasks=("sst2",), seeds=3)
    demiglace.report(runs=[str(home)], output=tmp_path / "p.html", tables=tmp_path / "tables")
    names = {f.name for f in (tmp_path / "tables").iterdir()}
    assert names == {"tables.md", "tables.tex", "results.csv", "summary.json"}
    assert "rail-kd-l" in (tmp_path / "tables" / "tables.md").read_text("utf-8")


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    (tmp_path / "tables").write_text("")
    with pytest.raises(RunError, match="is no directory to write tables to"):
        demiglace.report(runs=[str(demo)], output=tmp_path / "p.html", tables=tmp_path / "tables")
