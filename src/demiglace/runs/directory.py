"""The run directory: every command reads its inputs, writes one directory and puts `manifest.json` there last.

`run.json` is written first and says what the directory is for; `manifest.json` repeats it with the results, and its
presence means that everything else in the directory is complete. So the same command on the same directory either
answers "up to date" (manifest), goes on where it was cut off (run.json only), or refuses (another run's directory).
"""

import hashlib
import json
import numbers
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from demiglace.errors import RunError

FORMAT = 1
_OURS = (".lock", "run.json.part")  # may be all that a run cut off in its first moment has left
_SHARED_SECONDS = 60.0  # a shared directory is locked for moments only
_VERSIONED = ("demiglace", "torch", "transformers", "tokenizers", "accelerate", "numpy", "onnxruntime")
_CLEANING = ("daft", "fastwarc", "ftfy", "py3langid", "pyarrow", "scipy", "trafilatura", "zstandard")


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
    identity = json.loads(_json(_identity(stage, dict(config), dict(inputs))))
    claim = path / "run.json"
    lock = _lock(_usable(path), patience=_SHARED_SECONDS if shared else 0)
    try:
        if has_begun(path):
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


def _usable(path: Path) -> Path:
    """The directory, made where it is missing; `RunError` if it cannot hold a run."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file, and a directory is needed there; give another --output.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        foreign = [p for p in path.iterdir() if p.name not in _OURS]
    except OSError as error:
        raise RunError(f"{path} cannot be made or read: {error.strerror}; give another --output.") from error
    if foreign and not (path / "run.json").exists():
        raise RunError(f"{path} holds files that are no demiglace run; give another --output or empty it.")
    return path


def has_begun(path: Path) -> bool:
    """Whether a run there has made anything. A claim alone, as a refused option leaves it, yields to another run."""
    return (path / "run.json").exists() and any(p.name not in (*_OURS, "run.json") for p in path.iterdir())


def _identity(stage: str, config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    return {"format": FORMAT, "stage": stage, "config": config, "inputs": inputs}


def _compare(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differ = [
        f"{name}: {old!r} there, {new!r} now"
        for name, old, new in _differences(found, wanted)
        if name not in ("format",)
    ]
    if differ:
        raise RunError(
            f"{path} holds another run, which differs in:\n  "
            + "\n  ".join(differ)
            + "\nGive another --output, or the same options to go on with that run."
        )


def check_config(path: Path | str, stage: str, config: Mapping[str, Any]) -> None:
    """Raise `RunError`, as `open_run` does, if the run at `path` is of another stage or other options.

    What it read is not looked at, so this is quick.
    """
    found = read_json(Path(path) / "run.json")
    _compare(Path(path), found, found | json.loads(_json({"stage": stage, "config": dict(config)})))


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
    """The manifest of the complete run at `path`; `RunError` where there is none."""
    file = Path(path) / "manifest.json"
    if not file.exists():
        state = (
            "is an unfinished run; repeat its command to complete it"
            if (Path(path) / "run.json").exists()
            else "is no run directory"
        )
        raise RunError(f"{path} {state} (no manifest.json there).")
    return read_json(file)


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
    write_atomically(file, (_json(content) + "\n").encode())


def _json(content: Mapping[str, Any]) -> str:
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


def versions(stage: str = "") -> dict[str, str]:
    """Versions of the libraries that decide a result of a stage, as far as they are installed."""
    found = {}
    for name in (*_VERSIONED, *(_CLEANING if stage == "clean" else ())):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The machine in words: processor, cores, memory (GiB), operating system, Python."""
    import psutil

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
