"""AdamW, frozen parameters, and the optimizer state as plain tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from demiglace.config.training import TrainConfig
from demiglace.errors import ConfigError, RunError
from demiglace.training.fsdp import distribute_like

_MOMENTS = ("exp_avg", "exp_avg_sq")


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW over all trained parameters, without weight decay for biases and norms (fewer than two axes)."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.learning_rate, eps=config.adam_epsilon, fused=True
    )


def freeze(model: nn.Module, substrings: Sequence[str]) -> None:
    """Freeze every parameter whose name contains one of these substrings.

    Raises `ConfigError` if a substring matches no name.
    """
    for substring in substrings:
        matching = [p for name, p in model.named_parameters() if substring in name]
        if not matching:
            names = ", ".join(list(dict(model.named_parameters()))[:6])
            raise ConfigError(
                f"--freeze {substring} matches no parameter; give a part of a name, such as of {names}, …"
            )
        for parameter in matching:
            parameter.requires_grad_(False)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return moments and step counts by parameter number, as `restore_optimizer` expects them."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, moments in state.items() for name, value in moments.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the tensors of `optimizer_tensors`; parameters of a later phase have none yet.

    Raises `RunError` if they belong to other parameters.
    """
    saved = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".")
        state.setdefault(int(number), {})[key] = value
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    if not all(i < len(parameters) and state[i][m].shape == parameters[i].shape for i in state for m in _MOMENTS):
        raise RunError("the optimizer state of the checkpoint belongs to another model; give another --output.")
    state = {
        i: {k: distribute_like(parameters[i], value) for k, value in moments.items()} for i, moments in state.items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
