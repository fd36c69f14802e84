"""A grid on a Ray cluster: the same weights and the same messages as in one process."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_kit import write_rows
from compare_kit import compare, line_of, results, weights_of

from demiglace.compare.executors import ray
from demiglace.compare.grid import parse_grid
from demiglace.compare.job_graph import build_job_graph
from demiglace.compare.jobs import JobResult
from demiglace.compare.scheduler import Schedule
from demiglace.errors import ConfigError

if find_spec("ray") is None:
    pytest.skip("needs pip install '.[ray]'", allow_module_level=True)


@pytest.fixture(autouse=True)
def equal_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give Ray's workers the priority of the tests: at its own, the lowest, a busy machine lets them wait for long."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


def test_a_cluster_gives_the_same_weights_and_tells_of_failures(content, tmp_path, capsys, planted):
    methods = content["methods"] | {"bad": {"method": "vanilla-kd", "metric": "f2"}}
    here, there = tmp_path / "here", tmp_path / "there"
    assert compare(content | {"methods": methods, "seeds": [0]}, here) == 2
    shown = capsys.readouterr().err.split("run failed")[1].replace(str(here), "HOME")
    assert compare(content | {"methods": methods, "seeds": [0]}, there, engine="ray") == 2
    assert capsys.readouterr().err.split("run failed")[1].replace(str(there), "HOME") == shown
    assert weights_of(here) == weights_of(there)
    assert [r["status"] for r in results(there)] == ["done", "done", "failed"]
    assert (there / "failed/mood/half/bad/seed-0.txt").exists()
    assert not planted.exists()  # workers imported nothing from the current directory


def test_a_cluster_that_is_not_there(content, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "_POLL_SECONDS", 0.1)
    with pytest.raises(ConfigError, match="--address auto: no Ray cluster answers there"):
        ray._connect("auto", 1)


# a cluster that runs already


@pytest.fixture
def begin_cluster() -> Any:
    """Start a cluster of one machine and two processors with further environment variables.

    Returns its address. It keeps to its own folder, so that `auto` does not find it from other tests.
    """
    # a short path: sockets lie in it
    folder, begun = tempfile.mkdtemp(prefix="ray-", dir="/tmp"), list[subprocess.Popen]()

    def begin(**variables: str) -> str:
        ports = [_free_port() for _ in range(2)]
        options = {
            "port": ports[0], "ray-client-server-port": ports[1], "num-cpus": 2, "temp-dir": folder,
            "include-dashboard": "false", "min-worker-port": 0, "max-worker-port": 0, "node-ip-address": "127.0.0.1",
            "dashboard-agent-listen-port": 0, "object-store-memory": 100_000_000,
        }  # fmt: skip
        line = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
        line += [f"--{name}={value}" for name, value in options.items()]
        with Path(folder, "start.log").open("wb") as log:
            streams = {"stdout": log, "stderr": log}
            begun.append(subprocess.Popen(line, env=os.environ | variables, start_new_session=True, **streams))
        _wait_for(ports[0], begun[0])
        return f"127.0.0.1:{ports[0]}"

    yield begin
    for process in begun:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _wait_for(port: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail("the cluster did not start")


def named_task(place: Path, folder: Path, train: int) -> Path:
    """A folder of data sets that has SST-2, in rows of our own."""
    made = write_rows(folder, train=train)
    (folder / "sst2").mkdir()
    for name, split in {"data": "train", "validation": "validation"}.items():
        shutil.move(made[name], folder / "sst2" / f"{split}.csv")
    return folder


def test_an_existing_cluster_reads_the_data_of_here(content, place, tmp_path, begin_cluster, monkeypatch):
    data, other = named_task(place, tmp_path / "data", 36), named_task(place, tmp_path / "other", 20)
    # a token of its own, and a process of its own that asks with it: Ray keeps in mind how it was authorised before
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    address = begin_cluster(DEMIGLACE_DATA=str(other), **token)
    monkeypatch.setenv("DEMIGLACE_DATA", str(data))
    ready = {"teachers": {"sst2": str(place / "base")}, "students": {"own": {"model": str(place / "base")}}}
    small = {"tasks": {"sst2": {}}, "methods": {"none": {}}, "controls": False, "seeds": [0]}
    grid = content | ready | small | {"evaluate": {"teacher": False}}
    here, there = tmp_path / "here", tmp_path / "there"
    assert compare(grid, here) == 0
    line = [sys.executable, "-m", "demiglace", *line_of(grid, there, engine="ray", address=address)]
    assert subprocess.run(line, env=os.environ | token, timeout=300, check=False).returncode == 0
    assert weights_of(here) == weights_of(there)
    assert results(here)[0]["sets"] == results(there)[0]["sets"]


# the executor without a cluster


class FakeRay:
    """Ray's functions, of which each `wait` ends the first of the tasks; `seen` is called before."""

    exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, cpus: float, seen: Callable[[], None] = lambda: None):
        self._cpus, self._seen = cpus, seen

    def remote(self, **_: Any) -> Any:
        return lambda function: SimpleNamespace(remote=lambda job, *_: job.key)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self._cpus}

    def wait(self, refs: list[str], **_: Any) -> tuple[list[str], list[str]]:
        self._seen()
        return refs[:1], refs[1:]

    def get(self, ref: str) -> JobResult:
        return JobResult(1.0)

    def shutdown(self) -> None:
        pass


def test_what_waits_in_the_cluster_is_not_running(content, tmp_path, monkeypatch):
    graph = build_job_graph(parse_grid(content | {"seeds": [0, 1, 2]}), tmp_path)
    schedule, running = Schedule(graph.jobs, set()), []
    fake = FakeRay(5.0, lambda: running.append(schedule.count("running")))
    monkeypatch.setattr(ray, "_connect", lambda *_: fake)
    nothing = SimpleNamespace(on_job_start=lambda job: None, on_job_end=lambda job, result: None)
    ray.RayExecutor(graph.root, schedule, nothing, address=None, cpus=2).run()
    assert schedule.count("done") == len(graph.jobs)
    assert max(running) == schedule.workers == 2


@pytest.mark.parametrize(("gpus", "room"), [(0.0, 4), (0.5, 2), (2.0, 1)])
def test_room_in_a_cluster(gpus, room):
    assert ray._max_concurrency({"CPU": 9.0, "GPU": 1.0}, 2, gpus) == room


def test_a_worker_that_died_without_a_word(monkeypatch):
    fake = FakeRay(1.0)

    def get(ref: str) -> JobResult:
        raise fake.exceptions.RayError("")

    monkeypatch.setattr(fake, "get", get)
    assert ray._result_of(fake, "ref").error == "its worker ended: RayError: "


def test_a_cluster_that_cannot_be_started_here(monkeypatch):
    def init(**_: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ConfigError, match=r"^no Ray cluster could be started here \(no room\)\.$"):
        ray._connect(None, 1)
