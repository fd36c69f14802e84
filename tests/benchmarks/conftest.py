"""Fixtures of the tests of scripts in benchmarks/, which is not a package."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Import a script by its path below benchmarks/; for the time of a test it is a module of that name."""

    def load(path: str, name: str = "") -> ModuleType:
        name = name or Path(path).stem
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
