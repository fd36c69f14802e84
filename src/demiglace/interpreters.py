"""Child interpreters that import nothing from the current directory.

`python -m` and `python -c` put the current directory first in `sys.path`, so that a `random.py` there would run in the
place of the standard library's. PYTHONSAFEPATH leaves it out (docs.python.org, `sys.flags.safe_path`), and
grandchildren inherit it. `-I` would also ignore PYTHONPATH and the user's site-packages, where demiglace may be
installed.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SAFE_PATH = {"PYTHONSAFEPATH": "1"}


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
