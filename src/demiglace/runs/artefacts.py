"""Read from an export's manifest which models it measured."""

from collections.abc import Mapping
from typing import Any

from demiglace.errors import RunError

EXPORT, ORIGINAL, TEACHER = "export", "original", "teacher"  # the roles
# manifests of version 0.1 have no fields but these four names
_NAMES_OF_0_1 = {
    "PyTorch": ("pytorch", "fp32", ORIGINAL),
    "PyTorch teacher": ("pytorch", "fp32", TEACHER),
    "ONNX fp32": ("onnx", "fp32", EXPORT),
    "ONNX int8": ("onnx", "int8", EXPORT),
}


def measured_artefacts(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the models that an export measured, in the order of the manifest; empty for other manifests.

    Each has the entries of the manifest, among them `name` for display, `format` ("onnx", "pytorch"), `precision`
    ("fp32", "int8") and `role`: "export" for what the export wrote, "original" for the model that it read, "teacher".
    Raises `RunError` for an entry of an earlier version that cannot be read.
    """
    return [_with_fields(entry) for entry in manifest.get("artefacts") or ()]


def _with_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = ("format", "precision", "role")
    if all(name in entry for name in names):
        return dict(entry)
    if entry.get("name") not in _NAMES_OF_0_1:
        raise RunError(
            f"the export lists an artefact {entry.get('name')!r} without format, precision and role, as an earlier "
            "version of demiglace wrote it, and this version does not know the name; repeat the export with this "
            "version."
        )
    return dict(entry) | dict(zip(names, _NAMES_OF_0_1[entry["name"]], strict=True))
