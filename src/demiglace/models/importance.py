"""How much each layer of a model matters, measured on text: which layers to drop from a truncated model.

Batches are what a model's forward takes: input_ids and attention_mask [B, L], token_type_ids where it has segments.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.bypass import bypassed, layer_forms, watched
from demiglace.models.shape import ModelShape
from demiglace.models.stack import layer_stack
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
    return _finite(torch.cat(found, dim=1).double().mean(1).tolist(), "block influence")


def _influence_on(model: PreTrainedModel, layers: nn.ModuleList, batch: Inputs) -> Tensor:
    """1 − cos(x_i, x_{i+1}) of each of n layers and each of a batch's M real tokens, [n, M]."""
    real, found = batch["attention_mask"].bool(), []
    with watched(layers, lambda x, y: found.append(_distance(x[real], y[real]))):
        model(**batch)
    return torch.stack(found).cpu()


def least_influential(influence: Sequence[float], count: int) -> Keep:
    """The layers that stay when the `count` of lowest influence are dropped, ascending; of equals the lower stays."""
    dropped = sorted(range(len(influence)), key=lambda i: (influence[i], -i))[:count]
    return tuple(i for i in range(len(influence)) if i not in dropped)


@dataclass(frozen=True)
class Measure:
    """What a cut model loses. name: in a user's words; read: the items [M, …] that a model says of a batch;

    loss: of each item [M], from the whole model's items and the cut one's.
    """

    name: str
    read: Callable[[PreTrainedModel, Inputs], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]


def measure_of(model: PreTrainedModel) -> Measure:
    """The loss of `greedy` that fits a model; labels are never needed.

    Causal language model: the mean loss of the next token. Classifier: KL of the whole model's classes to the cut
    one's; regressor: the squared difference. Masked language model and bare encoder or decoder: 1 − cos of the last
    hidden states, over all real tokens.
    """
    labels = ModelShape.of(model).num_labels
    if labels > 1:
        return Measure("KL of the classes", _logits, _kl)
    if labels == 1:
        return Measure("squared difference", _logits, lambda whole, cut: (whole - cut).square().mean(-1))
    if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        return Measure("loss of the next token", _next_token_losses, lambda _, cut: cut)
    return Measure("1 − cos of the last hidden states", _last_states, _distance)


@dataclass(frozen=True)
class Removal:
    """A layer, by its 0-based number in the whole model, and the model's loss once it and all before it are gone."""

    layer: int
    loss: float


@torch.no_grad()
def greedy(
    model: PreTrainedModel,
    batches: Sequence[Inputs],
    count: int,
    measure: Measure,
    tried: Callable[[], None] = lambda: None,
) -> list[Removal]:
    """Drop `count` layers, each time the one without which the loss over all batches is least; of equals the first.

    n·count − count·(count − 1)/2 passes over the batches; `tried` is called after each. Raises `ModelError` where a
    loss is no number.
    """
    layers = layer_stack(model)
    whole = [measure.read(model, batch) for batch in batches]
    forms = layer_forms(model, layers, batches[0])
    gone: list[Removal] = []
    for _ in range(count):
        left = [i for i in range(len(layers)) if i not in {r.layer for r in gone}]
        found = []
        for i in left:
            with bypassed(layers, (i, *(r.layer for r in gone)), forms):
                found.append(Removal(i, _mean_loss(model, batches, measure, whole)))
            tried()
        gone.append(min(found, key=lambda r: r.loss))
    return gone


@torch.no_grad()
def whole_loss(model: PreTrainedModel, batches: Sequence[Inputs], measure: Measure) -> float:
    """The loss of a model with all of its layers: 0 but for the loss of the next token."""
    return _mean_loss(model, batches, measure, [measure.read(model, batch) for batch in batches])


def _mean_loss(model: PreTrainedModel, batches: Sequence[Inputs], measure: Measure, whole: Sequence[Tensor]) -> float:
    losses = [measure.loss(w, measure.read(model, b)).cpu() for w, b in zip(whole, batches, strict=True)]
    return _finite([torch.cat(losses).double().mean().item()], measure.name)[0]


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """1 − cos of vectors [M, d], in float32; rounding never makes it negative."""
    return (1 - F.cosine_similarity(one.float(), other.float(), dim=-1)).clamp_min(0)


def _logits(model: PreTrainedModel, batch: Inputs) -> Tensor:
    logits: Tensor = model(**batch).logits
    return logits.float()


def _kl(whole: Tensor, cut: Tensor) -> Tensor:
    p, q = whole.log_softmax(-1), cut.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _last_states(model: PreTrainedModel, batch: Inputs) -> Tensor:
    hidden: Tensor = model.base_model(**batch).last_hidden_state
    return hidden[batch["attention_mask"].bool()]


def _next_token_losses(model: PreTrainedModel, batch: Inputs) -> Tensor:
    """−log p of every real token that follows a real one."""
    logits, real = model(**batch).logits[:, :-1], batch["attention_mask"].bool()
    known = real[:, :-1] & real[:, 1:]
    return F.cross_entropy(logits[known].float(), batch["input_ids"][:, 1:][known], reduction="none")


def _finite(numbers: list[float], name: str) -> list[float]:
    if not all(map(math.isfinite, numbers)):
        raise ModelError(
            f"the model's {name} on the calibration text is no finite number: weights of it are none, or the text is "
            "shorter than two tokens."
        )
    return numbers
