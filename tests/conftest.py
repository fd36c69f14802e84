"""Shared by all tests: nothing reaches a hub, few threads, and where the real data lie."""

import gc
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")  # a pool of threads costs more than tiny weights take to load

import pytest
import torch

torch.set_num_threads(1)
gc.disable()  # until all tests are collected: what their imports create stays, and looking through it takes seconds

os.fsync = lambda handle: None  # no test cuts the power, and a command flushes many files

# For an absent device, `torch.manual_seed` only records the call stack: a twentieth of the time of a training run.
for device in (torch.cuda, torch.xpu, torch.mtia):
    if not device.is_available():
        device.manual_seed_all = lambda seed: None


def skip_meta(init: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Leave tensors without data alone: a model is first built of them, and PyTorch draws their numbers in Python."""
    return lambda tensor, *args, **options: tensor if tensor.is_meta else init(tensor, *args, **options)


for name in ("kaiming_uniform_", "normal_", "uniform_"):
    setattr(torch.nn.init, name, skip_meta(getattr(torch.nn.init, name)))

DATA = Path(os.environ.get("DEMIGLACE_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def pytest_collection_finish() -> None:
    """Collect garbage again, but more rarely, and never look through what the imports created."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no data folder at {DATA}; set DEMIGLACE_DATA to run the tests on real data")
    return DATA


@pytest.fixture(scope="session", autouse=True)
def brief_measurements() -> Iterator[None]:
    """Measure exported files in this process, and the speed of training in a few steps.

    A fresh interpreter takes seconds to import PyTorch, for each file; a measurement of the speed takes as long as it
    is allowed to.
    """
    from demiglace.costs import measure_speed
    from demiglace.export import measure

    until = measure_speed._until
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "run_module", _measure_here)
        patch.setattr(measure_speed, "_until", lambda seconds, items: until(min(seconds, 0.05), items))
        yield


@pytest.fixture
def fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure exported files as users do, each in a fresh interpreter."""
    from demiglace.export import measure
    from demiglace.interpreters import run_module

    monkeypatch.setattr(measure, "run_module", run_module)


def _measure_here(
    module: str, arguments: list[str], environment: dict[str, str], content: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """Do what `python -m demiglace.export.measure` does, with few calls; the peak memory is that of this process."""
    from demiglace.export import measure

    if arguments[0] == "rows":
        arguments = [*arguments[:-1], str(min(int(arguments[-1]), 2))]
    output, threads = io.StringIO(), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
        patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        measure._main(*arguments)
    torch.set_num_threads(threads)
    return subprocess.CompletedProcess(arguments, 0, output.getvalue().encode())


@pytest.fixture
def planted(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with modules of common names the current directory; return the file that each writes if imported.

    The folder is not in this process's `sys.path`; interpreters started from here would find it there. A planted module
    gives way to the real one, so that a process that imports it goes on and the test fails instead of waiting.
    """
    folder, mark = tmp_path_factory.mktemp("planted"), tmp_path_factory.mktemp("mark") / "imported"
    for name in ("random", "numpy", "queue", "torch", "typing", "json", "yaml"):
        (folder / f"{name}.py").write_text(
            f"open({str(mark)!r}, 'a').write('{name} ')\n"
            "import importlib, sys\n"
            f"sys.path[:] = [p for p in sys.path if p not in ('', {str(folder)!r})]\n"
            "del sys.modules[__name__]\n"
            "importlib.invalidate_caches()\n"
            "sys.modules[__name__] = importlib.import_module(__name__)\n"
        )
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return mark
