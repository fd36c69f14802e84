"""Digests of the files of a complete run: recorded when it completes, compared by whoever reads the files.

A file whose size and modification time are as recorded counts as unchanged. Of any other file the digest is computed;
`demiglace verify` computes it for all of them.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from demiglace.errors import RunError
from demiglace.runs.files import PARTIAL, to_json

_NOT_RECORDED = (".lock", "manifest.json", "README.md")  # users may edit the card
NOT_KEPT = ("checkpoints", "signals", "tokens", "work")  # removed when a run completes
_NO_RESULTS = (*NOT_KEPT, "locks", "logs", "failed")  # the last three are a comparison's

Digests = Mapping[str, Mapping[str, Any]]  # path in the run directory -> bytes, modified (ns), sha256


def record(run: Path) -> dict[str, dict[str, Any]]:
    """Flush the files of a run and their directories to disk, and return their digests by path.

    Left out are the manifest and the lock, the model card, temporary files, checkpoints and caches, and other runs
    inside the directory.
    """
    digests, directories = {}, {run}
    for file in sorted(_files(run)):
        digests[file.relative_to(run).as_posix()] = digest(file, flush=True)
        directories.add(file.parent)
    for directory in directories:
        _flush_directory(directory)
    return digests


def _files(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.is_symlink() or path.name.endswith(PARTIAL):
            continue
        if path.is_file():
            if path.name not in _NOT_RECORDED:
                yield path
        elif path.is_dir() and path.name not in _NO_RESULTS and not (path / "run.json").exists():
            yield from _files(path)


def digest(file: Path, *, flush: bool = False) -> dict[str, Any]:
    """Return the bytes, the modification time in ns and the SHA-256 of a file; flush: write it to disk first."""
    with open(file, "r+b" if flush and os.access(file, os.W_OK) else "rb", buffering=0) as handle:  # noqa: PTH123
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        if flush:
            os.fsync(handle.fileno())
        status = os.fstat(handle.fileno())
    return {"bytes": status.st_size, "modified": status.st_mtime_ns, "sha256": sha256}


def _flush_directory(directory: Path) -> None:
    with suppress(OSError):  # not every system can open a directory
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def checksum_of(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest without the checksum that it holds."""
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(to_json(content).encode("utf-8", "surrogatepass")).hexdigest()


def changed(run: Path, digests: Digests, *, full: bool = False) -> dict[str, str]:
    """Return path -> what happened to it, for each file that is not as recorded.

    A file is missing only if the directory or file at the top of its path is there: `model/` as a whole may have been
    removed to free space. full: compute every digest, whatever size and modification time are. Raises `RunError` for
    digests that are no mapping.
    """
    if not isinstance(digests, Mapping):
        raise RunError(f"{run}: the digests of its files are damaged; restore its manifest, or repeat its command.")
    damage = {}
    for name, recorded in digests.items():
        file = run / name
        if not _is_digest(recorded):
            damage[name] = "has no usable digest on record"
        elif not file.is_file():
            if (run / name.partition("/")[0]).exists():
                damage[name] = "is missing"
        elif file.stat().st_size != recorded["bytes"]:
            damage[name] = f"has {file.stat().st_size:,} bytes instead of {recorded['bytes']:,}"
        elif (full or file.stat().st_mtime_ns != recorded["modified"]) and digest(file)["sha256"] != recorded["sha256"]:
            damage[name] = "has other content"
    return damage


def _is_digest(recorded: Any) -> bool:
    """Return whether a manifest, which anything may have changed, has a digest here as `digest` returns it."""
    kinds = {"bytes": int, "modified": int, "sha256": str}
    return isinstance(recorded, Mapping) and all(type(recorded.get(key)) is kind for key, kind in kinds.items())


def check(run: Path, digests: Digests, select: Callable[[str], bool]) -> None:
    """Raise `RunError` that names a selected file that is not as the run wrote it."""
    chosen = {n: d for n, d in digests.items() if select(n)} if isinstance(digests, Mapping) else digests
    for name, what in changed(run, chosen).items():
        accept = f" If you changed it on purpose, accept it with: demiglace verify {run} --accept"
        raise RunError(
            f"{run / name} {what}: it is not the file that the run wrote. Restore it, or remove {run} and repeat its "
            f"command.{accept if (run / 'manifest.json').exists() else ''}"
        )
