"""`clean-up`: what it removes, what it leaves alone, and what it reports."""

import json
import shutil
from pathlib import Path

import pytest
from command_kit import QUICK, arguments
from filelock import FileLock

import demiglace
from demiglace.cli import main
from demiglace.errors import RunError
from demiglace.runs.directory import open_run


def names(run: Path) -> set[str]:
    return {p.name for p in run.iterdir()} - {".lock"}


def make_run(path: Path, *, complete: bool = True, stage: str = "distill") -> Path:
    """A run directory with 30 bytes that can be removed and 3 that are the result."""
    run = open_run(path, stage, {}, {})
    for name in ("last/model.safetensors", "checkpoints/last.safetensors", "signals/abc/states.npy"):
        (path / name).parent.mkdir(parents=True)
        (path / name).write_bytes(b"0123456789")
    (path / "model").mkdir()
    (path / "model" / "model.safetensors").write_bytes(b"abc")
    if complete:
        run.finish()
    else:
        run._lock.release()
    return path


def test_a_trained_run_keeps_its_model_and_stays_up_to_date(tmp_path, teacher, rows, base, capsys):
    run = shutil.copytree(teacher, tmp_path / "teacher")
    expected = sum(f.stat().st_size for f in (run / "last").iterdir())
    assert main(["clean-up", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {str(run): expected}
    assert names(run) == {"manifest.json", "run.json", "log.jsonl", "model"}
    assert main(arguments("finetune", model=base, output=run, **rows, **QUICK)) == 0
    assert "is up to date" in capsys.readouterr().err


def test_unfinished_runs_are_left_alone_unless_named_by_a_flag(tmp_path, capsys):
    done, half = make_run(tmp_path / "a" / "done"), make_run(tmp_path / "half", complete=False)
    result = demiglace.clean_up(tmp_path)
    assert result.metrics == {str(done): 30}
    assert "freed 30.0\xa0B in 1 of 2 runs" in result.text
    assert f"1 unfinished run ({half})" in capsys.readouterr().err
    assert names(half) == {"run.json", "last", "checkpoints", "signals", "model"}
    assert demiglace.clean_up(tmp_path, unfinished=True).metrics == {str(half): 30}
    assert names(half) == {"run.json", "model"}


def test_a_dry_run_removes_nothing(tmp_path):
    run = make_run(tmp_path / "run")
    before = sorted(run.rglob("*"))
    assert "would free 30.0\xa0B" in demiglace.clean_up([run], dry_run=True).text
    assert sorted(run.rglob("*")) == before


def test_a_run_in_use_is_left_alone(tmp_path, capsys):
    run = make_run(tmp_path / "run", complete=False)
    with FileLock(run / ".lock"):
        assert demiglace.clean_up(run, unfinished=True).metrics == {}
    assert "in use by another process" in capsys.readouterr().err
    assert (run / "checkpoints").exists()


@pytest.mark.parametrize("complete", [True, False])
def test_a_comparisons_shared_caches_go_when_it_is_finished(tmp_path, complete):
    home = tmp_path / "comparison"
    run = open_run(home, "compare", {}, {}, shared=True)
    student = make_run(home / "sst2" / "half" / "seed-0")
    (home / "sst2" / "signals" / "abc").mkdir(parents=True)
    (home / "sst2" / "signals" / "abc" / "states.npy").write_bytes(b"01234")
    if complete:
        run.finish()
    assert demiglace.clean_up(home).metrics == {str(student): 30} | ({str(home): 5} if complete else {})
    assert (home / "sst2" / "signals").exists() is not complete


def test_files_of_others_are_never_touched(tmp_path):
    outside = tmp_path / "outside"
    (outside / "checkpoints").mkdir(parents=True)
    (outside / "run.json").write_text('{"stage": "training"}')
    with pytest.raises(RunError, match="holds no run of demiglace"):
        demiglace.clean_up(outside)
    run = open_run(tmp_path / "run", "distill", {}, {})
    (run.path / "signals").symlink_to(outside)
    run.finish()
    assert demiglace.clean_up(tmp_path).metrics == {}
    assert (outside / "checkpoints").exists() and (run.path / "signals").is_symlink()
