"""Neither a command nor a process that it starts imports modules from the current directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import demiglace
from demiglace.cleaning import tasks
from demiglace.interpreters import leave_out_current_directory, safe_children
from demiglace.runs.directory import read_manifest
from factories import save_tiny


def child_imports_planted(mark: Path) -> bool:
    subprocess.run([sys.executable, "-c", "import queue"], check=False, capture_output=True)
    return mark.exists()


def test_the_planted_modules_are_found_without_a_safe_path(planted):
    assert child_imports_planted(planted)


def test_a_safe_path_is_inherited_and_ends(planted):
    with safe_children():
        assert not child_imports_planted(planted)
    assert "PYTHONSAFEPATH" not in os.environ


def test_a_users_setting_survives(monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "yes")
    with safe_children():
        pass
    assert os.environ["PYTHONSAFEPATH"] == "yes"


def test_only_the_entry_of_the_current_directory_is_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, left in (([str(tmp_path), "x"], ["x"]), (["", "x"], ["x"]), (["x", str(tmp_path)], ["x", str(tmp_path)])):
        monkeypatch.setattr(sys, "path", list(path))
        leave_out_current_directory()
        assert sys.path == left


def test_python_m_demiglace(planted):
    Path("typing.py").unlink()  # imported by the package itself, before its first statement
    done = subprocess.run([sys.executable, "-m", "demiglace", "methods"], capture_output=True, text=True, check=False)
    assert not planted.exists()
    assert done.returncode == 0, done.stderr


def test_export(planted, tmp_path):
    pytest.importorskip("onnxruntime")
    model = save_tiny(tmp_path / "model", num_layers=1, label_names=("bad", "good"))
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "\n".join(f"the film is {c},good" for c in ("red", "blue", "green")) + "\n")
    run = demiglace.export(model=str(model), data=str(rows), output=tmp_path / "out", repeats=1)
    assert len(read_manifest(run)["artefacts"]) == 2
    assert not planted.exists()


def test_workers_of_clean(planted, tmp_path, monkeypatch):
    pytest.importorskip("daft")
    monkeypatch.setattr(tasks, "PART", 10)  # a task for each file, so that processes are started
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [gopher-repetition]\n")
    for i in range(2):
        (tmp_path / f"{i}.txt").write_text("The quiet river crossed a garden near the old bridge.\n")
    sources = [str(tmp_path / f"{i}.txt") for i in range(2)]
    run = demiglace.clean(sources=sources, output=tmp_path / "run", rules=str(rules), workers=2)
    assert read_manifest(run)["totals"]["documents"][0] == 2
    assert not planted.exists()
