"""AdamW, its learning rate, and its state as plain tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from demiglace.config.training import TrainConfig
from demiglace.errors import ConfigError, RunError
from demiglace.training.fsdp import distribute_like

_MOMENTS = ("exp_avg", "exp_avg_sq")


def make_optimiser(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over all trained parameters; biases and norms (fewer than two axes) are not decayed."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.learning_rate, eps=config.adam_epsilon, fused=True
    )


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """Train no weight of a model whose name holds one of these parts. Raises `ConfigError` for a part of no name."""
    for part in parts:
        found = [p for name, p in model.named_parameters() if part in name]
        if not found:
            names = ", ".join(list(dict(model.named_parameters()))[:6])
            raise ConfigError(f"--freeze {part}: no weight's name holds it; the first ones are {names}, …")
        for parameter in found:
            parameter.requires_grad_(False)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts by parameter number, as `restore_optimiser` takes them."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{name}": value for i, moments in state.items() for name, value in moments.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put saved moments back; parameters of a phase that is still to come have none.

    Raises `RunError` where they belong to other parameters.
    """
    saved = optimiser.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".")
        state.setdefault(int(number), {})[key] = value
    parameters = [p for g in optimiser.param_groups for p in g["params"]]
    if not all(i < len(parameters) and state[i][m].shape == parameters[i].shape for i in state for m in _MOMENTS):
        raise RunError("the checkpoint's optimiser state belongs to another model; give another --output.")
    state = {
        i: {k: distribute_like(parameters[i], value) for k, value in moments.items()} for i, moments in state.items()
    }
    optimiser.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
