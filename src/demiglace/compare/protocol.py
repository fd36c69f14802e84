"""The declaration of a comparison: its protocol file and primary contrasts before its runs, and each later change."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from filelock import FileLock

from demiglace.compare.grid import Grid
from demiglace.runs.directory import has_outputs
from demiglace.runs.files import read_json, write_json

Entry = Mapping[str, Any]


def declare(root: Path, grid: Grid, content: Mapping[str, Any]) -> None:
    """Append the grid's declaration to protocol.json if it changed; called before the runs.

    An entry holds the hashes of the protocol and the grid, `primary`, the time, and whether a run had begun by then.
    Entries are never overwritten. Nothing is written if nothing was ever declared.

    Args:
        root: the comparison directory.
        grid: the parsed grid.
        content: content of the grid file.
    """
    with FileLock(root / "locks" / "protocol.lock"):
        history = _history(root)
        if not history and grid.protocol is None and not grid.primary:
            return
        declared = {
            "file": grid.protocol,
            "sha256": _sha256(Path(grid.protocol).read_bytes()) if grid.protocol else None,
            "primary": [asdict(contrast) for contrast in grid.primary],
            "grid_sha256": _sha256(json.dumps(content, sort_keys=True, default=str).encode()),
        }
        declared = json.loads(json.dumps(declared))
        if not history or any(history[-1][name] != declared[name] for name in ("sha256", "primary", "grid_sha256")):
            time = datetime.now(UTC).isoformat(timespec="seconds")
            entry = {"declared_at": time, "after_first_run": _any_run(root), **declared}
            write_json(root / "protocol.json", {"history": [*history, entry]})


def declaration(root: Path) -> dict[str, Any] | None:
    """Return the declaration of a comparison, or None if nothing was declared.

    Returns:
        file, sha256: of the protocol; None if only `primary` was declared.
        declared_at: when the present protocol and primary contrasts were declared.
        changed_after_first_run: whether any were first declared, or changed, after a run had begun.
        history: every declaration, the oldest first.
    """
    history = _history(root)
    if not history:
        return None
    changes = [history[0], *(new for old, new in pairwise(history) if _declared(old) != _declared(new))]
    return {
        "file": history[-1]["file"],
        "sha256": history[-1]["sha256"],
        "declared_at": changes[-1]["declared_at"],
        "changed_after_first_run": any(entry["after_first_run"] for entry in changes),
        "history": history,
    }


def _history(root: Path) -> list[Entry]:
    file = root / "protocol.json"
    return list(read_json(file)["history"]) if file.exists() else []


def _declared(entry: Entry) -> tuple[Any, Any]:
    """Return what must not change after the first run. A grid may get more replicates or methods."""
    return entry["sha256"], entry["primary"]


def _any_run(root: Path) -> bool:
    return any(has_outputs(identity_file.parent) for identity_file in root.glob("*/**/run.json"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
