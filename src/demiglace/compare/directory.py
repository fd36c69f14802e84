"""The directory of a comparison: whose it is, what of the user's own it was made from, whether it stands.

Light on purpose: that a complete comparison is up to date is told without importing torch.
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
_READERS = {  # the claims of the runs that read what `Files` names
    "data": "{label}/**/run.json",
    "teacher": "{label}/**/run.json",
    "student": "*/{label}/**/run.json",
    "method": "*/*/{label}/**/run.json",
    "unlabelled": "*/*/*/**/run.json",
    "set": "**/*.evaluation/run.json",
    "suite": "**/*.evaluation/run.json",
}
Files = Mapping[str, Sequence[Path]]
"""What a grid reads of the user's own, such as `data TASK`, and its files."""


def identity(content: Mapping[str, Any], search: str) -> dict[str, Any]:
    """A grid as the manifest has it: the content of its file, and what searched for its options.

    Its manifest may have more options of the command beside them.
    """
    return json.loads(json.dumps({"grid": dict(content), "search": search}, default=str))


def is_up_to_date(home: Path, config: Mapping[str, Any]) -> bool:
    """Whether the directory is complete for this very grid: all its runs are there, what they read is unchanged."""
    if not (home / "manifest.json").exists():
        return False
    manifest = read_manifest(home)
    if manifest["stage"] != STAGE or {**manifest["config"], **config} != manifest["config"]:
        return False
    done = all((home / key / name).exists() for key, name in manifest["steps"].items())
    return done and all(
        _fingerprint_or_missing(manifest["read"].get(k, ())) == mark for k, mark in manifest["inputs"].items()
    )


def _fingerprint_or_missing(files: Sequence[Path | str]) -> str:
    """The fingerprint of files; of files that are gone it is another one."""
    return fingerprint(files) if all(Path(f).exists() for f in files) else "gone"


def register_inputs(home: Path, read: Files) -> dict[str, str]:
    """Make the directory, or take up the one that stands; returns the fingerprint of each thing it reads.

    Things may be added to those that its runs have read, and those that no run has read yet may be mended; the others
    must be as they were. Raises `RunError` where they are not, or where the directory holds something else.
    """
    open_run(home, STAGE, {}, {}, shared=True)
    found = {name: _fingerprint_or_missing(files) for name, files in read.items()}
    (home / "locks").mkdir(exist_ok=True)
    with FileLock(home / "locks" / "inputs.lock"):
        file = home / "inputs.json"
        known = read_json(file) if file.exists() else {}
        changed = [name for name in found if known.get(name, found[name]) != found[name] and _was_read(home, name)]
        if changed:
            raise RunError(
                f"{home}: {', '.join(changed)} changed since its runs were made; give another --output, or remove the "
                "runs that read what changed, and what was made from them."
            )
        if known | found != known:
            write_json(file, known | found)
    return found


def _was_read(home: Path, name: str) -> bool:
    """Whether a run that has begun may have read a thing; one that was refused at its start has not."""
    kind, _, label = name.partition(" ")
    if kind not in _READERS:  # the protocol, which `compare.protocol` looks after
        return False
    claims = home.glob(_READERS[kind].format(label=label))
    return any(has_outputs(claim.parent) for claim in claims)


def invalidate_manifest(home: Path) -> None:
    """The grid is another one than the manifest's: until its new runs stand, the directory is not complete."""
    (home / "manifest.json").unlink(missing_ok=True)
