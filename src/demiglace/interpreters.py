"""Child interpreters that import nothing from the current directory, and end when their parent does.

`python -m` and `python -c` put the current directory first in `sys.path`, so that a `random.py` there would run in the
place of the standard library's. PYTHONSAFEPATH leaves it out (docs.python.org, `sys.flags.safe_path`), and
grandchildren inherit it. `-I` would also ignore PYTHONPATH and the user's site-packages, where demiglace may be
installed.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
_LIFELINE = "DEMIGLACE_LIFELINE"  # number of a pipe that only the parent could write to
_LONGEST = 3600.0  # seconds


def run_module(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], content: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """Run ``python -m MODULE`` and return its output; content: its standard input.

    The module calls `end_with_parent`. It is killed by an exception here, after an hour, and when this process ends,
    even by SIGKILL. Raises `subprocess.TimeoutExpired`.
    """
    has_pipe = os.name == "posix"
    read, write = os.pipe() if has_pipe else (-1, -1)
    lifeline = {_LIFELINE: str(read)} if has_pipe else {}
    try:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **SAFE_PATH, **environment, **lifeline},
            input=content,
            capture_output=True,
            pass_fds=(read,) if has_pipe else (),
            timeout=_LONGEST,
        )
    finally:
        for end in (read, write) if has_pipe else ():
            os.close(end)


def end_with_parent() -> None:
    """End this process, started by `run_module`, as soon as its parent has ended; the wait takes no processor time."""
    number = os.environ.pop(_LIFELINE, "")
    if number:
        threading.Thread(target=_wait_for_end, args=(int(number),), daemon=True).start()


def _wait_for_end(pipe: int) -> None:
    os.read(pipe, 1)  # nothing is ever written: it returns when the other end is closed
    os._exit(1)


@contextmanager
def safe_children() -> Iterator[None]:
    """Set PYTHONSAFEPATH while inside; processes that libraries start (Daft, Ray, multiprocessing) inherit it."""
    before = {name: os.environ.get(name) for name in SAFE_PATH}
    os.environ.update(SAFE_PATH)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def leave_out_current_directory() -> None:
    """Remove the entry of `sys.path` that `python -m` adds for the current directory; entries of PYTHONPATH stay."""
    if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109 - pathlib may be planted
        del sys.path[0]
