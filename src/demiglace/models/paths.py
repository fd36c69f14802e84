"""Where a model is: a model directory, a run directory, or a name on the Hugging Face hub; without torch."""

import os
import re
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from demiglace.errors import ModelError, near, suggestion
from demiglace.runs.directory import check_model_files, is_complete

_TIMEOUT = 3.0  # seconds to wait for a connection with the hub
_MODEL_FILES = ("config.json", "run.json")  # a directory of a model has one of them


def resolve_model(model: str | Path) -> str:
    """Return the model directory of `model`, or `model` unchanged if it can only be a hub name.

    A run directory of finetune or distill has its model in `model/`; one of truncate is a model directory. The model of
    a GGUF file is read once and kept in the user's cache as a directory. Raises `ModelError` for an unfinished run, a
    directory or file that is no model, and a path that does not exist; `RunError` for a model that is damaged.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return str(_model_directory(path))
    if path.suffix == ".gguf" and path.is_file():
        from demiglace.models.gguf import unpacked_gguf  # imports torch

        return str(unpacked_gguf(path))
    if path.exists():
        raise ModelError(
            f"{model} is a file; give a model directory (with config.json), a run directory, a GGUF file or a hub name."
        )
    local, _, revision = str(model).rpartition("@")
    if local and Path(local).exists():
        raise ModelError(
            f"revision {revision} was given for {local}, which is on this machine; expected a model on the Hugging "
            "Face hub by its name, such as distilbert/distilbert-base-uncased."
        )
    if _is_local_path(str(model)):
        raise ModelError(
            f"there is no model at {model}{_similar(path)} Expected a model directory, a run directory or a hub name."
        )
    return str(model)


def hub_address(name: str) -> dict[str, str]:
    """Return the arguments of `from_pretrained` for a hub name, which may end in @REVISION, or for a directory."""
    repository, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
    return {"pretrained_model_name_or_path": repository, "revision": revision or "main"}


def check_available(model: str | Path) -> None:
    """Raise `ModelError` as `resolve_model` does, and for a hub name that can neither be read nor downloaded."""
    name = resolve_model(model)
    if Path(name).is_dir() or _is_cached(name):
        return
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        reason = "HF_HUB_OFFLINE forbids to download it"
    elif not _hub_answers():
        reason = "the hub cannot be reached"
    else:
        return
    raise ModelError(
        f"there is no directory {name} here{_similar(Path(name))} As a name on the Hugging Face hub it is not in the "
        f"local cache, and {reason}. Check the path, or download the model first."
    )


def _model_directory(path: Path) -> Path:
    if (path / "run.json").exists():
        if not is_complete(path):
            raise ModelError(f"{path} is an unfinished run; repeat its command to complete it, then use its model.")
        check_model_files(path)
    elif path.name == "model" and is_complete(path.parent):
        check_model_files(path.parent)
    for directory in (path / "model", path) if (path / "run.json").exists() else (path,):
        if (directory / "config.json").is_file():
            return directory
    raise ModelError(f"{path} contains no model (no config.json); give a model directory or a run directory.")


def _is_local_path(model: str) -> bool:
    """Return whether a name is a path: it is no `name` or `owner/name` of the hub, or its parent directory exists."""
    is_hub_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(@\w[\w./-]*)?", model) is not None
    name = model.partition("@")[0]
    return not is_hub_name or ("/" in name and Path(name).parent.is_dir())


def _similar(path: Path) -> str:
    """Return the end of a sentence that suggests directories of models with names like that of a path."""
    folder = path.parent if path.parent.is_dir() else Path()
    try:
        found = [p for p in sorted(folder.iterdir()) if any((p / name).exists() for name in _MODEL_FILES)]
    except OSError:
        return "."
    by_name = {p.name: str(p) for p in found}
    return suggestion([by_name[name] for name in near(path.name, by_name)])


def _is_cached(name: str) -> bool:
    """Return whether the hub's local cache has the config of a model."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = name.partition("@")
    return isinstance(try_to_load_from_cache(repository, "config.json", revision=revision or None), str)


def _hub_answers() -> bool:
    """Return whether a connection with the hub can be opened; true where a proxy decides that."""
    from huggingface_hub.constants import ENDPOINT

    address = urlsplit(ENDPOINT)
    if address.scheme in urllib.request.getproxies() or address.hostname is None:
        return True
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        with socket.create_connection((address.hostname, port), timeout=_TIMEOUT):
            return True
    except OSError:
        return False
