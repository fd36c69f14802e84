"""Importance of a model's feed-forward units, heads and hidden channels, by activations and gradients on text.

A unit's activations are multiplied by a mask m of 1. Removing the unit changes the log-likelihood of a row's label by
about Σ_tokens a · ∂log p / ∂a = ∂log p / ∂m. The mean of its square over rows, with labels drawn from the model's
predictions, is the diagonal of the Fisher information of the masks: half of it is the second-order estimate of
KL(model ‖ pruned model). It needs no labels. Cf. Molchanov et al. 2019 (arXiv 1906.10771, eq. 8); Minitron (arXiv
2407.14679) compares such scores with those of activations alone.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.console import progress
from demiglace.data.batching import collate, forward_tokens, sorted_batches
from demiglace.data.tokenize import TokenizedSplit
from demiglace.errors import ModelError
from demiglace.models.importance import Inputs
from demiglace.models.labels import task_of_config
from demiglace.models.layer_stack import layer_stack
from demiglace.models.modes import evaluating
from demiglace.models.prune_width import Slot, magnitudes, norms, reading_modules, width_slots
from demiglace.models.sentence_encoder import SentenceEncoder
from demiglace.models.shape import CAUSAL_NAMES, ModelShape
from demiglace.models.width import HIDDEN
from demiglace.runs.processes import processes


def importance_on_rows(model: PreTrainedModel, rows: TokenizedSplit, sizes: Collection[str]) -> dict[str, Tensor]:
    """Return `measure_importance` on rows of text, in float32 on this process's device; the model stays as it is."""
    device, original_device = processes().device, model.device
    scored: Any = model if model.dtype == torch.float32 else copy.deepcopy(model).float()
    scored.to(device)
    parts = sorted_batches(rows.lengths, forward_tokens(device) // 2)  # a backward pass keeps all activations
    with progress("measure units", len(parts), "batches") as bar:
        batches = (collate(rows, part, device).inputs for part in parts)
        scores = measure_importance(scored, batches, sizes, lambda: bar.advance(1))
    scored.to(original_device)
    return scores


def measure_importance(
    model: PreTrainedModel,
    batches: Iterator[Inputs] | Sequence[Inputs],
    sizes: Collection[str],
    finished: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Return the importance of the units of these sizes: float64 [layers, units], of hidden channels [1, channels].

    Args:
        model: of which only evaluation mode is used; no weight gets a gradient.
        batches: inputs of the model.
        sizes: of `models.width.SIZES`; with heads that follow the hidden size, `hidden_size` brings those of heads.
        finished: called after each batch.

    Raises:
        ModelError: the importance is not finite.
    """
    slots, generator = width_slots(model, sizes), torch.Generator().manual_seed(0)
    shapes = {s.size: (1 if s.size == HIDDEN else len(layer_stack(model)), int(s.units.max()) + 1) for s in slots}
    totals = {size: torch.zeros(shape, dtype=torch.float64) for size, shape in shapes.items()}
    log_likelihood = _log_likelihood(model)
    unread: set[str] = set()
    with evaluating(model), _frozen(model):
        for batch in batches:
            count = len(batch["input_ids"])
            masks = {
                size: torch.ones(count, *shape, device=model.device, requires_grad=True)
                for size, shape in shapes.items()
            }
            with _masks_applied(model, slots, masks):
                total = log_likelihood(batch, generator)
            gradients = torch.autograd.grad(total, list(masks.values()), allow_unused=True)
            for size, gradient in zip(masks, gradients, strict=True):
                if gradient is None:
                    unread.add(size)
                else:
                    totals[size] += gradient.double().square().sum(0).cpu()
            finished()
    if not all(total.isfinite().all() for total in totals.values()):
        raise ModelError(
            "the importance of the model's units is not a finite number: weights are not finite, or a row has fewer "
            "than two tokens; check both."
        )
    return totals | ({k: v for k, v in magnitudes(model, sizes).items() if k in unread} if unread else {})


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter get a gradient inside, which saves a third of the computation."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _masks_applied(model: PreTrainedModel, slots: Sequence[Slot], masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiply units by masks inside: [B, layers, units] where the next map reads them, [B, 1, d] after each norm."""
    with ExitStack() as hooks:
        for module, slot in reading_modules(model, slots):
            mask = masks[slot.size][:, slot.layer or 0][:, slot.units.to(model.device)]
            hook = module.register_forward_pre_hook(lambda _, args, m=mask: (_multiplied(args[0], m), *args[1:]))
            hooks.callback(hook.remove)
        for _, module in norms(model, slots):
            mask = masks[HIDDEN][:, 0]
            hooks.callback(module.register_forward_hook(lambda _, args, out, m=mask: _multiplied(out, m)).remove)
        yield


def _multiplied(states: Tensor, mask: Tensor) -> Tensor:
    """Return states [B, …, d] or [B·L, d] with each row multiplied by its mask [B, d]; others, of no row, unchanged."""
    if len(states) % len(mask):
        return states
    return (states.reshape(len(mask), -1, states.shape[-1]) * mask.unsqueeze(1)).reshape(states.shape)


def _log_likelihood(model: PreTrainedModel) -> Callable[[Inputs, torch.Generator], Tensor]:
    """Return a function of a batch: the summed log-likelihood of labels, up to a constant.

    Labels are the next tokens for a causal language model. Otherwise they are drawn from the model's predictions:
    classes, labels of several, tokens, or numbers with a standard deviation of 1 (regression, embeddings, and the last
    hidden states of a model without a head).
    """
    labels, name = ModelShape.of(model).num_labels, type(model).__name__
    causal = name.endswith(CAUSAL_NAMES)
    numbers = (
        labels == 1 or isinstance(model, SentenceEncoder) or not (labels or causal or name.endswith("ForMaskedLM"))
    )
    by_token = labels == 0 or name.endswith("ForTokenClassification")
    several = labels > 1 and not numbers and task_of_config(model.config).has_label_sets

    def compute(batch: Inputs, generator: torch.Generator) -> Tensor:
        outputs = model(**batch)[0].float()
        if causal:
            real = batch["attention_mask"].bool()
            known = real[:, :-1] & real[:, 1:]
            return -nn.functional.cross_entropy(
                outputs[:, :-1][known], batch["input_ids"][:, 1:][known], reduction="sum"
            )
        if by_token:
            outputs = outputs[batch["attention_mask"].bool()]
        if numbers:
            return (outputs * torch.randn(outputs.shape, generator=generator).to(outputs)).sum()
        drawn = torch.rand(outputs.shape, generator=generator).to(outputs)
        if several:
            return nn.functional.logsigmoid(torch.where(drawn < outputs.sigmoid(), outputs, -outputs)).sum()
        # the largest logit plus Gumbel noise is a class drawn from the softmax
        label = (outputs.detach() - (-drawn.clamp_min(1e-20).log()).log()).argmax(-1, keepdim=True)
        return outputs.log_softmax(-1).gather(-1, label).sum()

    return compute
