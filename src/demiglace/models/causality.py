"""Whether a model's attention is causal: found by its behaviour, since architectures share names of modules."""

import json
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from demiglace.models.layer_ablation import observe_layers
from demiglace.models.layer_stack import layer_stack
from demiglace.models.loading import seeded, silence_transformers
from demiglace.models.modes import evaluating
from demiglace.models.truncate import truncate_config

_IDS = ((1, 2, 3, 4), (1, 2, 3, 5))  # two texts that differ in their last token
_SMALL = 8  # vocabulary and width of the feed-forward part of a layer made from a config
_ROUNDING = 1e-5  # of the last token's change; attention that is not causal passes on more


class _SeenError(Exception):
    """Ends a forward pass after the first layer."""


def is_causal(model: PreTrainedModel) -> bool:
    """Return whether tokens attend only to themselves and to earlier tokens.

    Replacing a text's last token changes the first layer's states of the earlier tokens unless attention is causal.
    Only the first layer is run. For a model on the device "meta" a small layer with random weights is made from its
    config. Raises `ModelError` where `layer_stack` does.
    """
    layer_stack(model)
    if model.device.type == "meta":
        one = truncate_config(model.config, (0,))
        one.vocab_size, one.pad_token_id = _SMALL, 0
        if "intermediate_size" in one.to_dict():
            one.intermediate_size = _SMALL  # most weights of a wide layer
        kind: Any = type(one)  # mypy takes it for unhashable
        return _config_is_causal(kind, one.to_json_string(use_diff=False))
    return _shows_causality(model)


@lru_cache  # of a config's class and JSON: a comparison plans many runs of one architecture
def _config_is_causal(kind: type[PreTrainedConfig], content: str) -> bool:
    with seeded(0), silence_transformers():
        config = kind.from_dict(json.loads(content))
        return _shows_causality(AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False))


def _shows_causality(model: PreTrainedModel) -> bool:
    outputs: list[Tensor] = []

    def see(_given: Tensor, returned: Tensor) -> None:
        outputs.append(returned.float())
        raise _SeenError

    ids = torch.tensor(_IDS, device=model.device) % model.config.vocab_size
    with torch.no_grad(), evaluating(model), observe_layers(layer_stack(model)[:1], see), suppress(_SeenError):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    change = (outputs[0][0] - outputs[0][1]).abs().amax(-1)  # of each token
    return bool(change[:-1].max() <= _ROUNDING * change[-1])
