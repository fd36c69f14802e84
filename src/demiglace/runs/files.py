"""JSON files, atomic writes, and fingerprints of files."""

import hashlib
import json
import numbers
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from demiglace.errors import RunError


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file of ours; `RunError` where it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        return content
    except ValueError as error:  # of JSON, of UTF-8 or ours
        raise RunError(f"{file} is damaged ({error}); remove the run directory and repeat its command.") from error


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    write_atomically(file, (to_json(content) + "\n").encode())


def to_json(content: Mapping[str, Any]) -> str:
    """Return indented JSON; paths become texts."""
    return json.dumps(content, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """Paths and numpy's numbers, which JSON does not know; a `TypeError` for anything else is our own mistake."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{value!r} of {type(value)} cannot be written as JSON")


def write_atomically(file: Path, content: bytes) -> None:
    """Replace `file` by `content` so that a reader, or a crash, meets either the old or the new whole."""
    draft = file.with_name(file.name + ".part")
    try:
        with draft.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise RunError(
            f"{file} could not be written: {error.strerror or error}. What was there before is intact."
        ) from error


def fingerprint(paths: Iterable[Path | str]) -> str:
    """SHA-256 over the names and contents of files (16 hex digits), in sorted order."""
    digest = hashlib.sha256()
    for path in sorted(Path(p) for p in paths):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]
