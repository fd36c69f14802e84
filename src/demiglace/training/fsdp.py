"""Fully sharded data parallel (FSDP): each process has a part of every weight, gradient and optimizer state.

PyTorch's `fully_shard` (FSDP2; Zhao et al. 2023, arXiv 2304.11277) is applied layer by layer. It is used directly,
because accelerate does not support it on CPUs. Tensors of a sharded model are gathered by all processes before they are
saved or returned.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from demiglace.models.layer_stack import layer_stack


def apply_fsdp(module: nn.Module, student: PreTrainedModel, device: torch.device) -> None:
    """Shard in place each layer of the student, and then the rest of the module that contains it."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in layer_stack(student):
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def unsharded_copy(student: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of the model that stays unsharded. Call this before `apply_fsdp`."""
    return copy.deepcopy(student)


@contextmanager
def no_grad_sync(module: nn.Module) -> Iterator[None]:
    """Accumulate gradients in each process inside the context, without synchronization."""
    assert isinstance(module, FSDPModule)
    module.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        module.set_requires_gradient_sync(True)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor, gathered from all processes if it is sharded. All processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the `full_tensor` of each tensor."""
    return {name: full_tensor(t) for name, t in tensors.items()}


def load(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load unsharded weights into a module, or a part of one, that may be sharded. All processes must call this."""
    if any(isinstance(p, DTensor) for p in module.parameters()):
        set_model_state_dict(module, dict(tensors), options=StateDictOptions(full_state_dict=True))
    else:
        module.load_state_dict(tensors)


def distribute_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a full tensor, sharded like a parameter of the same shape."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
