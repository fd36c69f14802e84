"""Finished runs of a comparison are moved to another machine without weights, where they count as done."""

import json
import re
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "compare"))
sys.path.insert(0, str(Path(__file__).parent.parent / "commands"))

from command_kit import write_rows
from compare_kit import compare, grid_of, made, replicated

from demiglace.runs.files import read_json
from factories import save_tiny


@pytest.fixture
def script(load, monkeypatch: pytest.MonkeyPatch):
    module = load("keep_runs.py")
    monkeypatch.setattr(module, "MACHINE_PATH", re.compile("(?!)"))  # the tests' own paths are absolute
    return module


def test_unpacked_replicates_are_done_and_cut_off_ones_are_run_again(script, tmp_path: Path) -> None:
    save_tiny(tmp_path / "base", label_names=("negative", "positive"))
    write_rows(tmp_path / "rows")
    content, home, archive = replicated(grid_of(tmp_path), 1, 2), tmp_path / "out", tmp_path / "runs.tar.xz"
    assert compare(content, home) == 0
    summary = read_json(home / "summary.json")
    shutil.rmtree(home / "mood" / "half" / "none" / "replicate-2")  # a student that is not there yet
    script.pack(home, archive)
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert not [n for n in names if n.endswith((".safetensors", ".lock"))]
    shutil.move(home, tmp_path / "before")
    script.unpack(archive, home, home.with_suffix(".yaml"))
    kept = made(home)
    assert "mood/half/none/replicate-1.evaluation" in kept
    assert not [key for key in kept if "replicate-2" in key]
    assert compare(content, home) == 0
    assert {key: time for key, time in made(home).items() if key in kept} == kept
    again = read_json(home / "summary.json")
    assert [c["sets"] for c in again["cells"]] == [c["sets"] for c in summary["cells"]]


def test_grids_with_seeds_cannot_be_continued(script, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(json.dumps(grid_of(tmp_path)))
    with pytest.raises(SystemExit, match="expected a grid with replicates"):
        script.unpack(tmp_path / "runs.tar.xz", tmp_path / "out", tmp_path / "grid.yaml")


def test_paths_of_a_machine_are_not_packed(load, tmp_path: Path) -> None:
    run = tmp_path / "out" / "run"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"model": "/srv/someone/model"}))
    with pytest.raises(SystemExit, match="contains a path of this machine"):
        load("keep_runs.py").pack(tmp_path / "out", tmp_path / "runs.tar.xz")


def test_an_unfinished_search_resumes_after_its_last_trial(script, tmp_path: Path) -> None:
    home, archive, grid = tmp_path / "out", tmp_path / "runs.tar.xz", tmp_path / "grid.yaml"
    grid.write_text(json.dumps(replicated(grid_of(tmp_path), 1, 2)))
    search = "mood/half/none/search"
    kept = [
        f"{search}/{name}" for name in ("search.json", "search.db", "predictions-trial-0.npy", "trial-0/manifest.json")
    ]
    others = [
        f"{search}/trial-0/model/config.json",
        f"{search}/trial-1/run.json",
        "mood/teacher/replicate-0/manifest.json",
    ]
    for name in (*kept, *others):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("{}")
    script.pack(home, archive)
    script.unpack(archive, tmp_path / "new", grid)
    unpacked = {str(f.relative_to(tmp_path / "new")) for f in (tmp_path / "new").rglob("*") if f.is_file()}
    assert unpacked == set(kept)
