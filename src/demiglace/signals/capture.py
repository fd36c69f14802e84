"""Reading signals off a forward pass by hooks: hidden states are pooled as they appear, so that no [B, L, d] outlives
its layer unless every token is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.data.batching import Batch
from demiglace.models.attention import AttentionInput, attention_taps
from demiglace.models.language_model import head_input, head_of
from demiglace.models.layer_stack import layer_stack
from demiglace.models.pooling import HiddenStateKind, pool
from demiglace.signals.request import SignalRequest, Signals


def capture(model: PreTrainedModel, batch: Batch, request: SignalRequest) -> Signals:
    """Run the model on a batch and return the requested signals, with gradients where they are enabled.

    A language model makes no logits: where they are requested, what its head would make them from is kept.

    Raises `ModelError` where attention inputs are asked for and `models.attention` cannot find them.
    """
    states: dict[tuple[HiddenStateKind, int], Tensor] = {}
    attention: dict[tuple[AttentionInput, int], Tensor] = {}
    mask = None if request.cacheable else batch.attention_mask
    with _hooks(model, request, batch.attention_mask, states, attention):
        if head_of(model) is not None:
            with head_input(model) as found:
                model(**batch.inputs)
            return Signals(None, states, attention, mask, found[0] if request.logits else None)
        logits = model(**batch.inputs).logits
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

    def keep(layer: int) -> Callable[[Tensor], None]:
        poolings = [p for p, i in sorted(request.hidden) if i == layer]

        def store(hidden: Tensor) -> None:
            for pooling in poolings:
                states[pooling, layer] = pool(hidden, mask, pooling)

        return store

    handles = [_on_output(layers[i - 1], keep(i)) for i in {i for _, i in request.hidden} if i > 0]
    if any(i == 0 for _, i in request.hidden):
        handles.append(_on_input(layers[0], keep(0)))
    return handles


def _attention_hooks(
    model: PreTrainedModel, request: SignalRequest, attention: dict[tuple[AttentionInput, int], Tensor]
) -> list[Any]:
    """Hooks on the linear maps of queries, keys and values: no attention map is asked of the model."""

    if not request.attention:
        return []
    taps = attention_taps(model, {layer for _, layer in request.attention})

    def keep(key: tuple[AttentionInput, int]) -> Callable[[Tensor], None]:
        def store(output: Tensor) -> None:
            if key not in attention:  # first comes the text; DeBERTa then maps its relative positions likewise
                attention[key] = taps[key].cut(output)

        return store

    return [_on_output(taps[key].module, keep(key)) for key in sorted(request.attention)]


def _on_output(layer: nn.Module, store: Callable[[Tensor], None]) -> Any:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        store(output[0] if isinstance(output, tuple) else output)

    return layer.register_forward_hook(hook)


def _on_input(layer: nn.Module, store: Callable[[Tensor], None]) -> Any:
    def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
        store(args[0] if args else kwargs["hidden_states"])

    return layer.register_forward_pre_hook(hook, with_kwargs=True)
