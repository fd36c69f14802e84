"""What the tests of both caches share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demiglace.signals import shard_store


@contextmanager
def cut_off_at(monkeypatch: pytest.MonkeyPatch, shard: int) -> Iterator[None]:
    """Inside, filling a cache is interrupted before that shard is written, and has to be."""
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
    """Whether two caches hold the same bytes."""
    files = list(one.glob("*.npy"))
    assert files
    for file in files:
        assert file.read_bytes() == (other / file.name).read_bytes()
