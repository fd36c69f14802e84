"""The longest row that a model takes, and the one that it was trained with."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from demiglace.errors import ModelError
from demiglace.models.files import load_config, resolve_model
from demiglace.models.from_config import random_model
from demiglace.models.library import LOAD_ERRORS
from demiglace.models.shape import max_positions
from demiglace.models.truncate import truncate_config
from demiglace.runs.directory import read_manifest

# types of models whose table of positions is known without building them; others are built from their config
_FROM_ZERO = ("bert", "deberta-v2", "distilbert", "electra", "gpt2", "llama", "mistral", "modernbert", "qwen2", "qwen3")
_AFTER_PADDING = ("camembert", "roberta", "xlm-roberta")  # position 0 is in the row after that of the padding token


def most_tokens(*models: str) -> int | None:
    """Return how many tokens of a row all these models take, from their configs; None if no one has a limit."""
    limits = [most_tokens_of_config(load_config(resolve_model(model))) for model in models]
    return min((limit for limit in limits if limit is not None), default=None)


def most_tokens_of_config(config: PreTrainedConfig) -> int | None:
    """Return how many tokens of a row a model of this config takes, as `shape.max_positions`; None if unlimited.

    A model that transformers cannot build has no limit here; loading it gives the reason.
    """
    rows: int | None = getattr(config, "max_position_embeddings", None)
    if rows is None or config.model_type in _FROM_ZERO:
        return rows
    if config.model_type in _AFTER_PADDING and config.pad_token_id is not None:
        return rows - config.pad_token_id - 1
    kind: Any = type(config)  # mypy considers it unhashable
    return _most_tokens_of_built(kind, config.to_json_string())


@lru_cache  # because a comparison has many runs of one model
def _most_tokens_of_built(kind: type[PreTrainedConfig], content: str) -> int | None:
    config = kind.from_dict(json.loads(content))
    try:
        return max_positions(random_model(truncate_config(config, (0,)), torch.device("meta")))
    except (AttributeError, ModelError, *LOAD_ERRORS):
        return None


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
