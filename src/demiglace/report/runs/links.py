"""Which run the config of another run refers to, and the role of each: teacher, distilled student, baseline."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demiglace.report.runs.schema import Record, Role


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return for each path its shortest ending that no other path has."""
    ends = {p: _absolute(p).parts for p in paths}

    def shortest(path: Path) -> str:
        own = ends[path]
        for n in range(1, len(own) + 1):
            if sum(other[-n:] == own[-n:] for other in ends.values()) == 1:
                return "/".join(own[-n:])
        return str(path)

    return {p: shortest(p) for p in paths}


def find(reference: Any, records: Sequence[Record]) -> Record | None:
    """Return the run that a config refers to by a path; None where it is unknown or ambiguous.

    The path may have been typed in another working directory, or the runs were moved. Without an exact match, the only
    run with the same ending (two parts, or the complete text) counts.
    """
    if not isinstance(reference, str):
        return None
    wanted = _absolute(reference)
    for record in records:
        own = _absolute(record.path)
        if wanted in (own, own / "model"):
            return record
    parts = [p for p in Path(reference).parts if p not in ("..", "/")]
    parts = parts[:-1] if parts[-1:] == ["model"] else parts
    end = tuple(parts[-2:])
    alike = [r for r in records if end and _absolute(r.path).parts[-len(end) :] == end]
    return alike[0] if len(alike) == 1 else None


def _absolute(path: str | Path) -> Path:
    """Return the absolute path without access to the disk: a config may hold texts that are no paths."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def name_of(reference: Any, records: Sequence[Record], names: Mapping[Path, str]) -> str:
    """Return the name of the run that a config refers to; of another model its own name."""
    record = find(reference, records)
    return external_name(reference, names) if record is None else names[record.path]


def external_name(reference: Any, names: Mapping[Path, str]) -> str:
    """Return the name of a model that is no run of the report: of a path on this machine the last part."""
    path = Path(str(reference))
    path = path.parent if path.name == "model" and path.parent.name else path
    name = path.name if path.is_absolute() and path.name else str(path)
    return f"{name} (external)" if name in names.values() else name


def role_of(record: Record, records: Sequence[Record]) -> Role:
    """Return the role of a finetune or distill run.

    A run that a distillation names as its teacher is a teacher. A baseline is a student without a teacher: distilled
    by the method `none`, or fine-tuned from a truncated model.
    """
    if any(find(r.config.get("teacher"), records) is record for r in records if r.stage == "distill"):
        return "teacher"
    if record.stage == "distill":
        return "baseline" if record.config.get("method") == "none" else "distilled"
    return "baseline" if _is_truncated(record.config.get("model"), records) else "model"


def _is_truncated(model: Any, records: Sequence[Record]) -> bool:
    record = find(model, records)
    if record is not None:
        return record.stage == "truncate"
    try:  # the truncated model is not part of the report, but may still exist
        return json.loads((Path(str(model)) / "manifest.json").read_text("utf-8")).get("stage") == "truncate"
    except (OSError, ValueError, AttributeError):
        return False
