"""Block influence: how much each layer of a model changes the hidden states of a text.

Batches are the inputs of a model's forward pass: input_ids and attention_mask [B, L], and token_type_ids if the model
uses them.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence

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
    """Compute BI_i = 1 − E[cos(x_i, x_{i+1})] of each layer over all real tokens (ShortGPT, arXiv 2403.03853, eq. 1).

    x_i is the input of layer i and x_{i+1} its output, for the last layer before any final norm. BI is between 0 (no
    change) and 2. Raises `ModelError` if it is not finite.
    """
    layers = layer_stack(model)
    distances = [_distances(model, layers, batch) for batch in batches]
    return check_finite(torch.cat(distances, dim=1).double().mean(1).tolist(), "block influence")


def _distances(model: PreTrainedModel, layers: nn.ModuleList, batch: Inputs) -> Tensor:
    """Return 1 − cos(x_i, x_{i+1}) for each of n layers and the M real tokens of a batch, [n, M]."""
    real, distances = batch["attention_mask"].bool(), []
    length = real.shape[1]  # Longformer pads the end of a batch

    def measure(x: Tensor, y: Tensor) -> None:
        distances.append(cosine_distance(x[:, :length][real], y[:, :length][real]))

    with observe_layers(layers, measure):
        model.base_model(**batch)  # without the head
    return torch.stack(distances).cpu()


def least_influential(influence: Sequence[float], count: int, kinds: Sequence[Hashable] = ()) -> Keep:
    """Return the layers to keep, ascending, without the `count` of lowest influence; of equal ones keep the lower.

    kinds: of all layers; the last layer of a kind is kept while there are others to drop (`droppable`).
    """
    keep = list(range(len(influence)))
    for _ in range(count):
        keep.remove(min(droppable(keep, kinds), key=lambda i: (influence[i], -i)))
    return tuple(keep)


def droppable(keep: Sequence[int], kinds: Sequence[Hashable] = ()) -> list[int]:
    """Return the layers of `keep` that are not the last of their kind, or all if each one is."""
    counts = Counter(kinds[i] for i in keep) if kinds else Counter[Hashable]()
    return [i for i in keep if not kinds or counts[kinds[i]] > 1] or list(keep)


def cosine_distance(one: Tensor, other: Tensor) -> Tensor:
    """Return 1 − cos of vectors [M, d] in float32 [M], clamped to at least 0."""
    return (1 - F.cosine_similarity(one.float(), other.float(), dim=-1)).clamp_min(0)


def check_finite(numbers: list[float], name: str) -> list[float]:
    """Return the numbers. Raises `ModelError` unless all are finite; name: their name in the message."""
    if not all(map(math.isfinite, numbers)):
        raise ModelError(
            f"the model's {name} on the calibration text is not a finite number: weights are not finite, or the text "
            "has fewer than two tokens; check both."
        )
    return numbers
