"""Damaged checkpoints and caches, and full disks: a clear error, nothing lost, and the same command goes on."""

import errno
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_kit import SAVED, arguments, damage, in_child, strike, weights

from demiglace.cli import main
from demiglace.signals import hidden_state_cache, shard_store
from demiglace.training import checkpoint, loop
from demiglace.training import run as fit
from demiglace.training.log import RunLog

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hidden_state_cache, "SHARD_ROWS", 16)
        yield


@pytest.fixture
def line(teacher: Path, rows: dict[str, str], tmp_path: Path) -> list[str]:
    """The command under test; its run is at tmp_path / run, its cache in tmp_path / cache."""
    return arguments(
        "distill",
        teacher=teacher,
        layers=2,
        output=tmp_path / "run",
        cache=tmp_path / "cache",
        cache_dtype="float32",
        **rows,
        **SAVED,
    )


@pytest.fixture(scope="module")
def whole(home: Path, teacher: Path, rows: dict[str, str]) -> dict[str, torch.Tensor]:
    """The weights that an undisturbed run ends with."""
    given = {"layers": 2, "cache_dtype": "float32"} | rows | SAVED
    assert main(arguments("distill", teacher=teacher, output=home / "undamaged", **given)) == 0
    return weights(home / "undamaged")


def assert_goes_on(line: list[str], run: Path, whole: dict[str, torch.Tensor]) -> None:
    assert main(line) == 0
    found = weights(run)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def cut_off(line: list[str]) -> None:
    """A run that was killed in its second epoch."""
    assert in_child(line, lambda: strike(loop, "save_checkpoint", 8, after=True)) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("which", "how"),
    # without a last checkpoint at all, a run starts from its first step
    [*itertools.product(("last", "best-0"), ("cut", "end", "position", "empty")), ("best-0", "gone")],
)
def test_a_damaged_checkpoint_is_named_and_can_be_restored(
    which: str,
    how: str,
    line: list[str],
    tmp_path: Path,
    whole: dict[str, torch.Tensor],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut_off(line)
    folder = tmp_path / "run" / "checkpoints"
    file = folder / f"{which}.safetensors"
    kept, log = file.read_bytes(), (tmp_path / "run" / "log.jsonl").read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "position":  # a digit of the step count, or of the epoch
        name = b'\\"step\\": ' if which == "last" else b'\\"epoch\\": '
        assert kept.count(name) == 1
        file.write_bytes(kept.replace(name + b"0", name + b"3").replace(name + b"7", name + b"3"))
    else:
        damage(file, how)
    assert main(line) == 2
    error = capsys.readouterr().err
    assert f"{file} is damaged" in error
    assert f"remove {folder} and repeat" in error
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log
    if how == "cut":
        shutil.rmtree(folder)
    else:
        file.write_bytes(kept)
    assert_goes_on(line, tmp_path / "run", whole)


def test_drafts_that_were_left_over_are_ignored(
    line: list[str], tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    cut_off(line)
    for name in ("checkpoints/last.safetensors.part", "checkpoints/best-0.safetensors.part", "manifest.json.part"):
        (tmp_path / "run" / name).write_bytes(b"half")
    (tmp_path / "run" / "model.part").mkdir()
    (tmp_path / "run" / "model.part" / "foreign.bin").touch()
    assert_goes_on(line, tmp_path / "run", whole)
    assert not list((tmp_path / "run").rglob("*.part"))
    assert not list((tmp_path / "run").rglob("foreign.bin"))


@pytest.mark.parametrize("how", ["cut", "middle", "empty", "gone"])
@pytest.mark.parametrize("name", ["logits.npy", "shard-00001.json"])
def test_a_corrupt_cache_is_named_and_can_be_removed(
    name: str,
    how: str,
    line: list[str],
    tmp_path: Path,
    whole: dict[str, torch.Tensor],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut_off(line)
    (file,) = (tmp_path / "cache").rglob(name)
    if how == "gone":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    else:
        damage(file, how)
    if (name, how) == ("shard-00001.json", "gone"):  # a shard that was never finished
        assert_goes_on(line, tmp_path / "run", whole)
        return
    assert main(line) == 2
    assert f"remove {file.parent} and repeat the command" in capsys.readouterr().err
    shutil.rmtree(file.parent)
    assert_goes_on(line, tmp_path / "run", whole)


def test_a_half_laid_out_cache_whose_file_shrank_is_an_error(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_child(line, lambda: strike(shard_store, "_write_shard", 2)) == -signal.SIGKILL
    (file,) = (tmp_path / "cache").rglob("logits.npy")
    damage(file, "cut")
    assert main(line) == 2
    assert f"could not be written to {file.parent}" in capsys.readouterr().err


def full_at(owner: Any, name: str, at: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Let the disk be full at the `at`-th call of `owner.name`."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original, calls = getattr(owner, name), []

        def called(*args: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) >= at:
                raise FULL
            return original(*args, **options)

        monkeypatch.setattr(owner, name, called)

    return patch


def full_for(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Let the disk be full when a draft is to become the file of this name."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = Path.replace

        def replace(draft: Path, target: Path) -> Path:
            if target.name == name:
                raise FULL
            return original(draft, target)

        monkeypatch.setattr(Path, "replace", replace)

    return patch


DISKS = {
    "first checkpoint": (full_at(checkpoint, "save_file", 1), "checkpoints"),
    "later checkpoint": (full_at(checkpoint, "save_file", 8), "checkpoints"),
    "checkpoint not flushed": (full_at(os, "fsync", 20), "checkpoints"),
    "cache laid out": (full_at(shard_store.np.lib.format, "open_memmap", 2), "cache"),
    "cache claimed": (full_at(shard_store, "write_json", 1), "cache"),
    "shard's receipt": (full_at(shard_store, "write_json", 3), "cache"),
    "RUN/last": (full_at(fit, "write_model", 1), "last"),
    "RUN/model": (full_at(fit, "write_model", 2), "model"),
    "manifest": (full_for("manifest.json"), "manifest.json"),
}


@pytest.mark.parametrize("where", DISKS)
def test_a_full_disk_is_a_clear_error_and_the_command_goes_on(
    where: str, line: list[str], tmp_path: Path, whole: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    fill_disk, named = DISKS[where]
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch)
        assert main(line) == 2
    error = capsys.readouterr().err.split("error: ")[-1]
    assert "No space left on device" in error
    assert str(tmp_path) in error
    assert named in error
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert not list((tmp_path / "run").rglob("*.safetensors.part"))
    assert_goes_on(line, tmp_path / "run", whole)


def test_a_disk_that_is_too_small_is_refused_before_training(
    line: list[str], tmp_path: Path, whole: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        free = itertools.chain([10**12], itertools.repeat(1000))  # enough for the cache, which is checked first
        patch.setattr(fit.shutil, "disk_usage", lambda path: SimpleNamespace(free=next(free)))
        assert main(line) == 2
    assert "for the model and one checkpoint, and its disk has 0 MB left" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert_goes_on(line, tmp_path / "run", whole)


def test_a_full_disk_leaves_the_checkpoint_before_intact(line: list[str], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        full_at(checkpoint, "save_file", 4)(patch)
        assert main(line) == 2
    _, position = checkpoint.load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert position["step"] == 3


def test_a_log_that_cannot_be_written_is_an_error(
    line: list[str], tmp_path: Path, whole: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    original, file = Path.open, tmp_path / "run" / "log.jsonl"

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if path == file and mode == "a" and file.exists() and RunLog(file).size > 900:
            raise FULL
        return original(path, mode, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", opened)
        assert main(line) == 2
    assert f"{file} could not be written" in capsys.readouterr().err
    assert_goes_on(line, tmp_path / "run", whole)
    assert [json.loads(x)["kind"] for x in file.read_text().splitlines()].count("step") == 10
