"""The longest row that a model takes, and the one that it was trained with."""

from pathlib import Path

from demiglace.errors import ModelError
from demiglace.models.files import load_config, resolve_model
from demiglace.models.from_config import shape_of_config
from demiglace.models.library import LOAD_ERRORS
from demiglace.models.truncate import truncate_config
from demiglace.runs.directory import read_manifest


def most_tokens(*models: str) -> int | None:
    """Return how many tokens of a row all these models take, from their configs; None if no one has a limit.

    A model that transformers cannot build has none here; loading it gives the reason.
    """
    limits = []
    for model in models:
        config = load_config(resolve_model(model))
        try:
            limits.append(shape_of_config(truncate_config(config, (0,))).max_positions)
        except (AttributeError, ModelError, *LOAD_ERRORS):
            continue
    return min((limit for limit in limits if limit is not None), default=None)


def trained_max_length(model: str) -> int | None:
    """Return the --max-length that a model was trained or exported with, None if it is not of a run.

    model: a run directory, or a directory or a file in one.
    """
    path = Path(model)
    for directory in (path, path.parent) if path.exists() else ():
        if (directory / "manifest.json").exists():
            manifest = read_manifest(directory)
            found = manifest.get("max_length") or manifest.get("config", {}).get("max_length")
            return None if found is None else int(found)
    return None


def max_length_of(model: str, path: str) -> int | None:
    """Return the longest row to evaluate a model with: as it was trained, else as many tokens as it takes.

    model: as in `trained_max_length`; path: of its weights.
    """
    return trained_max_length(model) or most_tokens(path)
