"""The declaration of a comparison: written before the runs, with a history of every later change."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from compare_kit import compare

from demiglace.compare import run as compare_run
from demiglace.compare.grid import parse_grid
from demiglace.compare.protocol import declaration, declare
from demiglace.runs.directory import open_run, read_manifest
from demiglace.runs.files import read_json

PAIR = {"method": "vanilla-kd", "control": "none"}


def test_nothing_is_written_where_nothing_is_declared(content, tmp_path):
    (tmp_path / "locks").mkdir()
    declare(tmp_path, parse_grid(content), content)
    assert declaration(tmp_path) is None and not (tmp_path / "protocol.json").exists()


@pytest.fixture
def declares(content, tmp_path):
    """A function that declares the grid with other sections in a comparison's directory, and returns what holds."""
    home = tmp_path / "runs"
    (home / "locks").mkdir(parents=True)

    def declares(**sections: Any) -> dict[str, Any]:
        declare(home, parse_grid(content | sections), content | sections)
        return declaration(home)

    declares.begin = lambda: begin(home / "mood/half/none/seed-0")
    return declares


def begin(run: Path) -> None:
    open_run(run, "distill", {}, {}, shared=True)
    (run / "log.jsonl").touch()


def test_what_changes_before_the_first_run_is_a_declaration_still(declares):
    assert not declares(primary=[PAIR])["changed_after_first_run"]
    found = declares(primary=[PAIR | {"margin": 0.5}])
    assert not found["changed_after_first_run"] and len(found["history"]) == 2


def test_a_contrast_that_changes_after_the_first_run_is_kept_beside_the_old_one(declares):
    first = declares(primary=[PAIR])
    declares.begin()
    assert declares(primary=[PAIR]) == first
    changed = declares(primary=[PAIR | {"tasks": "average"}])
    assert changed["changed_after_first_run"]
    assert changed["history"][0] == first["history"][0] and changed["history"][1]["primary"][0]["average"]
    back = declares(primary=[PAIR])  # the old contrasts once more: both changes stay
    assert back["changed_after_first_run"] and len(back["history"]) == 3
    assert declares()["history"][3]["primary"] == []


def test_a_contrast_that_is_declared_after_the_first_run_is_no_declaration(declares):
    declares.begin()
    assert declares(primary=[PAIR])["changed_after_first_run"]


def test_more_seeds_change_the_grid_and_not_what_was_declared(declares):
    first = declares(primary=[PAIR])
    declares.begin()
    more = declares(primary=[PAIR], seeds=[0, 1, 2])
    assert not more["changed_after_first_run"] and more["declared_at"] == first["declared_at"]
    assert more["history"][0]["grid_sha256"] != more["history"][1]["grid_sha256"]


def test_the_protocol_is_hashed_before_anything_runs(content, tmp_path, monkeypatch):
    home, file = tmp_path / "runs", tmp_path / "protocol.md"
    file.write_text("none against vanilla-kd")
    seen = []
    monkeypatch.setattr(
        compare_run.LocalExecutor, "run", lambda self: seen.append(read_json(self.root / "protocol.json"))
    )
    assert compare(content | {"protocol": "protocol.md", "primary": [PAIR]}, home) == 0
    (entry,) = seen[0]["history"]
    assert entry["sha256"] == hashlib.sha256(b"none against vanilla-kd").hexdigest()
    assert entry["file"] == str(file) and not entry["after_first_run"]


def test_a_protocol_that_changes_after_the_runs_is_noticed(content, tmp_path):
    home, file = tmp_path / "runs", tmp_path / "protocol.md"
    one = content | {"methods": {"none": {}}, "baselines": False, "seeds": [0], "protocol": "protocol.md"}
    file.write_text("first")
    assert compare(one, home) == 0
    declared = read_json(home / "summary.json")["protocol"]
    assert not declared["changed_after_first_run"] and read_manifest(home)["protocol"] == declared
    file.write_text("second")
    assert compare(one, home) == 0
    changed = read_json(home / "summary.json")["protocol"]
    assert changed["changed_after_first_run"] and changed["sha256"] == hashlib.sha256(b"second").hexdigest()
    assert changed["history"][0]["sha256"] == declared["sha256"]
    assert read_manifest(home)["protocol"] == changed


def test_a_protocol_that_is_not_there_is_refused(content, tmp_path, capsys):
    assert compare(content | {"protocol": "gone.md"}, tmp_path / "runs") == 2
    assert f"protocol: there is no file {tmp_path / 'gone.md'}" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()
