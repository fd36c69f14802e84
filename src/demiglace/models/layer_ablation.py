"""Running a model without some of its layers, and seeing what each of them does; no weight is copied."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

Form = Callable[[Tensor], Any]  # what a layer returns, made of hidden states alone


@contextmanager
def skip_layers(layers: nn.ModuleList, gone: Iterable[int], forms: Sequence[Form]) -> Iterator[None]:
    """Let these layers of a stack return their input; forms: of all layers, from `layer_forms`."""
    with _replaced(layers, {i: _returning_input(forms[i]) for i in gone}):
        yield


@contextmanager
def bypassed_up_to(
    layers: nn.ModuleList, layer: int, hidden: Tensor, gone: Iterable[int], forms: Sequence[Form]
) -> Iterator[None]:
    """Bypass `layer` and `gone`, and compute no layer before `layer`: `layer` returns `hidden` [B, L, d].

    `hidden` is the input of `layer` on the same batch without the layers `gone`. The model's own forward still makes
    masks and position embeddings for the layers that follow.
    """
    forwards = {i: _returning_input(forms[i]) for i in (*gone, *range(layer))}
    with _replaced(layers, forwards | {layer: lambda *args, **kwargs: forms[layer](hidden)}):
        yield


@contextmanager
def _replaced(layers: nn.ModuleList, forwards: Mapping[int, Callable[..., Any]]) -> Iterator[None]:
    try:
        for i, forward in forwards.items():
            layers[i].forward = forward  # an instance's own forward comes before its class's
        yield
    finally:
        for i in forwards:
            vars(layers[i]).pop("forward", None)


def _returning_input(form: Form) -> Callable[..., Any]:
    return lambda *args, **kwargs: form(_given(args, kwargs))


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def layer_forms(model: PreTrainedModel, layers: nn.ModuleList, batch: Mapping[str, Tensor]) -> list[Form]:
    """Whether each layer returns its hidden states or a tuple that begins with them (DeBERTa), seen on a row."""
    returned: list[Any] = []
    handles = [layer.register_forward_hook(lambda *seen: returned.append(seen[-1])) for layer in layers]
    try:
        model(**{name: value[:1] for name, value in batch.items()})
    finally:
        for handle in handles:
            handle.remove()
    return [_form(len(output) if isinstance(output, tuple) else 0) for output in returned]


def _form(size: int) -> Form:
    return (lambda hidden: (hidden, *[None] * (size - 1))) if size else (lambda hidden: hidden)


@contextmanager
def observe_layers(layers: nn.ModuleList, see: Callable[[Tensor, Tensor], object]) -> Iterator[None]:
    """Call `see` with the hidden states that a layer is given and returns, layer by layer as they run."""

    def hook(_layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        see(_given(args, kwargs), output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
