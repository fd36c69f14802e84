"""Digests of complete runs: what is recorded, what each reader notices, and `demiglace verify`."""

import json
import os
import shutil
from pathlib import Path

import pytest

import demiglace
from demiglace.cli import main
from demiglace.errors import ModelError, RunError
from demiglace.models.paths import resolve_model
from demiglace.runs import directory
from demiglace.runs.directory import open_run, read_manifest
from demiglace.runs.files import PARTIAL, write_json


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A complete run with predictions, a model, a card and leftovers of its training."""
    opened = open_run(tmp_path / "run", "distill", {"seed": 0}, {})
    for name in ("out.npy", "model/config.json", "model/model.safetensors", "last/model.safetensors"):
        (opened.path / name).parent.mkdir(exist_ok=True)
        (opened.path / name).write_bytes(b"content of " + name.encode())
    for name in ("model/README.md", "checkpoints/best.safetensors", f"out.npy.0a{PARTIAL}"):
        (opened.path / name).parent.mkdir(exist_ok=True)
        (opened.path / name).touch()
    write_json(opened.path / "inside" / "run.json", {"format": 1, "stage": "evaluate"})
    opened.finish(metrics={"accuracy": 0.5})
    return opened.path


def flip(file: Path, *, keep_time: bool = False) -> None:
    """Change one bit in the middle of a file."""
    before, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    later = before.st_mtime_ns + (0 if keep_time else 10**9)
    os.utime(file, ns=(later, later))


def test_every_file_that_stays_is_recorded(run: Path) -> None:
    files = read_manifest(run)["files"]
    models = {"last/model.safetensors", "model/config.json", "model/model.safetensors"}
    assert files.keys() == {"out.npy", "run.json"} | models
    assert files["out.npy"]["bytes"] == (run / "out.npy").stat().st_size
    assert set(files["out.npy"]) == {"bytes", "modified", "sha256"}


@pytest.mark.parametrize("how", ["other content", "bytes instead of", "is missing"])
@pytest.mark.parametrize("name", ["out.npy", "model/model.safetensors"])
def test_a_damaged_file_is_named_by_whoever_reads_it(run: Path, name: str, how: str) -> None:
    file = run / name
    if how == "other content":
        flip(file)
    elif how == "is missing":
        file.unlink()
        if file.parent == run:  # a file at the top may have been removed on purpose
            assert read_manifest(run)
            return
    else:
        file.write_bytes(b"")
    with pytest.raises(RunError, match=how) as caught:
        resolve_model(run) if name.startswith("model") else read_manifest(run)
    assert str(file) in str(caught.value) and "verify" in str(caught.value)
    if name == "out.npy":
        with pytest.raises(RunError, match=how):
            open_run(run, "distill", {"seed": 0}, {})


def test_a_model_is_checked_under_its_path_too(run: Path) -> None:
    flip(run / "model" / "config.json")
    with pytest.raises(RunError, match=r"config\.json has other content"):
        resolve_model(run / "model")


def test_a_touched_or_copied_run_is_intact(run: Path, tmp_path: Path) -> None:
    os.utime(run / "out.npy")
    shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy)  # without times
    for path in (run, tmp_path / "copy"):
        assert read_manifest(path)["metrics"] == {"accuracy": 0.5}
        assert resolve_model(path) == str(path / "model")


def test_a_changed_manifest_is_refused(run: Path) -> None:
    file = run / "manifest.json"
    file.write_text(file.read_text().replace("0.5", "0.6"))
    with pytest.raises(RunError, match=r"manifest\.json is damaged"):
        read_manifest(run)


@pytest.mark.parametrize("files", ["x", 3, ["out.npy"], {"out.npy": 3}, {"out.npy": {"bytes": "9"}}, {"out.npy": {}}])
def test_digests_that_are_none_are_refused(run: Path, files: object) -> None:
    directory.write_manifest(run, read_manifest(run) | {"files": files})
    with pytest.raises(RunError, match=r"digests of its files are damaged|has no usable digest on record"):
        read_manifest(run)


def test_a_manifest_of_an_earlier_version_is_read(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    write_json(run / "manifest.json", {k: v for k, v in manifest.items() if k not in ("files", "checksum")})
    flip(run / "out.npy")
    assert read_manifest(run)["metrics"] == {"accuracy": 0.5}
    assert "1 run of an earlier version" in demiglace.verify(run).text


def test_verify_finds_what_size_and_time_do_not_show(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demiglace.verify(run.parent).metrics == {str(run): 5}
    flip(run / "last" / "model.safetensors", keep_time=True)
    flip(run / "out.npy", keep_time=True)
    assert read_manifest(run)
    assert main(["verify", str(run.parent)]) == 2
    error = capsys.readouterr().err
    assert "2 files not as the run wrote them" in error
    assert str(run / "out.npy") in error and str(run / "last" / "model.safetensors") in error


def test_a_run_whose_identity_is_damaged_is_still_a_run(run: Path) -> None:
    (run / "run.json").write_bytes(b"\x00")
    with pytest.raises(RunError, match=r"run\.json has 1 bytes instead of"):
        demiglace.verify(run.parent)


def test_a_removed_directory_of_weights_is_no_damage(run: Path) -> None:
    shutil.rmtree(run / "last")
    assert demiglace.verify(run).metrics
    (run / "model" / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"model\.safetensors is missing"):
        demiglace.verify(run)


def test_changes_made_on_purpose_can_be_accepted(run: Path) -> None:
    (run / "model" / "config.json").write_text('{"id2label": {"0": "no"}}')
    with pytest.raises(RunError, match="--accept"):
        resolve_model(run)
    demiglace.verify(run, accept=True)
    assert resolve_model(run) == str(run / "model")
    assert demiglace.verify(run).metrics == {str(run): 5}


def test_verify_refuses_a_path_without_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        demiglace.verify(tmp_path)


def test_an_unfinished_run_is_not_a_model(tmp_path: Path) -> None:
    open_run(tmp_path / "run", "distill", {}, {})
    with pytest.raises(ModelError, match="unfinished"):
        resolve_model(tmp_path / "run")


def test_leftovers_are_removed_when_the_run_is_found_complete(run: Path) -> None:
    assert (run / "checkpoints").exists()
    assert open_run(run, "distill", {"seed": 0}, {}).complete
    assert not (run / "checkpoints").exists() and not list(run.glob(f"*{PARTIAL}"))


def test_a_task_of_a_comparison_may_be_called_like_a_leftover(tmp_path: Path) -> None:
    for _ in range(2):
        opened = open_run(tmp_path / "home", "compare", {}, {}, shared=True)
        (opened.path / "work" / "half").mkdir(parents=True, exist_ok=True)
        if not opened.complete:
            opened.finish()
    open_run(tmp_path / "home", "compare", {}, {}, shared=True)
    assert (tmp_path / "home" / "work" / "half").exists()


def test_a_complete_run_on_a_read_only_disk_is_up_to_date(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(run.rglob("*"))
    monkeypatch.setattr(directory.os, "access", lambda path, mode: False)
    assert open_run(run, "distill", {"seed": 0}, {}).complete
    with pytest.raises(RunError, match="seed: 0 there, 1 now"):
        open_run(run, "distill", {"seed": 1}, {})
    assert sorted(run.rglob("*")) == before


def test_the_card_is_written_before_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, seen = open_run(tmp_path / "run", "distill", {}, {}), []

    def card(manifest: dict) -> None:
        assert not (opened.path / "manifest.json").exists()
        seen.append(manifest["metrics"])

    opened.finish(card, metrics={"accuracy": 1.0})
    assert seen == [{"accuracy": 1.0}] and (opened.path / "manifest.json").exists()
