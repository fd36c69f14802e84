"""End work that hangs: where memory is tight, a library can wait for ever inside of a task."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil

from demiglace.console import say
from demiglace.errors import RunError, UserError

STALL_SECONDS = 600.0  # without a result and without processor time
_LEAST_SHARE = 0.01  # of one processor, below which nothing is computed
_GRACE_SECONDS = 60.0  # to end after the child processes were killed


def watched(results: Iterator[Any]) -> Iterator[Any]:
    """Yield the results; end their work if for `STALL_SECONDS` it computes nothing.

    Then the child processes that the work started are killed, so that the wait for them ends. If it does not, as where
    this process itself hangs, the process ends with exit code 2. A run resumes from its finished parts.

    Raises:
        RunError: the work was ended, or one of its processes ended.
    """
    watch = _Watch()
    threading.Thread(target=watch.run, daemon=True).start()
    try:
        while True:
            watch.begin()
            try:
                result = next(results)
            except StopIteration:
                return
            watch.waits_since = None
            yield result
    except (UserError, GeneratorExit, KeyboardInterrupt):
        raise
    except Exception as error:
        if watch.stalled:
            raise RunError(_message()) from error
        if "UDF process" in str(error):  # as Daft reports a worker that was killed
            raise RunError(f"a worker ended, perhaps because memory ran out ({_free()}). {_ADVICE}") from error
        raise
    finally:
        watch.ended.set()


_ADVICE = "Give fewer --workers or more memory, and repeat the command: it resumes from the parts that are finished."


def _message() -> str:
    return f"cleaning computed nothing for {STALL_SECONDS:,.0f} seconds and was ended ({_free()}). {_ADVICE}"


def _free() -> str:
    memory = psutil.virtual_memory()
    return f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB of memory are free"


class _Watch:
    """Compares the processor time of this process and its new children at intervals, while a result is waited for."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._others = {child.pid for child in self._process.children(recursive=True)}
        self.waits_since: float | None = None
        self.stalled, self.ended, self._used = False, threading.Event(), 0.0

    def begin(self) -> None:
        """Note that a result is waited for from now on."""
        self._used, self.waits_since = self._cpu_seconds(), time.monotonic()

    def run(self) -> None:
        """Watch until the work has ended."""
        while not self.ended.wait(STALL_SECONDS / 10):
            since = self.waits_since
            if since is None or time.monotonic() - since < STALL_SECONDS:
                continue
            used = self._cpu_seconds()
            if used - self._used > _LEAST_SHARE * STALL_SECONDS:
                self.begin()
                continue
            self.stalled = True
            for child in self._children():
                with suppress(psutil.Error):
                    child.kill()
            if not self.ended.wait(_GRACE_SECONDS):
                say(_message())
                os._exit(2)
            return

    def _children(self) -> list[psutil.Process]:
        return [child for child in self._process.children(recursive=True) if child.pid not in self._others]

    def _cpu_seconds(self) -> float:
        total = 0.0
        for process in (self._process, *self._children()):
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total
