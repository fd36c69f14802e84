"""Which files of documents a user means."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

from demiglace.data.text.readers import format_of
from demiglace.data.text.streams import cannot_read
from demiglace.errors import DataError


def find_sources(given: Sequence[str], apart: Path | None = None) -> dict[str, int]:
    """All files that the sources name, sorted, and their stored sizes in bytes.

    Of folders and globs, what lies in the folder `apart` is left out. Raises `DataError` where there is no file, or
    one of no known kind.
    """
    found: dict[str, int] = {}
    for source in given:
        found |= _stored(source) if "://" in source else {file: _size(file) for file in _local(source, apart)}
    if not found:
        raise DataError(f"{', '.join(given)} holds no file of a known kind.")
    return dict(sorted(found.items()))


def is_inside(file: str | Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, links and `..` followed."""
    return Path(file).resolve().is_relative_to(folder.resolve())


def _local(source: str, apart: Path | None) -> list[str]:
    if Path(source).is_dir():
        files = [str(p) for p in Path(source).rglob("*") if p.is_file() and _is_known(p.name)]
    elif Path(source).exists():
        format_of(source)
        return [source]
    else:
        files = glob.glob(source, recursive=True)  # noqa: PTH207  (absolute patterns too)
        if not files:
            raise DataError(f"{source} does not exist; expected a file, a folder, a glob or an address.")
    files = [file for file in files if apart is None or not is_inside(file, apart)]
    for file in files:
        format_of(file)
    return files


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except OSError as error:
        raise cannot_read(file, error) from error


def _stored(address: str) -> Mapping[str, int]:
    """The files of an object store at an address, in a folder or of a glob there, as Daft lists them."""
    from daft.filesystem import glob_path_with_stats

    several = any(mark in address for mark in "*?[")
    one = not several and _is_known(address.rpartition("/")[2])
    try:
        there = glob_path_with_stats(address if one or several else address.rstrip("/") + "/**", None, None)
    except (OSError, ValueError) as error:  # Daft's own are ValueErrors
        raise cannot_read(address, error) from error
    sizes = {path: size or 0 for path, size in zip(there.file_paths, there.file_sizes, strict=True)}
    if one:
        return {address: sum(sizes.values())}
    return {path: size for path, size in sizes.items() if _is_known(path.rpartition("/")[2])}


def _is_known(name: str) -> bool:
    try:
        return bool(format_of(name)) and not name.startswith(".")
    except DataError:
        return False


def corpus_files(given: Sequence[str]) -> list[str]:
    """`find_sources` of this machine, of which a run directory of `clean` means its shards."""
    for source in given:
        if "://" in source:
            raise DataError(
                f"{source} is an address; a corpus is read from files of this machine. Download it, or let `demiglace "
                "clean` read it and give its run directory."
            )
    return list(find_sources([str(Path(g) / "shards") if (Path(g) / "shards").is_dir() else g for g in given]))
