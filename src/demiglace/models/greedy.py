"""Greedy choice of the layers to drop: one after another, each time the layer without which the loss is least.

A try of a layer computes only the layers after it, from the hidden states that one pass of the current model kept.
Layers are tried batch by batch, and a layer that is clearly worse than the best one is not tried on the remaining
batches. Batches are as in `models.importance`; the rows of the first ones have to be a sample of all rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.models.importance import Inputs, distance, finite
from demiglace.models.layer_ablation import Form, bypassed_up_to, layer_forms, observe_layers, skip_layers
from demiglace.models.layer_stack import layer_stack
from demiglace.models.shape import CAUSAL_NAMES, ModelShape

FIRST_ROWS = 4  # before a layer is ruled out: fewer tell too little of the spread
ERROR = 1e-3  # probability that one look rules a layer out that is as good as the best one


@dataclass(frozen=True)
class Measure:
    """What a model without some of its layers loses."""

    name: str  # in the user's words
    read: Callable[[PreTrainedModel, Inputs], Tensor]  # a model's outputs for a batch, one for each item [M, …]
    loss: Callable[[Tensor, Tensor], Tensor]  # of each item [M], from the full model's outputs and the other one's
    rows: Callable[[Inputs], Tensor]  # the row of the batch that each item belongs to, int64 [M]


def measure_of(model: PreTrainedModel) -> Measure:
    """Return the loss of `greedy` that fits a model; labels are never needed.

    Causal language model: the mean loss of the next token. Classifier: KL of the full model's classes to the other
    one's; regressor: the squared difference. Masked language model and bare encoder or decoder: 1 − cos of the last
    hidden states, over all real tokens.
    """
    labels = ModelShape.of(model).num_labels
    if labels > 1:
        return Measure("KL of the classes", _logits, _kl, _each_row)
    if labels == 1:
        return Measure("squared difference", _logits, lambda full, cut: (full - cut).square().mean(-1), _each_row)
    if type(model).__name__.endswith(CAUSAL_NAMES):
        return Measure(
            "loss of the next token", _next_token_losses, lambda _, cut: cut, lambda b: _predicted(b).nonzero()[:, 0]
        )
    return Measure(
        "1 − cos of the last hidden states", _last_states, distance, lambda b: b["attention_mask"].nonzero()[:, 0]
    )


@dataclass(frozen=True)
class LayerRemoval:
    """A layer, by its 0-based number in the full model, and the model's loss once it and all earlier ones are gone."""

    layer: int
    loss: float


@torch.no_grad()
def greedy(
    model: PreTrainedModel,
    batches: Sequence[Inputs],
    count: int,
    measure: Measure,
    finished: Callable[[], None] = lambda: None,
    error: float = ERROR,
) -> tuple[float, list[LayerRemoval]]:
    """Return the full model's loss and `count` layers to drop, each the one without which the loss is then least.

    Of equals the first one goes. A layer is ruled out before the last batch where its loss on the rows so far is higher
    than the least one by more than chance explains (`contenders`); with an `error` of 0 no layer is ruled out. Memory:
    the hidden states of one batch before each layer, n · B · L · d numbers. `finished` is called count · len(batches)
    times. Raises `ModelError` where a loss is no number.
    """
    search = _Search(model, batches, measure, error)
    gone: list[LayerRemoval] = []
    for _ in range(count):
        gone.append(search.best([r.layer for r in gone], finished))
    return search.full_loss, gone


class _Search:
    def __init__(self, model: PreTrainedModel, batches: Sequence[Inputs], measure: Measure, error: float):
        self._model, self._batches, self._measure, self._error = model, batches, measure, error
        self._layers = layer_stack(model)
        self._forms: list[Form] = layer_forms(model, self._layers, batches[0])
        self._full = [measure.read(model, batch) for batch in batches]
        self._items = sum(len(measure.rows(batch)) for batch in batches)
        self._rows = sum(len(batch["input_ids"]) for batch in batches)
        found = torch.cat([measure.loss(outputs, outputs) for outputs in self._full]).double()
        self.full_loss = finite([found.mean().item()], measure.name)[0]  # 0 except for the loss of the next token

    def best(self, gone: Sequence[int], finished: Callable[[], None]) -> LayerRemoval:
        """Return the layer to drop next."""
        losses = {i: np.zeros(0) for i in range(len(self._layers)) if i not in gone}  # of each row seen so far
        for number in range(len(self._batches)):
            hidden = self._given(number, max(losses), gone)
            for i in losses:
                losses[i] = np.append(losses[i], self._losses(number, i, hidden[i], gone))
            losses = {i: losses[i] for i in contenders(losses, self._rows, self._error)}
            finished()
        means = {i: of_rows.sum() / self._items for i, of_rows in losses.items()}
        best = min(means, key=means.__getitem__)
        return LayerRemoval(best, float(means[best]))

    def _given(self, number: int, last: int, gone: Sequence[int]) -> list[Tensor]:
        """Return the input [B, L, d] of each layer up to `last` of the model without `gone`; later ones do not run."""
        found: list[Tensor] = []
        idle = {*gone, *range(last, len(self._layers))}
        with (
            skip_layers(self._layers, idle, self._forms),
            observe_layers(self._layers, lambda given, _: found.append(given)),
        ):
            self._model.base_model(**self._batches[number])
        return found[: last + 1]

    def _losses(self, number: int, layer: int, hidden: Tensor, gone: Sequence[int]) -> np.ndarray:
        """Return the sum of the losses of each row of a batch, float64 [B], without `gone` and `layer`."""
        batch = self._batches[number]
        with bypassed_up_to(self._layers, layer, hidden, gone, self._forms):
            loss = self._measure.loss(self._full[number], self._measure.read(self._model, batch)).double().cpu()
        finite([loss.sum().item()], self._measure.name)
        sums = torch.zeros(len(batch["input_ids"]), dtype=torch.float64)
        return sums.index_add_(0, self._measure.rows(batch).cpu(), loss).numpy()


def contenders(losses: Mapping[int, np.ndarray], rows: int, error: float = ERROR) -> list[int]:
    """Return the layers whose loss over all `rows` may be least, given the loss of each of the same first rows.

    The others fail a one-sided paired t-test against the best layer so far at the level `error`. Its standard error is
    that of a sample without replacement (Cochran 1977, Sampling Techniques, 2.6), and so 0 once all rows are seen.
    """
    best = min(losses, key=lambda i: losses[i].sum())
    seen = len(losses[best])
    if seen < FIRST_ROWS or error == 0:
        return list(losses)
    errors = stats.t.isf(error, seen - 1) * np.sqrt((1 - seen / rows) / seen)

    def possible(excess: np.ndarray) -> bool:
        return bool(excess.mean() <= errors * excess.std(ddof=1))

    return [i for i in losses if possible(losses[i] - losses[best])]


def _logits(model: PreTrainedModel, batch: Inputs) -> Tensor:
    logits: Tensor = model(**batch).logits
    return logits.float()


def _each_row(batch: Inputs) -> Tensor:
    return torch.arange(len(batch["input_ids"]))


def _kl(full: Tensor, cut: Tensor) -> Tensor:
    p, q = full.log_softmax(-1), cut.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _last_states(model: PreTrainedModel, batch: Inputs) -> Tensor:
    hidden: Tensor = model.base_model(**batch).last_hidden_state
    return hidden[batch["attention_mask"].bool()]


def _predicted(batch: Inputs) -> Tensor:
    """Return which tokens but the last are real and followed by a real one, bool [B, L − 1]."""
    real = batch["attention_mask"].bool()
    return real[:, :-1] & real[:, 1:]


def _next_token_losses(model: PreTrainedModel, batch: Inputs) -> Tensor:
    """Return −log p of every real token that follows a real one, [M]."""
    known, logits = _predicted(batch), model(**batch).logits[:, :-1]
    return F.cross_entropy(logits[known].float(), batch["input_ids"][:, 1:][known], reduction="none")
