"""One model shared out among processes: each holds a part of every weight, gradient and moment (FSDP).

PyTorch's `fully_shard` (Zhao et al. 2023, arXiv 2304.11277; its second version) layer by layer, used directly because
accelerate's way to it leaves out processes on CPUs. Everything that leaves a sharded model is gathered first, by all
processes at once.
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
    """Share out, in place, each layer of the student, and then all that is left of the module around it."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in layer_stack(student):
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def unsharded_copy(student: PreTrainedModel) -> PreTrainedModel:
    """The same model, to be kept whole; to be called before `apply_fsdp`."""
    return copy.deepcopy(student)


@contextmanager
def no_grad_sync(module: nn.Module) -> Iterator[None]:
    """Inside, gradients are added up in each process and not exchanged."""
    assert isinstance(module, FSDPModule)
    module.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        module.set_requires_gradient_sync(True)


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor gathered from all processes where it is shared out; each has to call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`full_tensor` of each."""
    return {name: full_tensor(t) for name, t in tensors.items()}


def load(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load unsharded weights into a module, or a part of one, that may be sharded. All processes have to call it."""
    if any(isinstance(p, DTensor) for p in module.parameters()):
        set_model_state_dict(module, dict(tensors), options=StateDictOptions(full_state_dict=True))
    else:
        module.load_state_dict(tensors)


def distribute_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A whole tensor shared out as a parameter of the same shape is."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
