"""The run directory: its states, and its integrity after a crash or on a full disk."""

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from demiglace.config.command_options import TasksConfig
from demiglace.config.options import command
from demiglace.errors import RunError
from demiglace.runs import files
from demiglace.runs.directory import open_run, read_manifest
from demiglace.runs.environment import machine, versions
from demiglace.runs.files import atomic_write, file_name, fingerprint, read_json, write_atomically, write_json
from demiglace.training.checkpoint import load_checkpoint, save_checkpoint
from factories import save_tiny

CONFIG = {"learning_rate": 1e-4, "keep": (0, 2), "data": Path("rows.csv"), "method_options": {"tau": 2.0}}
INPUTS = {"teacher": "0123", "data": "4567"}


def begin(path, config=CONFIG, inputs=INPUTS, stage="distill"):
    return open_run(path, stage, config, inputs)


def test_a_new_directory_is_claimed_and_completed(tmp_path):
    run = begin(tmp_path / "deep" / "run")
    assert not run.complete
    assert read_json(run.path / "run.json")["config"]["data"] == "rows.csv"
    run.finish(rows={"train": 8})
    manifest = read_manifest(run.path)
    assert manifest["stage"] == "distill"
    assert manifest["inputs"] == INPUTS
    assert manifest["config"]["keep"] == [0, 2]
    assert manifest["rows"] == {"train": 8}
    assert {"versions", "machine"} <= manifest.keys()
    assert run.manifest == manifest


def test_the_same_call_resumes_and_later_finds_it_complete(tmp_path):
    assert not begin(tmp_path).complete
    (tmp_path / "checkpoint").mkdir()
    resumed = begin(tmp_path)
    assert not resumed.complete
    resumed.finish()
    assert begin(tmp_path).complete


def test_what_a_kill_in_the_first_moment_leaves_is_taken_up(tmp_path):
    (tmp_path / "run.json.part").write_text('{"for')
    (tmp_path / ".lock").touch()
    assert not begin(tmp_path).complete
    assert not list(tmp_path.glob("*.part"))


def test_another_run_is_refused_and_every_differing_key_named(tmp_path):
    begin(tmp_path)
    (tmp_path / "log.jsonl").touch()
    other = CONFIG | {"learning_rate": 2e-4, "method_options": {"tau": 4.0}}
    with pytest.raises(RunError) as caught:
        begin(tmp_path, other, INPUTS | {"teacher": "89ab"})
    message = str(caught.value)
    assert "learning_rate: 0.0001 there, 0.0002 now" in message
    assert "method_options.tau: 2.0 there, 4.0 now" in message
    assert "inputs.teacher: '0123' there, '89ab' now" in message
    assert "keep" not in message
    with pytest.raises(RunError, match="stage: 'distill' there, 'finetune' now"):
        begin(tmp_path, stage="finetune")


def test_a_claim_without_any_work_yields_to_another_run(tmp_path):
    begin(tmp_path, CONFIG | {"learning_rate": 2e-4})
    assert begin(tmp_path).config["learning_rate"] == 1e-4
    assert read_json(tmp_path / "run.json")["config"]["learning_rate"] == 1e-4


def test_a_directory_of_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="no demiglace run"):
        begin(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"):
        begin(tmp_path / "file")
    with pytest.raises(RunError, match="cannot be created"):
        begin(tmp_path / "file" / "run")


def test_a_directory_in_use_by_another_process_is_refused(tmp_path):
    hold = f"""
import sys
from demiglace.runs.directory import open_run
run = open_run({str(tmp_path)!r}, "finetune", {{}}, {{}})
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(RunError, match="in use by another process"):
            begin(tmp_path, {}, {}, "finetune")
        holder.kill()
        holder.wait()
    assert not begin(tmp_path, {}, {}, "finetune").complete  # kill -9 leaves no lock behind


@pytest.mark.parametrize("end", ["finish", "drop", "refuse"])
def test_a_run_that_has_ended_can_be_opened_elsewhere(tmp_path, end):
    run = begin(tmp_path)
    if end == "finish":
        run.finish()
    elif end == "refuse":
        del run
        (tmp_path / "log.jsonl").touch()
        with pytest.raises(RunError) as kept:  # as a notebook keeps the last error
            begin(tmp_path, {})
        assert kept
    else:
        del run
    code = f"from filelock import FileLock; FileLock({str(tmp_path / '.lock')!r}).acquire(timeout=0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_whose_error_is_still_held_can_be_repeated(tmp_path):
    held = begin(tmp_path)
    assert not begin(tmp_path).complete
    assert not held.complete


def test_an_unfinished_run_and_no_run_have_no_manifest(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(RunError, match="unfinished run; repeat its command"):
        read_manifest(tmp_path / "run")
    with pytest.raises(RunError, match="no run directory"):
        read_manifest(tmp_path / "elsewhere")


@pytest.mark.parametrize("content", [b"", b'{"format": 1', b"[1]", b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        begin(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_content_and_no_draft(tmp_path, monkeypatch, call):
    file = tmp_path / "state"
    write_atomically(file, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
    with pytest.raises(RunError, match=r"could not be written: No space left on device"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_an_error_in_an_atomic_write_leaves_the_old_file_and_is_raised_again(tmp_path):
    file = tmp_path / "new" / "file"
    with atomic_write(file) as partial:
        assert partial.parent == file.parent and partial.name.endswith(".part")
        partial.write_text("old")
        assert not file.exists()
    with pytest.raises(KeyError), atomic_write(file) as partial:
        partial.write_text("half")
        raise KeyError
    assert [(p.name, p.read_text()) for p in file.parent.iterdir()] == [("file", "old")]


def test_processes_that_write_one_file_do_not_disturb_each_other(tmp_path):
    file, contents, torn = tmp_path / "file", [bytes([65 + i]) * 50_000 for i in range(4)], []

    def write(content: bytes) -> None:
        for _ in range(50):
            write_atomically(file, content)
            if file.read_bytes() not in contents:
                torn.append(content)

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert not torn
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "00")
    (tmp_path / "secret").write_text("kept")
    (tmp_path / "file.00.part").symlink_to(tmp_path / "secret")
    with pytest.raises(RunError, match="could not be written"):
        write_atomically(tmp_path / "file", b"other")
    assert (tmp_path / "secret").read_text() == "kept"
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("name", ["..", ".", "???", "", "/", "a" * 300, "é" * 200, "\x00", "-.-", "con:\n", "\ud800"])
def test_any_name_becomes_a_file_name(name, tmp_path):
    plain = file_name(name)
    assert plain and plain not in (".", "..") and "/" not in plain
    (tmp_path / f"{plain}.predictions.npy").touch()
    assert [p.parent for p in tmp_path.iterdir()] == [tmp_path]


def test_file_names_are_those_of_earlier_versions():
    assert file_name("mnli:validation") == "mnli-validation"
    assert file_name("../data/a b.csv") == "data-a-b.csv"
    assert file_name("???") != file_name("??")
    assert file_name("a" * 300) != file_name("a" * 301)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "out.bin"),
        PermissionError(errno.EACCES, "Permission denied", "out.bin"),
        Exception("I/O error: No space left on device (os error 28)"),  # as tokenizers and safetensors raise it
    ],
)
def test_a_full_or_closed_disk_is_a_sentence_in_every_command(error, tmp_path):
    @command(TasksConfig)
    def tasks(config: TasksConfig) -> None:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("could not save") from cause

    with pytest.raises(RunError, match=r"could not be read or written: (No space left|Permission denied).*--output"):
        tasks()


def test_other_errors_of_a_command_are_raised_as_they_are():
    @command(TasksConfig)
    def tasks(config: TasksConfig) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tasks()


def test_a_checkpoint_with_another_dtype_or_shape_is_damaged(tmp_path):
    file = tmp_path / "last.safetensors"
    for old, new in ((b'"F32"', b'"I32"'), (b"[2,3]", b"[3,2]")):
        save_checkpoint(file, {"weight": torch.ones(2, 3)}, {"step": 1})
        content = file.read_bytes()
        assert old in content
        file.write_bytes(content.replace(old, new))
        with pytest.raises(RunError, match="checksum does not match"):
            load_checkpoint(file)


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    write_json(tmp_path / "f.json", {"f1": np.float32(0.5), "rows": np.int64(3), "path": Path("a/b"), "é": "ü"})
    assert json.loads((tmp_path / "f.json").read_text("utf-8")) == {"f1": 0.5, "rows": 3, "path": "a/b", "é": "ü"}
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        write_json(tmp_path / "g.json", {"model": object()})
    assert not (tmp_path / "g.json").exists()


def test_the_fingerprint_is_of_names_and_contents_in_any_order(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    first = fingerprint([a, b])
    assert first == fingerprint([str(b), a])
    assert len(first) == 16
    b.write_bytes(b"3")
    assert fingerprint([a, b]) != first
    b.write_bytes(b"2")
    assert fingerprint([a, b.rename(tmp_path / "c")]) != first


def test_versions_and_machine_say_what_ran():
    assert versions()["torch"].startswith("2.")
    assert {"processor", "cores", "memory_gib", "system", "python"} == machine().keys()


def test_a_run_of_the_earlier_version_is_read_under_the_names_of_now(tmp_path):
    old = CONFIG | {"clip": 1.0, "tune": False}
    old["lr"] = old.pop("learning_rate")
    write_json(tmp_path / "run.json", {"format": 1, "stage": "distill", "config": old, "inputs": INPUTS})
    (tmp_path / "log.jsonl").touch()
    now = CONFIG | {"max_grad_norm": 1.0, "holdout_from_train": False}
    with pytest.raises(RunError, match=r"differs in:\n  learning_rate: 0.0001 there, 0.0002 now\n"):
        begin(tmp_path, now | {"learning_rate": 2e-4})
    begin(tmp_path, now).finish()
    write_json(tmp_path / "manifest.json", read_json(tmp_path / "run.json"))
    assert read_manifest(tmp_path)["config"] == json.loads(json.dumps(now, default=str))
    assert begin(tmp_path, now).complete


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_every_file_of_a_run_has_the_permissions_that_umask_grants(tmp_path, umask):
    """safetensors writes its files with 0600; a group that shares a disk could not read weights and checkpoints."""
    before = os.umask(umask)
    try:
        save_tiny(tmp_path / "model")
        save_checkpoint(tmp_path / "checkpoint.safetensors", {"a": torch.zeros(1)}, {})
        open_run(tmp_path / "run", "distill", {}, {}).finish()
    finally:
        os.umask(before)
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert len(files) >= 7
    assert {f.name: oct(f.stat().st_mode & 0o777) for f in files if f.stat().st_mode & 0o777 != 0o666 & ~umask} == {}
