"""Find the artefacts in an export directory."""

from pathlib import Path

from demiglace.errors import ModelError
from demiglace.export.base import Artefact
from demiglace.runs.artefacts import EXPORT, measured_artefacts
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import read_json


def exported_artefact(model: str | Path) -> Artefact | None:
    """Return the exported model that a path names, or None if it names anything else.

    An export directory means its first artefact, which is in full precision; a file in it means the artefact of that
    file. Raises `RunError` for an unfinished export, and `ModelError` for a file that is not a model or is missing.
    """
    path = Path(model).expanduser()
    directory = path.parent if path.is_file() else path
    claim = directory / "run.json"
    if not claim.exists() or read_json(claim).get("stage") != "export":
        return None
    entries = [a for a in measured_artefacts(read_manifest(directory)) if a["role"] == EXPORT]
    entry = next((a for a in entries if path == directory or Path(a["file"]).name == path.name), None)
    names = ", ".join(Path(a["file"]).name for a in entries)
    if entry is None:
        raise ModelError(f"{path} is not an exported model; give {directory}, or one of its models: {names}.")
    name = Path(entry["file"]).name  # the directory may have been moved since
    files = tuple(directory / file for file in entry.get("files", [name]))
    if missing := [file for file in files if not file.is_file()]:
        raise ModelError(f"{missing[0]} is missing; export the model again with another --output.")
    return Artefact(entry["format"], entry["precision"], str(directory / name), files)
