"""Finding a model's layers, whatever its architecture calls them."""

from torch import nn
from transformers import PreTrainedModel

from demiglace.errors import ModelError


def layer_stack(model: PreTrainedModel) -> nn.ModuleList:
    """The one list of modules that holds a model's `num_hidden_layers` layers, in order.

    Raises `ModelError` for architectures whose layers are no such stack: shared layers (ALBERT), an encoder and a
    decoder (BART), or no layers at all.
    """
    return named_stack(model)[1]


def named_stack(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """`layer_stack` with its name in the model, such as ``bert.encoder.layer``."""
    count = getattr(model.config, "num_hidden_layers", None)  # not every config of transformers has it
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    # a list inside another, such as the experts of each layer, is no stack of layers
    outer = [(n, m) for n, m in found if not any(n.startswith(other + ".") for other, _ in found)]
    if len(outer) == 1:
        return outer[0]
    names = ", ".join(name for name, _ in outer) or "none"
    raise ModelError(
        f"{type(model).__name__} has no single stack of {count} separate layers (found: {names}); models whose layers "
        "are shared (ALBERT) or that are encoder and decoder (BART, T5) cannot be truncated or matched by layer."
    )
