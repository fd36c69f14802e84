"""What a command did to its inputs that a user may not expect: rows that it cut, weights that it did not use, …

Each notice is printed where it arises (`console.notice`) and written to the manifest under `notices`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_COLLECTED: ContextVar[list[dict[str, Any]] | None] = ContextVar("notices", default=None)


@contextmanager
def collecting() -> Iterator[None]:
    """Collect the notices of one command while inside."""
    token = _COLLECTED.set([])
    try:
        yield
    finally:
        _COLLECTED.reset(token)


def record(kind: str, message: str, counts: dict[str, int]) -> bool:
    """Add a notice to those of the present command; return whether it is new."""
    notice = {"kind": kind, "message": message, **counts}
    found = _COLLECTED.get()
    if found is None:
        return True
    if notice in found:
        return False
    found.append(notice)
    return True


def collected() -> list[dict[str, Any]]:
    """Return the notices of the present command so far, each with its kind, its message and its counts."""
    return list(_COLLECTED.get() or ())
