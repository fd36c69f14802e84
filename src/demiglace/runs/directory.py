"""The run directory: every command reads its inputs, writes one directory and puts `manifest.json` there last.

`run.json` is written first and says what the directory is for; `manifest.json` repeats it with the results, and its
presence means that everything else in the directory is complete. So the same command on the same directory either
answers "up to date" (manifest), goes on where it was cut off (run.json only), or refuses (another run's directory).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from demiglace.config.aliases import renamed
from demiglace.errors import RunError
from demiglace.runs.environment import machine, versions
from demiglace.runs.files import read_json, to_json, write_json

FORMAT = 1
_OURS = (".lock", "run.json.part")  # may be all that a run cut off in its first moment has left
_SHARED_SECONDS = 60.0  # a shared directory is locked for moments only


@dataclass
class Run:
    """An opened run directory, which no other process can open until it finishes.

    `complete` is true where its manifest already stands.
    """

    path: Path
    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    complete: bool = False
    _lock: BaseFileLock | None = field(default=None, repr=False)

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of a complete run."""
        return read_manifest(self.path)

    def finish(self, **results: Any) -> dict[str, Any]:
        """Write the manifest, which marks the run as complete, and return it."""
        manifest = _identity(self.stage, self.config, self.inputs)
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        manifest |= {"versions": versions(self.stage), "machine": machine(), "finished": finished} | results
        write_json(self.path / "manifest.json", manifest)
        self.complete = True
        if self._lock:
            self._lock.release(force=True)
        return manifest


def open_run(
    path: Path | str, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], *, shared: bool = False
) -> Run:
    """Create the run directory at `path`, or take up the one that an equal call has begun or completed there.

    `config` holds the options that decide the result and `inputs` the fingerprints of what the run reads. A `shared`
    directory is not held: several processes may have it open, and look after what they write there themselves.
    Raises `RunError` if the directory holds another run (the differing keys are named) or is in use.
    """
    path = Path(path)
    identity = json.loads(to_json(_identity(stage, dict(config), dict(inputs))))
    claim = path / "run.json"
    lock = _lock(_prepare_directory(path), patience=_SHARED_SECONDS if shared else 0)
    try:
        if has_outputs(path):
            _compare(path, read_json(claim), identity)
        else:
            write_json(claim, identity)
    except RunError:
        lock.release()
        raise
    run = Run(path, stage, identity["config"], identity["inputs"], (path / "manifest.json").exists(), lock)
    if run.complete or shared:
        lock.release()
    return run


def _prepare_directory(path: Path) -> Path:
    """Create the directory where it is missing, and return it. Raises `RunError` if it cannot hold a run."""
    check_output(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    return path


def check_output(path: Path) -> None:
    """Raise `RunError` for a file, and for a directory with files that belong to no run."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file, and a directory is needed there; give another --output.")
    try:
        foreign = [p for p in path.iterdir() if p.name not in _OURS] if path.exists() else []
    except OSError as error:
        raise _unusable(path, error) from error
    if foreign and not (path / "run.json").exists():
        raise RunError(f"{path} holds files that are no demiglace run; give another --output or empty it.")


def _unusable(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be made or read: {error.strerror}; give another --output.")


def has_outputs(path: Path) -> bool:
    """Whether a run there has made anything. A claim alone, as a refused option leaves it, yields to another run."""
    return (path / "run.json").exists() and any(p.name not in (*_OURS, "run.json") for p in path.iterdir())


def _identity(stage: str, config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    return {"format": FORMAT, "stage": stage, "config": config, "inputs": inputs}


def _compare(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differ = [
        f"{name}: {old!r} there, {new!r} now"
        for name, old, new in _differences(_with_names_of_now(found), wanted)
        if name not in ("format",)
    ]
    if differ:
        raise RunError(
            f"{path} holds another run, which differs in:\n  "
            + "\n  ".join(differ)
            + "\nGive another --output, or the same options to go on with that run."
        )


def _with_names_of_now(content: dict[str, Any]) -> dict[str, Any]:
    """Return a claim or a manifest, which an earlier version may have written, with the options' names of now."""
    config = content.get("config")
    return content | {"config": renamed(config)} if isinstance(config, dict) else content


def check_config(path: Path | str, stage: str, config: Mapping[str, Any]) -> None:
    """Raise `RunError`, as `open_run` does, if the run at `path` is of another stage or other options.

    What it read is not looked at, so this is quick.
    """
    found = read_json(Path(path) / "run.json")
    _compare(Path(path), found, found | json.loads(to_json({"stage": stage, "config": dict(config)})))


def _differences(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{name}.{k}" if name else k)]
    return [] if old == new else [(name.removeprefix("config."), old, new)]


def _lock(path: Path, patience: float = 0) -> BaseFileLock:
    # one lock object a path: a failed run whose traceback a notebook still holds does not bar its own repetition
    lock = FileLock(path / ".lock", is_singleton=True)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise RunError(f"{path} is in use by another process; wait for it or give another --output.") from error
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}; give another --output.") from error
    return lock


def read_manifest(path: Path | str) -> dict[str, Any]:
    """Return the manifest of the complete run at `path`, its options under the names of now.

    Raises `RunError` where there is none.
    """
    file = Path(path) / "manifest.json"
    if not file.exists():
        state = (
            "is an unfinished run; repeat its command to complete it"
            if (Path(path) / "run.json").exists()
            else "is no run directory"
        )
        raise RunError(f"{path} {state} (no manifest.json there).")
    return _with_names_of_now(read_json(file))
