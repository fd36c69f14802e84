"""Models built from a config: their exact shape without weights, or with random weights to measure speed."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.command_options import PretrainConfig
from demiglace.data.text.blocks import USUAL_BLOCK
from demiglace.errors import ConfigError
from demiglace.models.files import (
    load_config,
    load_error,
    resolve_model,
)
from demiglace.models.labels import task_of_config
from demiglace.models.language_model import (
    language_class,
    language_config,
    new_language_config,
)
from demiglace.models.library import LOAD_ERRORS, silence_transformers
from demiglace.models.loading import auto_class, prepare_config, seeded
from demiglace.models.shape import ModelShape
from demiglace.tasks.base import RowTask


def classifier_config(
    model: str | Path, label_names: Sequence[str], dropout: float | None = None, task: RowTask | None = None
) -> PreTrainedConfig:
    """Return the config of a model with the head for these labels, without loading weights.

    label_names, task: as in `load_classifier`. Raises `ModelError` as it does for a model without a config or a head.
    """
    path = resolve_model(model)
    config = load_config(path)
    prepare_config(config, path, label_names, dropout, task)
    return config


def shape_of_config(config: PreTrainedConfig, *, language: bool = False) -> ModelShape:
    """Return the exact shape of a classifier, or a language model, of this config, without allocating weights."""
    return ModelShape.of(random_model(config, torch.device("meta"), language=language))


def random_model(
    config: PreTrainedConfig, device: torch.device, attention: str = "sdpa", *, language: bool = False
) -> PreTrainedModel:
    """Return a classifier, or a language model, of this config in fp32 and eval mode, with random weights.

    Raises `ModelError` if transformers cannot build it.
    """
    kind: Any = language_class(config) if language else auto_class(task_of_config(config))
    # None lets transformers choose: sdpa, or eager for architectures without it (DeBERTa)
    kernel = None if attention == "sdpa" else attention
    try:
        with seeded(0), silence_transformers(), device:
            model: PreTrainedModel = kind.from_config(
                copy.deepcopy(config), attn_implementation=kernel, dtype=torch.float32, trust_remote_code=False
            )
    except LOAD_ERRORS as error:
        raise load_error(str(config.name_or_path), error) from error
    return model.eval()


_SIZES = ("hidden_size", "num_layers", "num_heads", "intermediate_size")


def check_model_choice(config: PretrainConfig) -> None:
    """Raise `ConfigError` unless exactly one of --model and --architecture is given, with the options that it requires.

    --model continues the training of a model, --architecture creates a new one.
    """
    if bool(config.model) == bool(config.architecture):
        given = "both were given" if config.model else "neither was given"
        raise ConfigError(
            f"give either --model, to continue its training, or --architecture, to train a new model; {given}."
        )
    if config.revision:  # that of a model is part of its name by now
        raise ConfigError(f"--revision {config.revision} is of a --model on the hub, and --architecture was given.")
    sizes = [f"--{name.replace('_', '-')}" for name in _SIZES if getattr(config, name) is not None]
    if config.model and (sizes or config.tokenizer):
        more = ["--tokenizer"] if config.tokenizer else []
        raise ConfigError(f"{', '.join(sizes + more)}: only for a new model (--architecture); leave out for --model.")
    if config.architecture and not config.tokenizer and not Path(config.architecture).is_dir():
        raise ConfigError(
            f"--architecture {config.architecture} is a model type, which has no tokenizer; give --tokenizer "
            "DIRECTORY, such as one of `demiglace tokenizer train`."
        )


def model_config(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Return the config of the model to train. Raises `ConfigError` and `ModelError` as `new_language_config` does."""
    if config.model:
        return language_config(config.model, config.training.dropout)
    sizes = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
    }
    positions = config.text.block_size or USUAL_BLOCK
    return new_language_config(
        str(config.architecture), tokenizer, sizes, positions=positions, dropout=config.training.dropout
    )
