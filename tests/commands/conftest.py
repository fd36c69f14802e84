"""What the tests of the stages share: rows, an untrained model, and a teacher fine-tuned on the rows."""

from pathlib import Path

import pytest
from command_kit import QUICK, arguments, write_rows

from demiglace.cli import main
from factories import save_tiny

LABELS = ("negative", "positive")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="session")
def rows(home: Path) -> dict[str, str]:
    """The options that name files of rows of two classes."""
    return write_rows(home / "rows")


@pytest.fixture(scope="session")
def base(home: Path) -> Path:
    """An untrained classifier of four layers."""
    return save_tiny(home / "base", label_names=LABELS)


@pytest.fixture(scope="session")
def teacher(home: Path, rows: dict[str, str], base: Path) -> Path:
    """A run directory of `finetune`."""
    assert main(arguments("finetune", model=base, output=home / "teacher", **rows, **QUICK)) == 0
    return home / "teacher"
