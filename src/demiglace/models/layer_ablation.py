"""Run a model without some of its layers, and observe inputs and outputs of layers, without copying weights."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.errors import ModelError

_NO_STATES = (
    "so they cannot be skipped, measured or matched. Take a model of another architecture, or a method that uses the "
    "logits only with --student."
)
OutputFormat = Callable[[Tensor], Any]  # builds a layer's return value from hidden states


@contextmanager
def skip_layers(layers: nn.ModuleList, skipped: Iterable[int], formats: Sequence[OutputFormat]) -> Iterator[None]:
    """Let these layers of a stack return their input; formats: of all layers, from `output_formats`."""
    with _replace_forwards(layers, {i: _identity_forward(formats[i]) for i in skipped}):
        yield


@contextmanager
def run_from_layer(
    layers: nn.ModuleList, layer: int, hidden: Tensor, skipped: Iterable[int], formats: Sequence[OutputFormat]
) -> Iterator[None]:
    """Skip `layer`, `skipped` and all layers before `layer`, which returns cached states `hidden` [B, L, d].

    `hidden` is the input of `layer` for the same batch without the layers `skipped`. The model's forward still computes
    masks and position embeddings for the layers that follow.
    """
    forwards = {i: _identity_forward(formats[i]) for i in (*skipped, *range(layer))}
    with _replace_forwards(layers, forwards | {layer: lambda *args, **kwargs: formats[layer](hidden)}):
        yield


@contextmanager
def _replace_forwards(layers: nn.ModuleList, forwards: Mapping[int, Callable[..., Any]]) -> Iterator[None]:
    try:
        for i, forward in forwards.items():
            layers[i].forward = forward  # an attribute of the instance precedes the method of its class
        yield
    finally:
        for i in forwards:
            vars(layers[i]).pop("forward", None)


def _identity_forward(format_output: OutputFormat) -> Callable[..., Any]:
    return lambda *args, **kwargs: format_output(_layer_input(args, kwargs))


def _layer_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def hidden_states_of(output: Any) -> Tensor:
    """Return the hidden states that a layer returned, alone or first in a tuple.

    Raises `ModelError` for layers that return something else.
    """
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor):
        raise ModelError(f"the model's layers return a {type(hidden).__name__} instead of hidden states, {_NO_STATES}")
    return hidden


def check_observed(observed: bool) -> None:
    """Raise `ModelError` unless hooks observed the layers: SqueezeBERT calls the method `forward` of its layers."""
    if not observed:
        raise ModelError(f"the model does not call its layers as modules, {_NO_STATES}")


def output_formats(model: PreTrainedModel, layers: nn.ModuleList, batch: Mapping[str, Tensor]) -> list[OutputFormat]:
    """Find each layer's output format on one row: hidden states, or a tuple that starts with them (DeBERTa).

    Raises `ModelError` as `hidden_states_of` and `check_observed` do.
    """
    returned: list[Any] = []
    handles = [layer.register_forward_hook(lambda *args: returned.append(args[-1])) for layer in layers]
    try:
        model(**{name: value[:1] for name, value in batch.items()})
    finally:
        for handle in handles:
            handle.remove()
    check_observed(len(returned) == len(layers))
    for output in returned:
        hidden_states_of(output)
    return [_output_format(len(output) if isinstance(output, tuple) else 0) for output in returned]


def _output_format(size: int) -> OutputFormat:
    return (lambda hidden: (hidden, *[None] * (size - 1))) if size else (lambda hidden: hidden)


@contextmanager
def observe_layers(layers: nn.ModuleList, callback: Callable[[Tensor, Tensor], object]) -> Iterator[None]:
    """Call `callback` with the input and the output [B, L, d] of each layer as it runs."""

    def hook(_layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        callback(_layer_input(args, kwargs), hidden_states_of(output))

    handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
