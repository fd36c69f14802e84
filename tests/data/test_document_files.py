"""The files that folders, globs and addresses name."""

from pathlib import Path

import pytest

from demiglace.data.text.sources import find_sources, is_inside
from demiglace.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/a.txt", "in/sub/b.jsonl", "in/sub/c.pdf", "in/out/shards/d.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    return tmp_path / "in"


def names(found: dict[str, int]) -> str:
    assert set(found.values()) == {4}
    return " ".join(Path(file).name for file in found)


def test_a_folder_inside_is_left_out(folder: Path) -> None:
    assert names(find_sources([str(folder)])) == "a.txt d.parquet b.jsonl"
    for given in (str(folder), f"{folder}/**/*.[jtp][sxa]*", f"{folder}/sub/.."):
        assert names(find_sources([given], exclude=folder / "sub" / ".." / "out")) == "a.txt b.jsonl"


def test_inside_follows_links_and_dots(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder / "out")
    assert is_inside(folder / "out" / "shards", folder.parent / "link")
    assert is_inside(folder / "sub" / ".." / "out", folder / "out")
    assert not is_inside(folder / "output", folder / "out")


def test_addresses(folder: Path) -> None:
    for given, expected in (
        ("a.txt", "a.txt"),
        ("", "a.txt d.parquet b.jsonl"),
        ("sub", "b.jsonl"),
        ("**/*.jsonl", "b.jsonl"),
    ):
        found = find_sources([f"file://{folder}/{given}"])
        assert names(found) == expected
        assert all(file.startswith("file://") for file in found)
    for given in ("none.txt", "none/", "*.none"):
        with pytest.raises(DataError, match="none"):
            find_sources([f"file://{folder}/{given}"])
