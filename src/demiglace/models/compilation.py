"""Compile the layers of a model by torch.compile.

Each layer's forward is compiled, not the model: hidden states are captured by hooks on layers, which stay outside of
the compiled code, and layers of one kind share it.
"""

import torch
from transformers import PreTrainedModel

from demiglace.errors import ConfigError
from demiglace.models.layer_stack import layer_stack

BACKEND = "inductor"


def check_compiler(device: torch.device) -> None:
    """Raise `ConfigError` unless torch.compile can compile a small function for this device."""
    try:
        torch.compile(torch.sin, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:  # of the backend, of the compiler that it starts, of the operating system
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        needed = "Triton" if device.type == "cuda" else "a C++ compiler, such as g++,"
        raise ConfigError(
            f"--compile was given, and torch.compile fails here ({reason}); install {needed} or leave --compile out."
        ) from error


def compile_layers(model: PreTrainedModel) -> None:
    """Compile the forward of each layer, for batches of all shapes. Raises `ModelError` as `layer_stack` does."""
    torch._functorch.config.donated_buffer = False  # the diagnostics take several gradients of one graph
    for layer in layer_stack(model):
        layer.forward = torch.compile(layer.forward, backend=BACKEND, dynamic=True)  # type: ignore[method-assign]


def uncompile_layers(model: PreTrainedModel) -> None:
    """Undo `compile_layers`."""
    for layer in layer_stack(model):
        vars(layer).pop("forward", None)
