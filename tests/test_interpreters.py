"""Neither a command nor a process that it starts imports modules from the current directory.

Of `export`: export/test_export_stage.py and export/test_measure.py; of `compare` on Ray: compare/test_compare_ray.py.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import demiglace
from demiglace.cleaning import tasks
from demiglace.interpreters import leave_out_current_directory, run_module, safe_children
from demiglace.runs.directory import read_manifest


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
    done = subprocess.run(
        [sys.executable, "-m", "demiglace", "distill", "--help"], capture_output=True, text=True, check=False
    )
    assert not planted.exists()
    assert done.returncode == 0, done.stderr


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


SLEEPER = """import os, pathlib, sys, time
from demiglace.interpreters import end_with_parent
end_with_parent()
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {sys.stdin.read()}")
time.sleep(600)
"""
COMMAND = """import sys
from demiglace import cli, interpreters
cli._run = lambda args: interpreters.run_module("sleeper", args, {}, b"content")
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 130), (signal.SIGINT, 130)])
def test_a_child_ends_with_its_parent_however_that_ends(tmp_path, how, code):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    file, path = tmp_path / "pid", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(file)], env=os.environ | {"PYTHONPATH": path}, start_new_session=True
    )
    try:
        wait_for(lambda: file.exists() and " content" in file.read_text())
        child = int(file.read_text().split()[0])
        parent.send_signal(how)
        assert parent.wait(30) == code
        wait_for(lambda: not is_running(child))
    finally:
        parent.kill()


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(process):
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_child_gets_its_input_and_environment(tmp_path, monkeypatch):
    (tmp_path / "echo_input.py").write_text(
        "import os, sys; print(sys.argv[1], sys.stdin.read(), os.environ['COLOUR'], os.environ['PYTHONSAFEPATH'])"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    done = run_module("echo_input", ["a"], {"COLOUR": "red"}, b"b")
    assert (done.returncode, done.stdout.decode().split()) == (0, ["a", "b", "red", "1"])
