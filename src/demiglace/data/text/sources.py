"""Find the files of documents that files, folders, globs and addresses name."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

from demiglace.data.text.addresses import is_address
from demiglace.data.text.readers import FORMATS, format_of
from demiglace.data.text.streams import cannot_read
from demiglace.errors import DataError


def find_sources(sources: Sequence[str], exclude: Path | None = None) -> dict[str, int]:
    """Return all files that the sources name, sorted -> stored size in bytes.

    Args:
        given: files, folders, globs and addresses of object stores.
        exclude: a folder; folders and globs do not include files in it.

    Raises:
        DataError: a source does not exist, a file has an unknown format, or no file was found.
    """
    files: dict[str, int] = {}
    for source in sources:
        files |= _stored(source) if is_address(source) else {file: _size(file) for file in _local(source, exclude)}
    if not files:
        raise DataError(
            f"{', '.join(sources)} has no file of a known format; expected {', '.join(FORMATS)}, or one of "
            "these with .gz or .zst."
        )
    return dict(sorted(files.items()))


def is_inside(file: str | Path, folder: Path) -> bool:
    """Return whether a path is a folder or inside it, after resolving links and `..`."""
    return Path(file).resolve().is_relative_to(folder.resolve())


def _local(source: str, exclude: Path | None) -> list[str]:
    if Path(source).is_dir():
        files = [str(p) for p in Path(source).rglob("*") if p.is_file() and _is_known(p.name)]
    elif Path(source).exists():
        format_of(source)
        return [source]
    else:
        files = glob.glob(source, recursive=True)  # noqa: PTH207  (absolute patterns too)
        if not files:
            raise DataError(f"{source} does not exist; expected a file, a folder, a glob or an address.")
    files = [file for file in files if exclude is None or not is_inside(file, exclude)]
    for file in files:
        format_of(file)
    return files


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except OSError as error:
        raise cannot_read(file, error) from error


def _stored(address: str) -> Mapping[str, int]:
    """Return file -> size of an address: a file, a folder or a glob of an object store, as Daft lists them."""
    from daft.filesystem import glob_path_with_stats

    is_glob = any(mark in address for mark in "*?[")
    is_file = not is_glob and _is_known(address.rpartition("/")[2])
    try:
        listing = glob_path_with_stats(address if is_file or is_glob else address.rstrip("/") + "/**", None, None)
    except (OSError, ValueError) as error:  # Daft raises ValueErrors
        raise cannot_read(address, error) from error
    sizes = {path: size or 0 for path, size in zip(listing.file_paths, listing.file_sizes, strict=True)}
    if is_file:
        return {address: sum(sizes.values())}
    return {path: size for path, size in sizes.items() if _is_known(path.rpartition("/")[2])}


def _is_known(name: str) -> bool:
    try:
        return bool(format_of(name)) and not name.startswith(".")
    except DataError:
        return False


def corpus_files(sources: Sequence[str]) -> list[str]:
    """Return the local files that the sources name; a run directory of `clean` names its shards.

    Raises `DataError` as `find_sources`, and for addresses.
    """
    for source in sources:
        if is_address(source):
            raise DataError(
                f"{source} is an address; a corpus is read from local files. Download it, or read it with `demiglace "
                "clean` and give its run directory."
            )
    return list(find_sources([str(Path(g) / "shards") if (Path(g) / "shards").is_dir() else g for g in sources]))
