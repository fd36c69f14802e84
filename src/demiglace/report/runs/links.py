"""Which run another run's config means, and the part that each plays: teacher, distilled student, control."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demiglace.report.runs.schema import Record, Role


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Each path's shortest ending that no other path shares."""
    ends = {p: _place(p).parts for p in paths}

    def shortest(path: Path) -> str:
        own = ends[path]
        for n in range(1, len(own) + 1):
            if sum(other[-n:] == own[-n:] for other in ends.values()) == 1:
                return "/".join(own[-n:])
        return str(path)

    return {p: shortest(p) for p in paths}


def find(reference: Any, records: Sequence[Record]) -> Record | None:
    """The run that a config names by a path.

    The path was typed in another working directory perhaps, or all runs were moved since: where no run lies exactly
    there, the only one whose path ends alike (two parts, or all that was typed) is meant.
    """
    if not isinstance(reference, str):
        return None
    wanted = _place(reference)
    for record in records:
        own = _place(record.path)
        if wanted in (own, own / "model"):
            return record
    parts = [p for p in Path(reference).parts if p not in ("..", "/")]
    parts = parts[:-1] if parts[-1:] == ["model"] else parts
    end = tuple(parts[-2:])
    alike = [r for r in records if end and _place(r.path).parts[-len(end) :] == end]
    return alike[0] if len(alike) == 1 else None


def _place(path: str | Path) -> Path:
    """The absolute path; nothing is asked of the disk, as a config may hold what is no path at all."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def name_of(reference: Any, records: Sequence[Record], names: Mapping[Path, str]) -> str:
    """The name of the run that a config means, or what the config says where that is no run."""
    record = find(reference, records)
    return str(reference) if record is None else names[record.path]


def role_of(record: Record, records: Sequence[Record]) -> Role:
    """What a finetune or distill run is in the comparison.

    A run that some distillation learns from is its teacher. A control is a student that had none: distilled by the
    method `none`, or fine-tuned from a truncated model.
    """
    if any(find(r.config.get("teacher"), records) is record for r in records if r.stage == "distill"):
        return "teacher"
    if record.stage == "distill":
        return "control" if record.config.get("method") == "none" else "distilled"
    return "control" if _is_truncated(record.config.get("model"), records) else "model"


def _is_truncated(model: Any, records: Sequence[Record]) -> bool:
    record = find(model, records)
    if record is not None:
        return record.stage == "truncate"
    try:  # the truncated model was not given to the report, but may still lie where it was
        return json.loads((Path(str(model)) / "manifest.json").read_text("utf-8")).get("stage") == "truncate"
    except (OSError, ValueError, AttributeError):
        return False
