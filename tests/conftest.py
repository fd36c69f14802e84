"""Shared by all tests: nothing reaches a hub, few threads, and where the real data lie."""

import gc
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")  # a pool of threads costs more than tiny weights take to load

import pytest
import torch

torch.set_num_threads(1)
gc.disable()  # until all tests are collected: what their imports create stays, and looking through it takes seconds

# For an absent device, `torch.manual_seed` only records the call stack: a twentieth of the time of a training run.
for device in (torch.cuda, torch.xpu, torch.mtia):
    if not device.is_available():
        device.manual_seed_all = lambda seed: None

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
