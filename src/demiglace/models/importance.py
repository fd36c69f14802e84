"""How much each layer of a model changes its hidden states, measured on text (block influence).

Batches are what a model's forward takes: input_ids and attention_mask [B, L], token_type_ids where it has segments.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.layer_ablation import observe_layers
from demiglace.models.layer_stack import layer_stack
from demiglace.models.truncate import Keep

Inputs = Mapping[str, Tensor]


@torch.no_grad()
def block_influence(model: PreTrainedModel, batches: Iterable[Inputs]) -> list[float]:
    """BI_i = 1 − E[cos(x_i, x_{i+1})] of every layer, over all real tokens (ShortGPT, arXiv 2403.03853, eq. 1).

    x_i is what layer i is given and x_{i+1} what it returns, that of the last layer taken before any final norm. BI is
    from 0 (the layer changes nothing) to 2. Raises `ModelError` where it is no number.
    """
    layers = layer_stack(model)
    found = [_influence_on(model, layers, batch) for batch in batches]
    return finite(torch.cat(found, dim=1).double().mean(1).tolist(), "block influence")


def _influence_on(model: PreTrainedModel, layers: nn.ModuleList, batch: Inputs) -> Tensor:
    """1 − cos(x_i, x_{i+1}) of each of n layers and each of a batch's M real tokens, [n, M]."""
    real, found = batch["attention_mask"].bool(), []
    with observe_layers(layers, lambda x, y: found.append(distance(x[real], y[real]))):
        model.base_model(**batch)  # no logits
    return torch.stack(found).cpu()


def least_influential(influence: Sequence[float], count: int) -> Keep:
    """The layers that stay when the `count` of lowest influence are dropped, ascending; of equals the lower stays."""
    dropped = sorted(range(len(influence)), key=lambda i: (influence[i], -i))[:count]
    return tuple(i for i in range(len(influence)) if i not in dropped)


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Return 1 − cos of vectors [M, d] as [M], in float32; rounding never makes it negative."""
    return (1 - F.cosine_similarity(one.float(), other.float(), dim=-1)).clamp_min(0)


def finite(numbers: list[float], name: str) -> list[float]:
    """Return the numbers. Raises `ModelError` unless all are finite; name: what they measure."""
    if not all(map(math.isfinite, numbers)):
        raise ModelError(
            f"the model's {name} on the calibration text is no finite number: weights of it are none, or the text is "
            "shorter than two tokens."
        )
    return numbers
