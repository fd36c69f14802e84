"""Models from a config alone: their exact shape without weights, or with random ones to time."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.commands import PretrainConfig
from demiglace.data.text.blocks import USUAL_BLOCK
from demiglace.errors import ConfigError
from demiglace.models.files import (
    LOAD_ERRORS,
    load_config,
    load_error,
    resolve_model,
)
from demiglace.models.language_model import (
    language_class,
    language_config,
    new_language_config,
)
from demiglace.models.loading import prepare_config, seeded, silence_transformers
from demiglace.models.shape import ModelShape


def classifier_config(model: str | Path, label_names: Sequence[str], dropout: float | None = None) -> PreTrainedConfig:
    """The config of a model made a classifier of these labels (none: a regressor); needs no weights.

    Raises `ModelError` as `load_classifier` does for a model without a config or a classifier.
    """
    path = resolve_model(model)
    config = load_config(path)
    prepare_config(config, path, label_names, dropout)
    return config


def shape_of_config(config: PreTrainedConfig, *, language: bool = False) -> ModelShape:
    """The exact shape of a classifier, or a language model, of this config; nothing is allocated."""
    return ModelShape.of(random_model(config, torch.device("meta"), language=language))


def random_model(
    config: PreTrainedConfig, device: torch.device, attention: str = "sdpa", *, language: bool = False
) -> PreTrainedModel:
    """A classifier, or a language model, of this config in fp32 and eval mode, with random weights."""
    kind: Any = language_class(config) if language else AutoModelForSequenceClassification
    # None is transformers' own choice: sdpa, or eager for architectures that lack it (DeBERTa)
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
    """Raise `ConfigError` unless a model is to be gone on with or to be made anew, with what either needs."""
    if bool(config.model) == bool(config.architecture):
        given = "both were given" if config.model else "neither was given"
        raise ConfigError(
            f"the model is either --model, to continue from, or --architecture, for new weights; {given}."
        )
    sizes = [f"--{name.replace('_', '-')}" for name in _SIZES if getattr(config, name) is not None]
    if config.model and (sizes or config.tokenizer):
        more = ["--tokenizer"] if config.tokenizer else []
        raise ConfigError(f"{', '.join(sizes + more)}: only for a new model (--architecture); --model has its own.")
    if config.architecture and not config.tokenizer and not Path(config.architecture).is_dir():
        raise ConfigError(
            f"--architecture {config.architecture} is a kind of model and brings no tokenizer; give --tokenizer "
            "DIRECTORY, such as one of `demiglace tokenizer train`."
        )


def model_config(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The config of the model in training. Raises `ConfigError` and `ModelError` where there can be none."""
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
