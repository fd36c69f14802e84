"""Fixtures of the tests of comparisons: rows, a model, and a small grid."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "commands"))  # command_kit, also where only these tests run

import pytest
from command_kit import write_rows
from compare_kit import grid_of

from factories import save_tiny


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows and an untrained classifier of four layers."""
    folder = tmp_path_factory.mktemp("compare")
    save_tiny(folder / "base", label_names=("negative", "positive"))
    write_rows(folder / "rows")
    return folder


@pytest.fixture
def content(place: Path) -> dict:
    """The content of a grid file: one task, one student, the two controls, two seeds."""
    return grid_of(place)
