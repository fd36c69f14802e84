"""Files of run directories: JSON, atomic writes for every part of the package, and fingerprints.

`atomic_write` is the one atomic writer: checkpoints, token shards, cleaning outputs, tables and reports use it.
"""

import hashlib
import json
import numbers
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from demiglace.errors import RunError


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file that demiglace wrote. Raises `RunError` if the file is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        return content
    except ValueError as error:  # bad JSON, bad UTF-8, or not an object
        raise RunError(f"{file} is damaged ({error}); remove the run directory and repeat its command.") from error


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically. Raises `RunError` if the file cannot be written."""
    write_atomically(file, (to_json(content) + "\n").encode())


def to_json(content: Mapping[str, Any]) -> str:
    """Return indented JSON; paths become texts."""
    return json.dumps(content, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """Convert paths and NumPy numbers, which `json` cannot write. Raises `TypeError` for any other type: a bug."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{value!r} of {type(value)} cannot be written as JSON")


@contextmanager
def atomic_write(file: Path, *, suffix: str = ".part") -> Iterator[Path]:
    """Yield a temporary path beside `file`; on exit, flush it to disk and rename it to `file`.

    Readers, and a process killed at any moment, see the complete old file or the complete new one. An exception
    removes the temporary file, leaves `file` as it was, and is raised again.

    Args:
        file: the file to write; missing parent directories are created.
        suffix: appended to the file's name for the temporary path. Processes that may write the same file at the
            same time need one suffix each.
    """
    partial = file.with_name(file.name + suffix)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        mode = _mode_of_new(partial)
        yield partial
        _set_mode(partial, mode)
        with partial.open("r+b") as handle:
            os.fsync(handle.fileno())
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def apply_umask(directory: Path) -> None:
    """Give the files of a directory the permissions of new files there, as umask and default ACLs grant them.

    Libraries that write through a temporary file, as safetensors does, leave files that only their owner can read.
    """
    mode = _mode_of_new(directory / ".mode")
    (directory / ".mode").unlink()
    for file in directory.iterdir():
        if file.is_file() and not file.is_symlink():
            _set_mode(file, mode)


def _mode_of_new(file: Path) -> int:
    """Create a file, unless it exists, and return its permissions. The umask itself can only be read by setting it."""
    file.touch()
    return stat.S_IMODE(file.stat().st_mode)


def _set_mode(file: Path, mode: int) -> None:
    if stat.S_IMODE(file.stat().st_mode) != mode:
        with suppress(OSError):  # some file systems have no permissions
            file.chmod(mode)


def write_atomically(file: Path, content: bytes) -> None:
    """Write `content` to `file` with `atomic_write`. Raises `RunError` if the file cannot be written."""
    try:
        with atomic_write(file) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise RunError(
            f"{file} could not be written: {error.strerror or error}. Free some space or choose another directory; "
            "the previous file is intact."
        ) from error


def fingerprint(paths: Iterable[Path | str]) -> str:
    """Return the SHA-256 of the names and contents of files, sorted by path, as 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(Path(p) for p in paths):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]
