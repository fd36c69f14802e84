"""Find the artefacts in an export directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demiglace.errors import ModelError
from demiglace.export.base import Artefact
from demiglace.runs.artefacts import EXPORT, measured_artefacts
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import read_json


def export_directory(model: str | Path) -> Path | None:
    """Return the export directory that a path names or holds a file of, or None if it names anything else."""
    path = Path(model).expanduser()
    for directory in path.parents[:2] if path.is_file() else (path,):
        claim = directory / "run.json"
        if claim.exists():
            return directory if read_json(claim).get("stage") == "export" else None
    return None


def exported_artefact(model: str | Path) -> Artefact | None:
    """Return the exported model that a path names, or None if it names anything else.

    An export directory means its first artefact, which is in full precision; a file in it means the artefact of that
    file. Raises `RunError` for an unfinished export, and `ModelError` for a file that is not a model or is missing.
    """
    path, directory = Path(model).expanduser(), export_directory(model)
    if directory is None:
        return None
    entries = [a for a in measured_artefacts(read_manifest(directory)) if a["role"] == EXPORT]
    files = [_files(entry, directory) for entry in entries]
    i = next((i for i, found in enumerate(files) if path == directory or path in found), None)
    if i is None:
        names = ", ".join(str(found[0].relative_to(directory)) for found in files)
        raise ModelError(f"{path} is not an exported model; give {directory}, or one of its models: {names}.")
    if missing := [file for file in files[i] if not file.is_file()]:
        raise ModelError(f"{missing[0]} is missing; export the model again with another --output.")
    return Artefact(entries[i]["format"], entries[i]["precision"], str(files[i][0]), files[i])


def _files(entry: Mapping[str, Any], directory: Path) -> tuple[Path, ...]:
    """Return the files of an artefact where they are now, since the directory may have been moved; first what opens."""
    opened = Path(entry["file"]).name
    files = [directory / file for file in entry.get("files", [opened])]
    return tuple(sorted(files, key=lambda file: file.name != opened))
