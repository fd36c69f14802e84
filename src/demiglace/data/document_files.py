"""Which files of documents a user means."""

import glob
from collections.abc import Sequence
from pathlib import Path

from demiglace.data.documents import format_of
from demiglace.errors import DataError


def find_sources(given: Sequence[str]) -> list[str]:
    """All files that the sources name, sorted. Raises `DataError` where there is none, or one of no known kind."""
    found: set[str] = set()
    for source in given:
        if "://" in source:
            format_of(source)
            found.add(source)
        elif Path(source).is_dir():
            found |= {str(p) for p in sorted(Path(source).rglob("*")) if p.is_file() and _is_known(p.name)}
        else:
            matches = [source] if Path(source).exists() else glob.glob(source, recursive=True)  # noqa: PTH207  (absolute patterns too)
            if not matches:
                raise DataError(f"{source} does not exist; expected a file, a folder, a glob or an address.")
            for match in matches:
                format_of(match)
            found |= set(matches)
    if not found:
        raise DataError(f"{', '.join(given)} holds no file of a known kind.")
    return sorted(found)


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
    return find_sources([str(Path(g) / "shards") if (Path(g) / "shards").is_dir() else g for g in given])
