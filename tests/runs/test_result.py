"""What commands return."""

import dataclasses
import os
from pathlib import Path

import pytest

from demiglace.runs.files import write_json
from demiglace.runs.result import Result, ResultTable, number_table, training_result

TABLE = ResultTable("Metrics", ("split", "accuracy"), (("test <b>", "0.5000"),))


def test_a_result_is_used_as_its_path(tmp_path):
    (tmp_path / "log.jsonl").write_text("{}")
    result = Result(tmp_path, {"test": {"accuracy": 0.5}})
    assert os.fspath(result) == str(tmp_path)
    assert Path(result) == tmp_path
    assert result / "model" == tmp_path / "model"
    assert (result / "log.jsonl").read_text() == "{}"
    assert result.name == tmp_path.name and result.exists()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.path = Path()


def test_without_a_path_it_cannot_be_one():
    with pytest.raises(TypeError, match="no output"):
        os.fspath(Result(None))


def test_it_prints_tables_text_and_path():
    result = Result(Path("runs/x"), {}, (TABLE,), "a text")
    assert str(result) == "runs/x" and str(Result(None, {}, (), "a text")) == "a text"
    shown = result.summary()
    assert repr(result) == shown
    assert "Metrics" in shown and "test <b>" in shown
    assert shown.splitlines()[-2:] == ["a text", "runs/x"]
    html = Result(Path("runs/x"), {}, (TABLE,))._repr_html_()
    assert "<td>test &lt;b&gt;</td><td>0.5000</td>" in html and "<code>runs/x</code>" in html


def test_a_table_of_numbers_has_every_column():
    found = number_table("t", {"a": {"x": 0.25, "n": 1200}, "b": {"y": "text"}}, "set")
    assert found.columns == ("set", "x", "n", "y")
    assert found.rows == (("a", "0.2500", "1,200", "–"), ("b", "–", "–", "text"))


def test_the_result_of_a_training_run_is_in_its_manifest(tmp_path, monkeypatch):
    metrics = {"validation": {"accuracy": 0.5}}
    write_json(tmp_path / "manifest.json", {"stage": "finetune", "config": {}, "metrics": metrics})
    assert training_result(tmp_path).metrics == metrics
    assert training_result(tmp_path).manifest["stage"] == "finetune"
    monkeypatch.setenv("RANK", "1")
    assert training_result(tmp_path / "not yet").metrics == {}
