"""Files of run directories: JSON, atomic writes for every part of the package, file names and fingerprints.

`atomic_write` is the one atomic writer: checkpoints, token shards, cleaning outputs, tables and reports use it.
"""

import hashlib
import json
import numbers
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from demiglace.errors import RunError

PARTIAL = ".part"  # ending of temporary files
_LONGEST_NAME = 120  # bytes; file systems take 255, and endings are added


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
def atomic_write(file: Path) -> Iterator[Path]:
    """Yield a temporary path beside `file`; on exit, flush it to disk and rename it to `file`.

    Readers, and a process killed at any moment, see the complete old file or the complete new one. An exception
    removes the temporary file, leaves `file` as it was, and is raised again. The temporary file is new and its name is
    unique, so processes that write the same file at the same time do not disturb each other, and no link is followed.
    Missing parent directories are created.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with _create(partial) as handle:
            mode = stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
        yield partial
        _set_mode(partial, mode)
        with partial.open("r+b") as handle:
            os.fsync(handle.fileno())
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _create(file: Path) -> BinaryIO:
    """Create a file. Raises `FileExistsError` if there is one, or a link, under this name."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(file, flags, 0o666), "wb")


def partial_files(directory: Path) -> list[Path]:
    """Return the temporary files that processes left below a directory when they were killed."""
    return [file for file in directory.rglob(f"*{PARTIAL}") if file.is_file() or file.is_symlink()]


def apply_umask(directory: Path) -> None:
    """Give the files of a directory the permissions of new files there, as umask and default ACLs grant them.

    Libraries that write through a temporary file, as safetensors does, leave files that only their owner can read.
    """
    probe = directory / f"mode.{secrets.token_hex(4)}{PARTIAL}"
    with _create(probe) as handle:
        mode = stat.S_IMODE(os.fstat(handle.fileno()).st_mode)  # the umask itself can only be read by setting it
    probe.unlink()
    for file in directory.iterdir():
        if file.is_file() and not file.is_symlink():
            _set_mode(file, mode)


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


def file_name(name: str) -> str:
    """Return a name that a user gave as a file name: ``mnli:validation`` gives ``mnli-validation``.

    The result is never empty, is at most 120 bytes long and has no separator of paths. A name that is longer, or has no
    letter or digit, gets a hash at its end, so that two of them stay different.
    """
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    if plain and len(plain.encode()) <= _LONGEST_NAME:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    shortened = plain.encode()[: _LONGEST_NAME - 9].decode(errors="ignore")
    return f"{shortened or 'name'}-{digest}"


def fingerprint(paths: Iterable[Path | str]) -> str:
    """Return the SHA-256 of the names and contents of files, sorted by path, as 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(Path(p) for p in paths):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]
