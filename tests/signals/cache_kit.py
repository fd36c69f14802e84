"""Helpers for the tests of both caches."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demiglace.signals import shard_store


@contextmanager
def cut_off_at(monkeypatch: pytest.MonkeyPatch, shard: int) -> Iterator[None]:
    """Interrupt the filling of a cache before this shard is written; fail if that does not happen."""
    original = shard_store._write_shard

    def cut_off(directory: Path, number: int, *rest: object) -> None:
        if number == shard:
            raise KeyboardInterrupt
        original(directory, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shard_store, "_write_shard", cut_off)
        with pytest.raises(KeyboardInterrupt):
            yield


def assert_equal_arrays(one: Path, other: Path) -> None:
    """Assert that two caches have the same bytes."""
    files = list(one.glob("*.npy"))
    assert files
    for file in files:
        assert file.read_bytes() == (other / file.name).read_bytes()
