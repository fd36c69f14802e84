"""Work that hangs or loses a process is ended in words; work that computes is left alone."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from demiglace.cleaning import liveness
from demiglace.errors import DataError, RunError


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "STALL_SECONDS", 0.4)


def by_child(*words: str) -> Iterator[int]:
    """Results of a child process, as Daft gives those of its workers."""
    yield 1
    child = subprocess.Popen([sys.executable, "-c", *words])
    if child.wait() != 0:
        raise RuntimeError("UDF process closed the connection unexpectedly")
    yield 2


def test_a_child_that_hangs_is_killed() -> None:
    other = subprocess.Popen(["sleep", "60"])
    found = []
    try:
        with pytest.raises(RunError, match=r"computed nothing for 0 seconds .* GB of memory are free.*fewer --workers"):
            found.extend(liveness.watched(by_child("import time; time.sleep(60)")))
        assert other.poll() is None  # it was there before
    finally:
        other.kill()


def test_a_child_that_computes_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(liveness._Watch, "_cpu_seconds", lambda _: float(next(seconds)))  # a busy machine gives few
    assert list(liveness.watched(by_child("import time; time.sleep(1.2)"))) == [1, 2]
    assert next(seconds) > 3  # it was looked at


def test_a_child_that_was_killed_is_an_error_of_the_run() -> None:
    with pytest.raises(RunError, match=r"a worker ended, perhaps because memory ran out .*it resumes"):
        list(liveness.watched(by_child("import os; os.kill(os.getpid(), 9)")))


def test_time_between_results_does_not_count_and_other_errors_pass() -> None:
    def results() -> Iterator[int]:
        yield 1
        yield 2
        raise DataError("no rows")

    with pytest.raises(DataError, match="no rows"):
        for _ in liveness.watched(results()):
            time.sleep(0.6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_hangs_itself_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_GRACE_SECONDS", 0.1)

    def hang() -> Iterator[int]:
        time.sleep(60)
        yield 1

    if (pid := os.fork()) == 0:
        list(liveness.watched(hang()))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
