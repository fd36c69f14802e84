"""Models from a config alone: their exact shape without weights, or with random ones to time."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from demiglace.models.files import LOAD_ERRORS, load_config, load_error, resolve_model
from demiglace.models.language_model import language_class
from demiglace.models.loading import prepare_config, quiet, seeded
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
        with seeded(0), quiet(), device:
            model: PreTrainedModel = kind.from_config(
                copy.deepcopy(config), attn_implementation=kernel, dtype=torch.float32, trust_remote_code=False
            )
    except LOAD_ERRORS as error:
        raise load_error(str(config.name_or_path), error) from error
    return model.eval()
