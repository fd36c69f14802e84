"""Detect causal attention by the behaviour of a model, since module names do not show it."""

import json
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.layer_ablation import check_observed, observe_layers
from demiglace.models.layer_stack import layer_stack
from demiglace.models.library import silence_transformers
from demiglace.models.loading import seeded
from demiglace.models.modes import evaluating
from demiglace.models.truncate import truncate_config

_IDS = ((1, 2, 3, 4), (1, 2, 3, 5))  # two texts that differ in their last token
_SMALL = 8  # vocabulary size, and width of the feed-forward part, of a layer that is built from a config
_ROUNDING = 1e-5  # relative to the change of the last token; attention that is not causal changes more


class _StopForwardError(Exception):
    """Raised to stop a forward pass after the first layer."""


def is_causal(model: PreTrainedModel) -> bool:
    """Return whether tokens attend only to themselves and to earlier tokens.

    Unless attention is causal, replacing the last token of a text changes the first layer's states of earlier tokens.
    Only the first layer is run. For a model on the device "meta", a small layer with random weights is built from its
    config. Raises `ModelError` as `layer_stack` and `check_observed` do, and if no small layer can be built.
    """
    layer_stack(model)
    if model.device.type == "meta":
        config = truncate_config(model.config, (0,))
        config.vocab_size, config.pad_token_id = _SMALL, 0
        config.use_cache = False  # hybrids have no cache without an attention layer
        if "intermediate_size" in config.to_dict():
            config.intermediate_size = _SMALL  # the feed-forward part has most weights of a layer
        kind: Any = type(config)  # mypy considers it unhashable
        return _config_is_causal(kind, config.to_json_string(use_diff=False))
    return _is_causal(model)


@lru_cache  # because a comparison plans many runs of one architecture
def _config_is_causal(kind: type[PreTrainedConfig], content: str) -> bool:
    config = kind.from_dict(json.loads(content))
    try:
        with seeded(0), silence_transformers():
            model = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:  # of any kind: code of the architecture, with sizes that nobody uses
        raise ModelError(f"no small {config.model_type} model can be built ({error})") from error
    return _is_causal(model)


def _is_causal(model: PreTrainedModel) -> bool:
    outputs: list[Tensor] = []

    def capture(_input: Tensor, output: Tensor) -> None:
        outputs.append(output.float())
        raise _StopForwardError

    ids = torch.tensor(_IDS, device=model.device) % model.config.vocab_size
    with (
        torch.no_grad(),
        evaluating(model),
        observe_layers(layer_stack(model)[:1], capture),
        suppress(_StopForwardError),
    ):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    check_observed(bool(outputs))
    change = (outputs[0][0] - outputs[0][1]).abs().amax(-1)  # [L]
    return bool(change[:-1].max() <= _ROUNDING * change[-1])
