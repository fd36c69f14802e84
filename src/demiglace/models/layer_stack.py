"""Find a model's layers, whatever its architecture names them."""

from torch import nn
from transformers import PreTrainedModel

from demiglace.errors import ModelError


def layer_stack(model: PreTrainedModel) -> nn.ModuleList:
    """Return the module list of a model's `num_hidden_layers` layers, in order.

    Raises `ModelError` for architectures without a single stack of layers: shared layers (ALBERT), an encoder and a
    decoder (BART), or no layers.
    """
    return named_stack(model)[1]


def named_stack(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the name of the `layer_stack` in the model, such as ``bert.encoder.layer``, and the stack.

    Raises `ModelError` as `layer_stack` does.
    """
    count = getattr(model.config, "num_hidden_layers", None)  # some configs of transformers lack it
    candidates = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    # a list inside another one, such as the experts of each layer, is not the stack of layers
    outer = [(n, m) for n, m in candidates if not any(n.startswith(o + ".") for o, _ in candidates)]
    if len(outer) == 1:
        return outer[0]
    names = ", ".join(name for name, _ in outer) or "none"
    raise ModelError(
        f"{type(model).__name__} has no single stack of {count} separate layers (found: {names}); models whose layers "
        "are shared (ALBERT) or that are encoder and decoder (BART, T5) cannot be truncated or matched by layer."
    )
