"""Capture signals of a forward pass by hooks.

Hidden states are pooled as soon as a layer returns them, so that no [B, L, d] is kept unless every token is requested.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.data.batching import Batch
from demiglace.errors import ModelError
from demiglace.models.attention import AttentionInput, attention_hooks
from demiglace.models.language_model import head_input, head_of
from demiglace.models.layer_ablation import check_observed, hidden_states_of
from demiglace.models.layer_stack import layer_stack
from demiglace.models.pooling import HiddenStateKind, pool
from demiglace.signals.request import SignalRequest, Signals


def capture(model: PreTrainedModel, batch: Batch, request: SignalRequest) -> Signals:
    """Run the model on a batch and return the requested signals, with gradients where they are enabled.

    For a language model no logits are computed. If they are requested, the input of its head is returned instead.

    Raises `ModelError` if attention inputs are requested and `models.attention` cannot find them, and if hidden states
    are requested that hooks do not observe.
    """
    states: dict[tuple[HiddenStateKind, int], Tensor] = {}
    attention = _AttentionInputs(model, request)
    mask = None if request.is_cacheable else batch.attention_mask
    with _hooks(model, request, batch.attention_mask, states, attention):
        if head_of(model) is not None:
            with head_input(model) as head_inputs:
                model(**batch.inputs)
            check_observed(states.keys() == request.hidden)
            return Signals(None, states, attention.values(), mask, head_inputs[0] if request.logits else None)
        logits = batch.unit_logits(model(**batch.inputs).logits)
        check_observed(states.keys() == request.hidden)
    return Signals(logits.float() if request.logits else None, states, attention.values(), mask)


@contextmanager
def _hooks(
    model: PreTrainedModel,
    request: SignalRequest,
    mask: Tensor,
    states: dict[tuple[HiddenStateKind, int], Tensor],
    attention: "_AttentionInputs",
) -> Iterator[None]:
    handles: list[Any] = []
    try:
        handles += _state_hooks(model, request, mask, states)
        handles += attention.register()
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
                states[pooling, layer] = pool(_states_of_tokens(hidden, mask), mask, pooling)

        return store

    handles = [_on_output(layers[i - 1], store_layer(i)) for i in {i for _, i in request.hidden} if i > 0]
    if any(i == 0 for _, i in request.hidden):
        handles.append(_on_input(layers[0], store_layer(0)))
    return handles


def _states_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return a layer's states of the tokens of a batch, [B, L, d], without the padding that Longformer appends.

    Raises `ModelError` for layers with another order of dimensions, such as XLNet's [L, B, d].
    """
    if hidden.dim() != 3 or len(hidden) != len(mask) or hidden.shape[1] < mask.shape[1]:
        raise ModelError(
            f"the model's layers return states of shape {list(hidden.shape)} for a batch of {list(mask.shape)} tokens; "
            "expected were [batch, tokens, width]. Take a method that uses the logits only, such as vanilla-kd."
        )
    return hidden[:, : mask.shape[1]]


class _AttentionInputs:
    """Queries, keys and values, captured at their projections, so that any attention kernel can be used.

    The projections' outputs are kept, and taken apart after the pass: what a hook computes inside of a layer would be
    missing when gradient checkpointing computes the layer again.
    """

    def __init__(self, model: PreTrainedModel, request: SignalRequest):
        found = attention_hooks(model, {layer for _, layer in request.attention}) if request.attention else {}
        self._hooks = {key: found[key] for key in sorted(request.attention)}
        self._outputs: dict[tuple[AttentionInput, int], Tensor] = {}

    def register(self) -> list[Any]:
        """Register the hooks; return their handles."""
        # the first call of a projection is for the text; DeBERTa's second one is for relative positions
        return [_on_output(hook.module, partial(self._outputs.setdefault, key)) for key, hook in self._hooks.items()]

    def values(self) -> dict[tuple[AttentionInput, int], Tensor]:
        """Return the attention inputs of the pass."""
        return {key: self._hooks[key].extract(output) for key, output in self._outputs.items()}


def _on_output(layer: nn.Module, store: Callable[[Tensor], object]) -> Any:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        store(hidden_states_of(output))

    return layer.register_forward_hook(hook)


def _on_input(layer: nn.Module, store: Callable[[Tensor], None]) -> Any:
    def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
        store(args[0] if args else kwargs["hidden_states"])

    return layer.register_forward_pre_hook(hook, with_kwargs=True)
