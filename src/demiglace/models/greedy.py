"""Greedy selection of the layers to drop: one at a time, always the layer whose removal gives the lowest loss.

To try a layer, only the layers after it are computed, from hidden states cached in one pass of the current model.
Layers are tried batch by batch; a layer that is clearly worse than the best one is not tried on the remaining batches.
Batches are as in `models.importance`. The rows of the first batches must be a random sample of all rows.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.models.importance import Inputs, check_finite, cosine_distance, droppable
from demiglace.models.labels import task_of_config
from demiglace.models.layer_ablation import OutputFormat, observe_layers, output_formats, run_from_layer, skip_layers
from demiglace.models.layer_stack import layer_stack
from demiglace.models.shape import CAUSAL_NAMES, ModelShape

FIRST_ROWS = 4  # rows before a layer may be ruled out: fewer give a poor estimate of the variance
ERROR = 1e-3  # probability that one test rules out a layer that is as good as the best one


@dataclass(frozen=True)
class AblationLoss:
    """The loss of a model without some of its layers, on M items of a batch: rows or tokens."""

    name: str  # as shown to the user
    outputs: Callable[[PreTrainedModel, Inputs], Tensor]  # returns a model's outputs for a batch [M, …]
    loss: Callable[[Tensor, Tensor], Tensor]  # of the outputs of the full and the truncated model, [M]
    rows: Callable[[Inputs], Tensor]  # returns the row of the batch of each item, int64 [M]


def ablation_loss(model: PreTrainedModel) -> AblationLoss:
    """Return the loss that `greedy` uses for a model; it needs no labels.

    Causal language model: mean loss of the next token. Classifier: KL(full model ‖ truncated model) of the classes, of
    each token if the model classifies tokens, or the mean over labels of that of each label. Regressor: squared
    difference. Masked language model, and encoder or decoder without a head: 1 − cos of the last hidden states over all
    real tokens.
    """
    labels = ModelShape.of(model).num_labels
    if type(model).__name__.endswith("ForTokenClassification"):
        return AblationLoss(
            "KL of the tags",
            lambda model, batch: _logits(model, batch)[batch["attention_mask"].bool()],
            _kl,
            lambda b: b["attention_mask"].nonzero()[:, 0],
        )
    if labels > 1:
        task = task_of_config(model.config)
        if task.has_label_sets:
            return AblationLoss(
                "KL of the labels",
                _logits,
                lambda full, truncated: task.divergence(
                    truncated, full, lambda student, teacher: _kl(teacher, student)
                ),
                _each_row,
            )
        return AblationLoss("KL of the classes", _logits, _kl, _each_row)
    if labels == 1:
        return AblationLoss(
            "squared difference", _logits, lambda full, truncated: (full - truncated).square().mean(-1), _each_row
        )
    if type(model).__name__.endswith(CAUSAL_NAMES):
        return AblationLoss(
            "loss of the next token",
            _next_token_losses,
            lambda _, truncated: truncated,
            lambda b: _predicted(b).nonzero()[:, 0],
        )
    return AblationLoss(
        "1 − cos of the last hidden states",
        _last_states,
        cosine_distance,
        lambda b: b["attention_mask"].nonzero()[:, 0],
    )


@dataclass(frozen=True)
class LayerRemoval:
    """The removal of one layer."""

    layer: int  # 0-based, in the full model
    loss: float  # of the model without this layer and those removed before


@torch.no_grad()
def greedy(
    model: PreTrainedModel,
    batches: Sequence[Inputs],
    count: int,
    ablation: AblationLoss,
    finished: Callable[[], None] = lambda: None,
    error: float = ERROR,
    kinds: Sequence[Hashable] = (),
) -> tuple[float, list[LayerRemoval]]:
    """Return the full model's loss and the `count` layers to drop, in the order of their removal.

    Each is the layer whose removal then gives the lowest loss; of equal ones, the first. A layer is ruled out before
    the last batch if its loss on the rows so far is significantly higher than the lowest one (`contenders`); an `error`
    of 0 rules out none. kinds: of all layers; the last layer of a kind is kept, as in `droppable`. Memory: the inputs
    of all layers for one batch, n · B · L · d numbers. `finished` is called count · len(batches) times. Raises
    `ModelError` if a loss is not finite.
    """
    search = _Search(model, batches, ablation, error, kinds)
    removed: list[LayerRemoval] = []
    for _ in range(count):
        removed.append(search.best([r.layer for r in removed], finished))
    return search.full_loss, removed


class _Search:
    def __init__(
        self,
        model: PreTrainedModel,
        batches: Sequence[Inputs],
        ablation: AblationLoss,
        error: float,
        kinds: Sequence[Hashable],
    ):
        self._model, self._batches, self._ablation, self._error = model, batches, ablation, error
        self._kinds = kinds
        self._layers = layer_stack(model)
        self._forms: list[OutputFormat] = output_formats(model, self._layers, batches[0])
        self._full = [ablation.outputs(model, batch) for batch in batches]
        self._items = sum(len(ablation.rows(batch)) for batch in batches)
        self._rows = sum(len(batch["input_ids"]) for batch in batches)
        losses = torch.cat([ablation.loss(outputs, outputs) for outputs in self._full]).double()
        self.full_loss = check_finite([losses.mean().item()], ablation.name)[0]  # 0 but for the next token's loss

    def best(self, removed: Sequence[int], finished: Callable[[], None]) -> LayerRemoval:
        """Return the next layer to drop, and the loss without it."""
        kept = [i for i in range(len(self._layers)) if i not in removed]
        losses = {i: np.zeros(0) for i in droppable(kept, self._kinds)}  # of each row seen so far
        for number in range(len(self._batches)):
            hidden = self._layer_inputs(number, max(losses), removed)
            for i in losses:
                losses[i] = np.append(losses[i], self._losses(number, i, hidden[i], removed))
            losses = {i: losses[i] for i in contenders(losses, self._rows, self._error)}
            finished()
        means = {i: of_rows.sum() / self._items for i, of_rows in losses.items()}
        best = min(means, key=means.__getitem__)
        return LayerRemoval(best, float(means[best]))

    def _layer_inputs(self, number: int, last: int, removed: Sequence[int]) -> list[Tensor]:
        """Return the input [B, L, d] of each layer up to `last` without the layers `removed`; skip later ones."""
        inputs: list[Tensor] = []
        skipped = {*removed, *range(last, len(self._layers))}
        with (
            skip_layers(self._layers, skipped, self._forms),
            observe_layers(self._layers, lambda layer_input, _: inputs.append(layer_input)),
        ):
            self._model.base_model(**self._batches[number])
        return inputs[: last + 1]

    def _losses(self, number: int, layer: int, hidden: Tensor, removed: Sequence[int]) -> np.ndarray:
        """Return the sum of the losses of each row of a batch without `removed` and `layer`, float64 [B]."""
        batch = self._batches[number]
        with run_from_layer(self._layers, layer, hidden, removed, self._forms):
            loss = self._ablation.loss(self._full[number], self._ablation.outputs(self._model, batch)).double().cpu()
        check_finite([loss.sum().item()], self._ablation.name)
        sums = torch.zeros(len(batch["input_ids"]), dtype=torch.float64)
        return sums.index_add_(0, self._ablation.rows(batch).cpu(), loss).numpy()


def contenders(losses: Mapping[int, np.ndarray], rows: int, error: float = ERROR) -> list[int]:
    """Return the layers whose loss over all `rows` may be the lowest, given the losses of the same first rows for each.

    The others are significantly worse than the best layer so far in a one-sided paired t-test at the level `error`. The
    standard error is that of a sample without replacement (Cochran 1977, Sampling Techniques, 2.6), so it is 0 once all
    rows are used.
    """
    best = min(losses, key=lambda i: losses[i].sum())
    seen = len(losses[best])
    if seen < FIRST_ROWS or error == 0:
        return list(losses)
    errors = stats.t.isf(error, seen - 1) * np.sqrt((1 - seen / rows) / seen)

    def may_be_best(excess: np.ndarray) -> bool:
        return bool(excess.mean() <= errors * excess.std(ddof=1))

    return [i for i in losses if may_be_best(losses[i] - losses[best])]


def _logits(model: PreTrainedModel, batch: Inputs) -> Tensor:
    logits: Tensor = model(**batch).logits
    return logits.float()


def _each_row(batch: Inputs) -> Tensor:
    return torch.arange(len(batch["input_ids"]))


def _kl(full: Tensor, truncated: Tensor) -> Tensor:
    p, q = full.log_softmax(-1), truncated.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _last_states(model: PreTrainedModel, batch: Inputs) -> Tensor:
    hidden: Tensor = model.base_model(**batch).last_hidden_state
    return hidden[batch["attention_mask"].bool()]


def _predicted(batch: Inputs) -> Tensor:
    """Return which tokens are real and followed by a real token, bool [B, L − 1]."""
    real = batch["attention_mask"].bool()
    return real[:, :-1] & real[:, 1:]


def _next_token_losses(model: PreTrainedModel, batch: Inputs) -> Tensor:
    """Return −log p of each real token that follows a real token, [M]."""
    known, logits = _predicted(batch), model(**batch).logits[:, :-1]
    return F.cross_entropy(logits[known].float(), batch["input_ids"][:, 1:][known], reduction="none")
