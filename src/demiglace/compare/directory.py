"""The comparison directory: which grid it belongs to, which user files it depends on, and whether it is complete.

This module imports no torch, so that `demiglace compare` reports "up to date" at once.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from demiglace.errors import RunError
from demiglace.runs.directory import has_outputs, open_run, read_manifest
from demiglace.runs.files import fingerprint, read_json, write_json

STAGE = "compare"
_READERS = {  # kind of input -> pattern of the run.json of every run that reads it
    "data": "{label}/**/run.json",
    "teacher": "{label}/**/run.json",
    "student": "*/{label}/**/run.json",
    "method": "*/*/{label}/**/run.json",
    "unlabelled": "*/*/*/**/run.json",
    "set": "**/*.evaluation/run.json",
    "suite": "**/*.evaluation/run.json",
}
Files = Mapping[str, Sequence[Path]]
"""Input -> its files, for everything that a grid reads from the user; an input is named as `data TASK`."""


def identity(content: Mapping[str, Any], search: str) -> dict[str, Any]:
    """Return the identity of a comparison: the content of its grid file and its `--search`.

    The config in the manifest may hold more options of the command.
    """
    return json.loads(json.dumps({"grid": dict(content), "search": search}, default=str))


def is_up_to_date(root: Path, config: Mapping[str, Any]) -> bool:
    """Return whether the directory is complete for this grid: all its runs exist and their inputs are unchanged."""
    if not (root / "manifest.json").exists():
        return False
    manifest = read_manifest(root)
    if manifest["stage"] != STAGE or {**manifest["config"], **config} != manifest["config"]:
        return False
    done = all((root / key / name).exists() for key, name in manifest["steps"].items())
    return done and all(
        _fingerprint_or_missing(manifest["read"].get(k, ())) == mark for k, mark in manifest["inputs"].items()
    )


def _fingerprint_or_missing(files: Sequence[Path | str]) -> str:
    """Return the fingerprint of files, or "gone" if one is missing."""
    return fingerprint(files) if all(Path(f).exists() for f in files) else "gone"


def register_inputs(root: Path, read: Files) -> dict[str, str]:
    """Create or reopen the comparison directory, and record the fingerprint of each input; return them.

    New inputs may be added, and an input may change until a run has read it.

    Raises:
        RunError: an input changed after a run read it, or the directory holds something else.
    """
    open_run(root, STAGE, {}, {}, shared=True)
    current = {name: _fingerprint_or_missing(files) for name, files in read.items()}
    (root / "locks").mkdir(exist_ok=True)
    with FileLock(root / "locks" / "inputs.lock"):
        file = root / "inputs.json"
        known = read_json(file) if file.exists() else {}
        changed = [n for n, mark in current.items() if known.get(n, mark) != mark and _was_read(root, n)]
        if changed:
            raise RunError(
                f"{root}: {', '.join(changed)} changed after runs had read it; give another --output, or remove the "
                "runs that read it, and what was made from them."
            )
        if known | current != known:
            write_json(file, known | current)
    return current


def _was_read(root: Path, name: str) -> bool:
    """Return whether a run may have read an input. A run that was refused at its start has not."""
    kind, _, label = name.partition(" ")
    if kind not in _READERS:  # the protocol; `compare.protocol` records its changes
        return False
    identity_files = root.glob(_READERS[kind].format(label=label))
    return any(has_outputs(identity_file.parent) for identity_file in identity_files)


def invalidate_manifest(root: Path) -> None:
    """Remove the manifest of an earlier grid; it is written again when the new runs are complete."""
    (root / "manifest.json").unlink(missing_ok=True)
