"""Check a truncated model against the model without the dropped layers.

Some architectures compute with the number of a layer or the number of layers: GPT-2 may divide attention scores by the
number, DiffLlama derives a constant from it, and ModernBERT has no norm in its first layer. A kept layer has a new
number, in the truncated model and whenever it is loaded again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.layer_ablation import hidden_states_of, output_formats, skip_layers
from demiglace.models.layer_stack import layer_stack
from demiglace.models.modes import evaluating

_TOKENS = 12  # of the row that both models read; classifiers without a padding token take one row only
# both models do the same operations, so that only the order of sums on some devices can differ
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # relative to the largest number
TOLERANCE_HALF = 1e-2  # the same in bfloat16 and float16


def misfit(kept: Mapping[str, Tensor], new: Mapping[str, Tensor], stack: str, keep: Sequence[int]) -> str:
    """Return the first weight that a truncated model has otherwise than the kept weights, in words; "" for none.

    Args:
        kept: the model's weights by their names in the truncated model.
        new: the truncated model's weights, which may be on the device "meta".
        stack: name of the stack of layers.
        keep: the kept layers.
    """
    for name in dict.fromkeys([*kept, *new]):
        old_shape, new_shape = (tuple(w[name].shape) if name in w else None for w in (kept, new))
        if old_shape == new_shape:
            continue
        unit, subject = f"a model of {len(keep)} layers", name
        if name.startswith(f"{stack}."):
            number, _, subject = name.removeprefix(f"{stack}.").partition(".")
            if int(number) >= len(keep):
                return f"its config does not set the number of layers of {stack}"
            unit = f"layer {number} of {unit}, which layer {keep[int(number)]} would become,"
        if new_shape is None:
            return f"{unit} has no {subject}"
        if old_shape is None:
            return f"{unit} has another weight, {subject}"
        return f"{unit} has a {subject} of shape {list(new_shape)} instead of {list(old_shape)}"
    return ""


@torch.no_grad()
def check_equal(model: PreTrainedModel, truncated: PreTrainedModel, keep: Sequence[int]) -> None:
    """Raise `ModelError` unless a truncated model computes what the model computes without the dropped layers.

    Compared are the output of the last kept layer and the first output of the model (logits or hidden states) on 12
    random tokens. Also raised if either model cannot be run.
    """
    inputs, name, shown = random_inputs(model), type(model).__name__, ",".join(map(str, keep))
    try:
        expected = _run_without(model, [i for i in range(len(layer_stack(model))) if i not in keep], inputs, keep[-1])
    except ModelError:
        raise
    except Exception as error:  # of any kind: code of the architecture, run in a way that it was not written for
        raise ModelError(
            f"{name} cannot be run without some of its layers ({reason_of(error)}); it cannot be truncated."
        ) from error
    try:
        computed = _run(truncated, layer_stack(truncated), len(keep) - 1, inputs)
    except Exception as error:
        raise ModelError(
            f"{name} with only its layers {shown} cannot be run ({reason_of(error)}); keep other layers."
        ) from error
    tolerance = TOLERANCE.get(model.dtype, TOLERANCE_HALF)
    for one, other in zip(expected, computed, strict=True):
        difference, scale = (one - other).abs().max().item(), one.abs().max().item()
        if difference > tolerance * scale:  # False for models whose outputs are not finite
            raise ModelError(
                f"{name} with only its layers {shown} would not compute what these layers compute now: outputs of up "
                f"to {scale:.3g} change by {difference:.2g}, because this architecture uses a layer's number. Keep the "
                "first layers (--strategy bottom), whose numbers stay, or train new ones (--strategy embeddings)."
            )


def random_inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return one row of random tokens, input_ids and attention_mask [1, 12], on the model's device."""
    ids = torch.randint(model.config.vocab_size, (1, _TOKENS), generator=torch.Generator().manual_seed(0))
    eos = getattr(model.config, "eos_token_id", None)
    if isinstance(eos, int) and 0 <= eos < model.config.vocab_size:
        ids[:, -1] = eos  # without which BART's classifiers cannot be run
    return {"input_ids": ids.to(model.device), "attention_mask": torch.ones_like(ids, device=model.device)}


def _run_without(
    model: PreTrainedModel, dropped: Iterable[int], inputs: Mapping[str, Tensor], last: int
) -> tuple[Tensor, Tensor]:
    layers = layer_stack(model)
    with evaluating(model), without_cache(model):
        formats = output_formats(model, layers, inputs)
        with skip_layers(layers, dropped, formats):
            return _run(model, layers, last, inputs)


def _run(
    model: PreTrainedModel, layers: nn.ModuleList, last: int, inputs: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the output of the layer `last` and the first output of the model, both in float32."""
    states: list[Tensor] = []
    handle = layers[last].register_forward_hook(lambda *args: states.append(hidden_states_of(args[-1])))
    try:
        with evaluating(model):
            outputs = model(**inputs)
    finally:
        handle.remove()
    tokens = inputs["input_ids"].shape[1]  # Longformer pads rows to a multiple of the widest window of its layers
    return states[-1][:, :tokens].float(), outputs[0].float()


@contextmanager
def without_cache(model: PreTrainedModel) -> Iterator[None]:
    """Switch the key-value cache off inside, which layers that are skipped would not fill."""
    if not hasattr(model.config, "use_cache"):
        yield
        return
    use_cache = model.config.use_cache
    model.config.use_cache = False
    try:
        yield
    finally:
        model.config.use_cache = use_cache


def reason_of(error: Exception) -> str:
    """Return the kind and the message of an error of another library, in one line of at most 200 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
