"""The run directory: every command writes one, and writes its `manifest.json` last.

`run.json` is written first. It holds the identity of the run: the command, its options and the fingerprints of its
inputs. `manifest.json` repeats the identity and adds the results; if it exists, the directory is complete. The same
command on the same directory therefore reports "up to date" (manifest), resumes (only `run.json`), or is refused
(`run.json` of another run).
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from demiglace.config.aliases import renamed
from demiglace.errors import RunError
from demiglace.notices import collected
from demiglace.runs import integrity
from demiglace.runs.environment import machine, versions
from demiglace.runs.files import PARTIAL, partial_files, read_json, to_json, write_json

FORMAT = 1
INPUTS = "inputs"  # what a Python program gave as objects; written before the run is opened
_INITIAL_FILES = (".lock", INPUTS)  # a run killed in its first moment leaves nothing else
_OF_MODELS = ("model/", "last/")
_SHARED_LOCK_TIMEOUT = 60.0  # seconds; a shared directory is locked only while its run.json is checked


@dataclass
class Run:
    """An open run directory. No other process can open it until `finish`, unless it is complete or shared."""

    path: Path
    stage: str  # the command
    config: dict[str, Any]  # the options that affect the result
    inputs: dict[str, str]  # input -> fingerprint
    complete: bool = False  # the manifest exists
    _lock: BaseFileLock | None = field(default=None, repr=False)

    @property
    def manifest(self) -> dict[str, Any]:
        """Read the manifest. Raises `RunError` if the run is not complete."""
        return read_manifest(self.path)

    def finish(self, write_card: Callable[[dict[str, Any]], None] | None = None, /, **results: Any) -> dict[str, Any]:
        """Write the manifest with these results, the command's notices and the digests of the run's files.

        The manifest marks the run as complete, so it is written last, when all files are on the disk.

        write_card: writes what depends on the manifest, from the manifest to be. Return the manifest.
        """
        manifest = _identity(self.stage, self.config, self.inputs)
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        manifest |= {"versions": versions(self.stage), "machine": machine(), "finished": finished} | results
        if found := collected():
            manifest["notices"] = found
        if write_card is not None:
            write_card(json.loads(to_json(manifest)))
        manifest["files"] = integrity.record(self.path)
        manifest = write_manifest(self.path, manifest)
        self.complete = True
        if self._lock:
            self._lock.release(force=True)
        return manifest


def open_run(
    path: Path | str, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], *, shared: bool = False
) -> Run:
    """Create the run directory at `path`, or reopen the one that an equal call began or completed.

    Args:
        path: the directory.
        stage: the command, as "distill".
        config: the options that affect the result.
        inputs: the fingerprint of each input.
        shared: release the lock at once, so that several processes can have the directory open. They must then
            coordinate their writes themselves.

    Raises:
        RunError: the directory holds another run (the message names the options that differ), is in use, or cannot
            be written.
    """
    path = Path(path)
    identity = json.loads(to_json(_identity(stage, dict(config), dict(inputs))))
    identity_file = path / "run.json"
    if _is_read_only(path):
        _check_identity(path, read_json(identity_file), identity)
        return Run(path, stage, identity["config"], identity["inputs"], complete=True)
    lock = _lock(_prepare_directory(path), timeout=_SHARED_LOCK_TIMEOUT if shared else 0)
    try:
        if has_outputs(path):
            _check_identity(path, read_json(identity_file), identity)
        else:
            write_json(identity_file, identity)
        if not shared:
            _remove_partial_files(path)
        if is_complete(path):
            if not shared:  # in a comparison, a task may have the name of one of these directories
                remove_leftovers(path)
            read_manifest(path)  # raises if a file is damaged
    except RunError:
        lock.release()
        raise
    run = Run(path, stage, identity["config"], identity["inputs"], (path / "manifest.json").exists(), lock)
    if run.complete or shared:
        lock.release()
    return run


def _is_read_only(path: Path) -> bool:
    """Return whether a complete run is on a disk or in a directory that cannot be written."""
    return is_complete(path) and not os.access(path, os.W_OK)


def remove_leftovers(path: Path) -> None:
    """Remove what a complete run no longer needs; a run killed at its end still has it."""
    for name in integrity.NOT_KEPT:
        shutil.rmtree(path / name, ignore_errors=True)


def _remove_partial_files(path: Path) -> None:
    """Remove what a killed process was writing; only the process that has the lock writes here."""
    for file in partial_files(path):
        file.unlink(missing_ok=True)


def _prepare_directory(path: Path) -> Path:
    """Create the directory if it is missing, and return it. Raises `RunError` if it cannot hold a run."""
    check_output(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    return path


def check_output(path: Path) -> None:
    """Raise `RunError` for a file, and for a directory with files that belong to no run."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; a directory was expected. Give another --output.")
    try:
        foreign = [p for p in path.iterdir() if not _is_initial(p)] if path.exists() else []
    except OSError as error:
        raise _unusable(path, error) from error
    if foreign and not (path / "run.json").exists():
        raise RunError(f"{path} holds files that are no demiglace run; give another --output, or empty it.")


def _unusable(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be created or read: {error.strerror}; give another --output.")


def stage_of(path: Path) -> str:
    """Return the command of the run at `path`; empty where there is no run, or where its run.json cannot be read."""
    try:
        content = read_json(path / "run.json")
    except (OSError, RunError):
        return ""
    return str(content.get("stage", "")) if "format" in content else ""


def is_complete(path: Path) -> bool:
    """Return whether the run at `path` is complete."""
    return (path / "manifest.json").exists()


def has_outputs(path: Path) -> bool:
    """Return whether a run wrote anything after its run.json.

    A run refused at its start leaves only a run.json. Another run may replace it.
    """
    return (path / "run.json").exists() and any(not _is_initial(p) and p.name != "run.json" for p in path.iterdir())


def _is_initial(path: Path) -> bool:
    return path.name in _INITIAL_FILES or (path.name.startswith("run.json.") and path.name.endswith(PARTIAL))


def runs_below(path: Path) -> list[Path]:
    """Return the run directories at or below a path. Raises `RunError` if there is none."""
    directories = [file.parent for file in sorted(path.rglob("run.json"))]
    found = [run for run in directories if stage_of(run) or is_complete(run)]  # of a damaged run.json, too
    if not found:
        raise RunError(f"{path} holds no run of demiglace; give run directories, or a folder of them.")
    return found


def _identity(stage: str, config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    return {"format": FORMAT, "stage": stage, "config": config, "inputs": inputs}


def _check_identity(path: Path, existing: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise `RunError`, naming the keys that differ, unless both identities are equal up to the format."""
    differ = [
        f"{name}: {old!r} there, {new!r} now"
        for name, old, new in _differences(_with_current_names(existing), given)
        if name not in ("format",)
    ]
    if differ:
        raise RunError(
            f"{path} holds another run, which differs in:\n  "
            + "\n  ".join(differ)
            + "\nGive another --output, or the same options to resume that run."
        )


def _with_current_names(content: dict[str, Any]) -> dict[str, Any]:
    """Return an identity or a manifest, which an earlier version may have written, under today's option names."""
    config = content.get("config")
    return content | {"config": renamed(config)} if isinstance(config, dict) else content


def check_config(path: Path | str, stage: str, config: Mapping[str, Any]) -> None:
    """Raise `RunError`, as `open_run` does, if the run at `path` has another command or other options.

    The inputs are not compared, so this is fast.
    """
    existing = read_json(Path(path) / "run.json")
    _check_identity(Path(path), existing, existing | json.loads(to_json({"stage": stage, "config": dict(config)})))


def _differences(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """List (dotted key, old value, new value) for each leaf in which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{name}.{k}" if name else k)]
    return [] if old == new else [(name.removeprefix("config."), old, new)]


def _lock(path: Path, timeout: float = 0) -> BaseFileLock:
    # One lock object per path: in a notebook, the traceback of a failed run keeps its lock, and the same command must
    # still be able to run again.
    lock = FileLock(path / ".lock", is_singleton=True)
    try:
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise RunError(f"{path} is in use by another process; wait for it or give another --output.") from error
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}; give another --output.") from error
    return lock


def read_manifest(path: Path | str) -> dict[str, Any]:
    """Return the manifest of the complete run at `path`.

    Raises `RunError` if there is none, and if the manifest or a file of the run is not as the run wrote it. Models are
    checked when they are resolved.
    """
    file = Path(path) / "manifest.json"
    if not file.exists():
        state = (
            "is an unfinished run; repeat its command to complete it"
            if (Path(path) / "run.json").exists()
            else "is no run directory"
        )
        raise RunError(f"{path} {state} (no manifest.json there).")
    manifest = read_json(file)
    if not _has_its_checksum(file.read_text(encoding="utf-8")):
        raise RunError(
            f"{file} is damaged: its content does not have the checksum that it was written with. Restore it, or "
            f"remove {path} and repeat its command. If you changed it on purpose: demiglace verify {path} --accept"
        )
    integrity.check(Path(path), manifest.get("files", {}), lambda name: not name.startswith(_OF_MODELS))
    return _with_current_names(manifest)


@lru_cache(maxsize=32)  # a command reads the manifests of its models many times
def _has_its_checksum(content: str) -> bool:
    """Return whether a manifest has the checksum of its content; earlier versions wrote none."""
    manifest = json.loads(content)
    return manifest.get("checksum", "") in ("", integrity.checksum_of(manifest))


def check_model_files(path: Path) -> None:
    """Raise `RunError` if a model in the complete run at `path` is not as the run wrote it."""
    manifest = read_manifest(path)
    integrity.check(path, manifest.get("files", {}), lambda name: name.startswith("model/"))


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of the run at `path` with its checksum, and return it."""
    plain = json.loads(to_json({key: value for key, value in manifest.items() if key != "checksum"}))
    plain["checksum"] = integrity.checksum_of(plain)
    write_json(path / "manifest.json", plain)
    return plain
