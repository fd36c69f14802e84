"""Capture signals of a forward pass by hooks.

Hidden states are pooled as soon as a layer returns them, so that no [B, L, d] is kept unless every token is requested.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.data.batching import Batch
from demiglace.models.attention import AttentionInput, attention_hooks
from demiglace.models.language_model import head_input, head_of
from demiglace.models.layer_stack import layer_stack
from demiglace.models.pooling import HiddenStateKind, pool
from demiglace.signals.request import SignalRequest, Signals


def capture(model: PreTrainedModel, batch: Batch, request: SignalRequest) -> Signals:
    """Run the model on a batch and return the requested signals, with gradients where they are enabled.

    For a language model no logits are computed. If they are requested, the input of its head is returned instead.

    Raises `ModelError` if attention inputs are requested and `models.attention` cannot find them.
    """
    states: dict[tuple[HiddenStateKind, int], Tensor] = {}
    attention: dict[tuple[AttentionInput, int], Tensor] = {}
    mask = None if request.is_cacheable else batch.attention_mask
    with _hooks(model, request, batch.attention_mask, states, attention):
        if head_of(model) is not None:
            with head_input(model) as head_inputs:
                model(**batch.inputs)
            return Signals(None, states, attention, mask, head_inputs[0] if request.logits else None)
        logits = batch.unit_logits(model(**batch.inputs).logits)
    return Signals(logits.float() if request.logits else None, states, attention, mask)


@contextmanager
def _hooks(
    model: PreTrainedModel,
    request: SignalRequest,
    mask: Tensor,
    states: dict[tuple[HiddenStateKind, int], Tensor],
    attention: dict[tuple[AttentionInput, int], Tensor],
) -> Iterator[None]:
    handles: list[Any] = []
    try:
        handles += _state_hooks(model, request, mask, states)
        handles += _attention_hooks(model, request, attention)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _state_hooks(
    model: PreTrainedModel, request: SignalRequest, mask: Tensor, states: dict[tuple[HiddenStateKind, int], Tensor]
) -> list[Any]:
    layers = layer_stack(model) if request.hidden else nn.ModuleList()

    def store_layer(layer: int) -> Callable[[Tensor], None]:
        poolings = [p for p, i in sorted(request.hidden) if i == layer]

        def store(hidden: Tensor) -> None:
            for pooling in poolings:
                states[pooling, layer] = pool(hidden, mask, pooling)

        return store

    handles = [_on_output(layers[i - 1], store_layer(i)) for i in {i for _, i in request.hidden} if i > 0]
    if any(i == 0 for _, i in request.hidden):
        handles.append(_on_input(layers[0], store_layer(0)))
    return handles


def _attention_hooks(
    model: PreTrainedModel, request: SignalRequest, attention: dict[tuple[AttentionInput, int], Tensor]
) -> list[Any]:
    """Register hooks on the projections of queries, keys and values, so that any attention kernel can be used."""

    if not request.attention:
        return []
    hooks = attention_hooks(model, {layer for _, layer in request.attention})

    def store_key(key: tuple[AttentionInput, int]) -> Callable[[Tensor], None]:
        def store(output: Tensor) -> None:
            if key not in attention:  # the first call is for the text; DeBERTa's second one is for relative positions
                attention[key] = hooks[key].extract(output)

        return store

    return [_on_output(hooks[key].module, store_key(key)) for key in sorted(request.attention)]


def _on_output(layer: nn.Module, store: Callable[[Tensor], None]) -> Any:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        store(output[0] if isinstance(output, tuple) else output)

    return layer.register_forward_hook(hook)


def _on_input(layer: nn.Module, store: Callable[[Tensor], None]) -> Any:
    def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
        store(args[0] if args else kwargs["hidden_states"])

    return layer.register_forward_pre_hook(hook, with_kwargs=True)
