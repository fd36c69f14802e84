"""Prune the width of a model: remove units of its feed-forward layers, attention heads and hidden channels.

Which dimensions of which weights shrink is found out from the architecture: its model is built without weights for a
config with one size less, and the shapes are compared. The pruned model is then compared with the given one in which
the removed units are set to zero, so an architecture for which a dimension was misunderstood is refused.

Terms: a *unit* is what is removed as one, a feed-forward unit, a group of heads that share a key head, or a hidden
channel. `Units` are the units that are kept, by the size that they belong to: one ascending list for each layer, or a
single list for `hidden_size`, whose channels are the same in all layers.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from demiglace.errors import ModelError
from demiglace.models.layer_stack import layer_stack, named_stack
from demiglace.models.modes import evaluating
from demiglace.models.truncate import copy_weights
from demiglace.models.truncation_check import TOLERANCE, TOLERANCE_HALF, random_inputs, reason_of, without_cache
from demiglace.models.width import (
    FEED_FORWARD,
    HEADS,
    HIDDEN,
    SIZES,
    changed_config,
    flag,
    head_groups,
    head_width,
    narrow_config,
    shapes_of,
    sizes_of,
    width_options,
)

Units = Mapping[str, Sequence[Sequence[int]]]
Scores = Mapping[str, Tensor]
"""Importance of all units by size: [layers, units], and for `hidden_size` [1, channels]."""


@dataclass(frozen=True)
class Slot:
    """A dimension of a weight whose entries belong to units of one size."""

    size: str
    weight: str
    dim: int
    layer: int | None  # None: outside of the layers
    units: Tensor  # unit of each entry, int64 [entries]


def prune_width(
    model: PreTrainedModel,
    intermediate_size: int | None = None,
    num_attention_heads: int | None = None,
    hidden_size: int | None = None,
    importance: Scores | None = None,
) -> PreTrainedModel:
    """Return a new model of the same class with smaller sizes, made of the most important units of the given one.

    Dtype, device and training mode are kept, and the model is as deep as the given one. Sizes that are None stay;
    `models.width.width_options` lists those that can be given.

    Args:
        model: of any architecture with one stack of layers.
        intermediate_size: units of each feed-forward layer.
        num_attention_heads: query heads of each layer; key and value heads shrink in the same ratio.
        hidden_size: width of the hidden states.
        importance: as `models.width_importance.measure_importance` returns it; None: `magnitudes`.

    Raises:
        ModelError: the architecture cannot have these sizes, or the pruned model does not compute what the given one
            computes without the removed units.
    """
    config = narrow_config(
        model.config,
        intermediate_size=intermediate_size,
        num_attention_heads=num_attention_heads,
        hidden_size=hidden_size,
    )
    sizes = smaller_sizes(model.config, config)
    scores = magnitudes(model, sizes) if importance is None else importance
    return prune_units(model, choose_units(model, sizes, scores))


def smaller_sizes(config: PreTrainedConfig, narrow: PreTrainedConfig) -> dict[str, int]:
    """Return the sizes of a narrower config that are smaller than those of the config."""
    present = sizes_of(config)
    return {name: size for name, size in sizes_of(narrow).items() if size != present[name]}


def choose_units(model: PreTrainedModel, sizes: Mapping[str, int], scores: Scores) -> Units:
    """Return the most important units for these sizes of a narrower model; of equal ones the first.

    Heads are chosen for all layers together where a weight outside of the layers depends on them (MPNet's relative
    positions), by the sum of each layer's shares.
    """
    present, chosen = sizes_of(model.config), dict[str, Sequence[Sequence[int]]]()
    shared = {slot.size for slot in width_slots(model, sizes) if slot.layer is None} - {HIDDEN}
    for name, size in sizes.items():
        of_units = scores[name].double()
        if name in shared:
            shares = of_units / of_units.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
            of_units = shares.sum(0, keepdim=True).expand(len(of_units), -1)
        count = size * of_units.shape[1] // present[name]
        order = of_units.argsort(dim=1, descending=True, stable=True)[:, :count]
        chosen[name] = order.sort(dim=1).values.tolist()
    return chosen


@torch.no_grad()
def magnitudes(model: PreTrainedModel, sizes: Collection[str]) -> dict[str, Tensor]:
    """Return the sum of the squared weights of each unit, an importance that needs no data."""
    weights, scores = model.state_dict(), dict[str, Tensor]()
    for slot in width_slots(model, sizes):
        squares = weights[slot.weight].double().square().movedim(slot.dim, 0).reshape(len(slot.units), -1).sum(1).cpu()
        rows = 1 if slot.size == HIDDEN else len(layer_stack(model))
        empty = torch.zeros(rows, int(slot.units.max()) + 1, dtype=torch.float64)
        total = scores.setdefault(slot.size, empty)
        for row in range(rows) if slot.layer is None or slot.size == HIDDEN else [slot.layer]:
            total[row if rows > 1 else 0].index_add_(0, slot.units, squares)
    return scores


def prune_units(model: PreTrainedModel, units: Units) -> PreTrainedModel:
    """Return a new model of the same class with only these units; raises as `prune_width` does."""
    problem = ""
    for interleaved in (False, True):
        slots = width_slots(model, units, interleaved=interleaved)
        pruned = _gather(model, units, slots)
        problem = difference(model, pruned, units, slots)
        if not problem:
            return pruned
    raise ModelError(
        f"{type(model).__name__} cannot be pruned to these sizes: {problem} Give fewer of "
        f"{', '.join(map(flag, SIZES))}, or a model of another architecture."
    )


def _gather(model: PreTrainedModel, units: Units, slots: Sequence[Slot]) -> PreTrainedModel:
    """Return a model of the smaller sizes with the kept entries of each weight."""
    present = sizes_of(model.config)
    sizes = {name: present[name] * len(kept[0]) // _count(model.config, name) for name, kept in units.items()}
    weights = dict(model.state_dict())
    for slot in slots:
        index = kept_entries(slot, units).to(model.device)
        weights[slot.weight] = weights[slot.weight].index_select(slot.dim, index)
    try:
        with torch.random.fork_rng(devices=[]):  # all of its random weights are replaced
            pruned: PreTrainedModel = type(model)(changed_config(model.config, sizes))
        copy_weights(model, pruned, weights)
    except Exception as error:  # of any kind: code of the architecture, with values that nobody wrote
        raise ModelError(
            f"no {model.config.model_type} model can have {', '.join(f'{flag(n)} {s}' for n, s in sizes.items())} "
            f"({reason_of(error)}); give other sizes."
        ) from error
    return pruned


def _count(config: PreTrainedConfig, size: str) -> int:
    """Return the number of units of a size: for heads, that of groups."""
    return head_groups(config) if size == HEADS else sizes_of(config)[size]


def kept_entries(slot: Slot, units: Units) -> Tensor:
    """Return the entries of a dimension that are kept, in the order of the kept units within each of its parts."""
    kept = torch.as_tensor(units[slot.size][slot.layer or 0 if slot.size != HIDDEN else 0])
    rank = torch.full((int(slot.units.max()) + 1,), -1)
    rank[kept] = torch.arange(len(kept))
    part = torch.cat([torch.zeros(1, dtype=torch.int64), (slot.units.diff() < 0).long()]).cumsum(0)
    order = (part * len(rank) + rank[slot.units]).argsort(stable=True)
    return order[rank[slot.units[order]] >= 0]


# the dimensions of each weight


def width_slots(model: PreTrainedModel, sizes: Collection[str], *, interleaved: bool = False) -> list[Slot]:
    """Return all dimensions of the model's weights that belong to the units of these sizes.

    interleaved: how weights of several parts are laid out (queries, keys and values in one matrix, or gate and input of
    a feed-forward layer): all parts of a unit together, as in GPT-NeoX, or one part after the other, as in Phi-3.
    Raises `ModelError` for a dimension that depends on a size and whose units are not known.
    """
    options, slots = width_options(model.config), list[Slot]()
    stack = named_stack(model)[0]
    for size in (name for name in options if name in sizes and len(options[name]) > 1):
        smaller, coupled = {size: options[size][-2]}, size == HIDDEN and HEADS not in options
        if coupled:
            smaller[HEADS] = smaller[HIDDEN] // head_width(model.config)
        attention = _attention_dimensions(model) if coupled else set()
        for name, dim, entries in _changed_dimensions(model, smaller):
            of_heads = coupled and ((name, dim) in attention or entries % model.config.hidden_size != 0)
            kind = HEADS if of_heads else size
            units = _units(model.config, kind, entries, interleaved)
            if units is None or dim > 1:  # of experts, each of which has its own units
                raise ModelError(
                    f"{type(model).__name__} cannot be pruned by {flag(size)}: its {name} has {entries} entries for a "
                    f"{size} of {options[size][-1]}, and which of them belong together is not known."
                )
            number = name.removeprefix(f"{stack}.").partition(".")[0] if name.startswith(f"{stack}.") else None
            slots.append(Slot(kind, name, dim, None if number is None else int(number), units))
    return slots


def _changed_dimensions(model: PreTrainedModel, smaller: Mapping[str, int]) -> Iterator[tuple[str, int, int]]:
    """Yield weight, dimension and size of each dimension that is shorter in a model of smaller sizes."""
    new = shapes_of(changed_config(model.config, smaller), type(model))
    for name, weight in model.state_dict().items():
        for dim, (entries, fewer) in enumerate(zip(weight.shape, new.get(name, ()), strict=False)):
            if entries != fewer:
                yield name, dim, entries


def _units(config: PreTrainedConfig, size: str, entries: int, interleaved: bool) -> Tensor | None:
    """Return the unit of each entry of a dimension, int64 [entries]; None if they do not fit."""
    total = _count(config, size)
    if entries % total or (size == HIDDEN and entries != total):
        return None
    parts = [1]  # relative sizes of parts that follow each other
    if size == HEADS and not interleaved:
        heads = config.num_attention_heads
        groups = getattr(config, "num_key_value_heads", None) or heads
        if entries == (heads + 2 * groups) * head_width(config):  # queries, keys and values in one matrix
            parts = [heads // groups, 1, 1]
    elif size == FEED_FORWARD and not interleaved:
        parts = [1] * (entries // total)
    share = entries // total // sum(parts)
    return torch.cat([torch.arange(total).repeat_interleave(share * part) for part in parts])


@torch.no_grad()
def _attention_dimensions(model: PreTrainedModel) -> set[tuple[str, int]]:
    """Return weight and dimension of the heads in each layer's attention, found by running the model on a few tokens.

    The first linear maps of a layer that read the same tensor are those of queries, keys and values; the next linear
    map reads what attention computed from them.
    """
    found, names = set[tuple[str, int]](), {module: name for name, module in model.named_modules()}
    layers = layer_stack(model)
    calls: list[list[tuple[nn.Module, Tensor]]] = [[] for _ in layers]
    with ExitStack() as hooks:
        for called, layer in zip(calls, layers, strict=True):
            for module in filter(_is_linear, layer.modules()):
                hook = module.register_forward_pre_hook(lambda module, args, to=called: to.append((module, args[0])))
                hooks.callback(hook.remove)
        _outputs(model, random_inputs(model))
    for called in calls:
        projections = {module for module, read in called if read is called[0][1]}
        output = next((module for module, _ in called if module not in projections), None)
        if output is None:
            raise ModelError(f"the attention of {type(model).__name__} was not found, so its heads cannot be pruned.")
        for module in projections:
            found |= {(f"{names[module]}.weight", 1 - _input_dim(module)), (f"{names[module]}.bias", 0)}
        found.add((f"{names[output]}.weight", _input_dim(output)))
    return found


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Conv1D))


def _input_dim(module: nn.Module) -> int:
    """Return the dimension of a linear map's weight that has its inputs: that of GPT-2's `Conv1D` is [in, out]."""
    return 1 if isinstance(module, nn.Linear) else 0


# hooks on the modules that read or write units


def reading_modules(model: PreTrainedModel, slots: Iterable[Slot]) -> list[tuple[nn.Module, Slot]]:
    """Return the linear maps whose inputs are feed-forward units or heads, with the slot of those inputs."""
    pairs = [(model.get_submodule(slot.weight.rpartition(".")[0]), slot) for slot in slots if slot.size != HIDDEN]
    return [(m, s) for m, s in pairs if s.weight.endswith(".weight") and _is_linear(m) and s.dim == _input_dim(m)]


def norms(model: PreTrainedModel, slots: Iterable[Slot]) -> list[tuple[str, nn.Module]]:
    """Return the norms over hidden channels, with their names: modules whose weight is a vector."""
    vectors = [s.weight.rpartition(".") for s in slots if s.size == HIDDEN]
    found = dict.fromkeys(name for name, _, kind in vectors if kind == "weight")
    return [(n, m) for n in found if (m := model.get_submodule(n)).get_parameter("weight").dim() == 1]


def difference(model: PreTrainedModel, pruned: PreTrainedModel, units: Units, slots: Sequence[Slot]) -> str:
    """Return in words how a pruned model differs from the model without the removed units; "" if they are equal.

    In the model, removed feed-forward units and heads are set to zero where the next linear map reads them, removed
    hidden channels where a map writes them, and norms are computed over the kept channels only. Both models read 12
    random tokens; their first outputs are compared (logits or hidden states).
    """
    inputs = random_inputs(model)
    try:
        with _masked(model, pruned, units, slots):
            expected = _outputs(model, inputs)
        computed = _outputs(pruned, inputs)
    except Exception as error:  # of any kind: code of the architecture, run in a way that it was not written for
        return f"it cannot be run without the removed units ({reason_of(error)})."
    if HIDDEN in units and expected.shape[-1] == model.config.hidden_size:
        expected = expected[..., list(units[HIDDEN][0])]
    if expected.shape != computed.shape:
        return f"its outputs would be {list(computed.shape)} instead of {list(expected.shape)}."
    change, scale = (expected - computed).abs().max().item(), expected.abs().max().item()
    if change > TOLERANCE.get(model.dtype, TOLERANCE_HALF) * scale:  # False for models whose outputs are not finite
        return f"without the removed units its outputs of up to {scale:.3g} would change by {change:.2g}."
    return ""


@torch.no_grad()
def _outputs(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    with evaluating(model), without_cache(model):
        outputs: Tensor = model(**inputs)[0]
    return outputs.float()


@contextmanager
def _masked(model: PreTrainedModel, pruned: PreTrainedModel, units: Units, slots: Sequence[Slot]) -> Iterator[None]:
    """Remove units from a model inside, without changing its weights."""
    with ExitStack() as hooks:
        for module, slot in reading_modules(model, slots):
            mask = _mask(slot, units, model)
            handle = module.register_forward_pre_hook(lambda _, args, mask=mask: (args[0] * mask, *args[1:]))
            hooks.callback(handle.remove)
        normed = dict(norms(model, slots))
        for slot in slots if HIDDEN in units else ():
            name, _, kind = slot.weight.rpartition(".")
            module = model.get_submodule(name)
            if slot.size == HIDDEN and name not in normed and kind == "weight" and slot.dim == _output_dim(module):
                mask = _mask(slot, units, model)
                hooks.callback(module.register_forward_hook(lambda _, args, out, mask=mask: out * mask).remove)
        for name, module in normed.items():
            hook = _on_kept_channels(pruned.get_submodule(name), list(units[HIDDEN][0]))
            hooks.callback(module.register_forward_hook(hook).remove)
        yield


def _mask(slot: Slot, units: Units, model: PreTrainedModel) -> Tensor:
    mask = torch.zeros(len(slot.units), dtype=model.dtype, device=model.device)
    mask[kept_entries(slot, units).to(model.device)] = 1
    return mask


def _output_dim(module: nn.Module) -> int | None:
    """Return the dimension of a module's weight that its outputs have: tables are [entries, out]."""
    if isinstance(module, nn.Embedding):
        return 1
    return 1 - _input_dim(module) if _is_linear(module) else None


def _on_kept_channels(norm: nn.Module, kept: Sequence[int]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """Return a hook that replaces a norm's output by that of another norm on the kept channels, and zero elsewhere."""

    def hook(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        replaced = torch.zeros_like(output)
        replaced[..., kept] = norm(args[0][..., kept])
        return replaced

    return hook
