"""Sizes of a narrower model: which ones an architecture allows, and the config that has them.

Three sizes can be smaller, by the names of Hugging Face's configs: `intermediate_size` (units of a feed-forward
layer), `num_attention_heads` and `hidden_size`. The width of a head stays. Key and value heads that several query
heads share (grouped-query attention) shrink in the same ratio, so groups are removed as one. `models.prune_width`
copies the weights.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig

from demiglace.errors import ModelError
from demiglace.models.library import silence_transformers
from demiglace.models.truncate import truncate_config
from demiglace.models.truncation_check import reason_of

SIZES = ("intermediate_size", "num_attention_heads", "hidden_size")
FEED_FORWARD, HEADS, HIDDEN = SIZES
_FEED_FORWARD_NAMES = (FEED_FORWARD, "hidden_dim", "n_inner", "ffn_dim", "ffn_hidden_size")  # by architecture
_WITH_HIDDEN = ("pooler_hidden_size", "word_embed_proj_dim")  # of DeBERTa and OPT, usually equal to the hidden size


def sizes_of(config: PreTrainedConfig) -> dict[str, int]:
    """Return those of `SIZES` that a config has, such as {"intermediate_size": 1536, …}."""
    name = _feed_forward_name(config)
    units = getattr(config, name, None) if name else None
    hidden = getattr(config, "hidden_size", None)
    if name == "n_inner" and units is None:
        units = 4 * config.hidden_size  # GPT-2's default
    sizes = {FEED_FORWARD: units, HEADS: getattr(config, "num_attention_heads", None), HIDDEN: hidden}
    return {name: size for name, size in sizes.items() if isinstance(size, int) and size > 0}


def head_groups(config: PreTrainedConfig) -> int:
    """Return the number of units of heads that can be removed: of key and value heads, or of query heads if one key
    head serves all (multi-query attention)."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return heads if groups == 1 else groups


def head_width(config: PreTrainedConfig) -> int:
    """Return the width of a head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def heads_follow_hidden_size(config: PreTrainedConfig) -> bool:
    """Return whether the architecture derives the width of a head from the hidden size, as BERT and GPT-2 do.

    Their heads and hidden size can only shrink together. The architecture itself is run without weights to find out.
    """
    kind: Any = type(config)
    return _heads_follow_hidden_size(kind, json.dumps(kind.from_dict(config.to_dict()).to_diff_dict(), sort_keys=True))


@cache
def _heads_follow_hidden_size(kind: Any, saved: str) -> bool:
    config: PreTrainedConfig = kind(**json.loads(saved))
    small, heads = _one_layer(config), config.num_attention_heads
    step = heads // head_groups(config)
    fewer = next((n for n in range(heads - step, 0, -step) if _is_possible(small, {HEADS: n})), None)
    if fewer is None:
        return heads * head_width(config) == config.hidden_size
    try:
        before, after = shapes_of(small), shapes_of(changed_config(small, {HEADS: fewer}))
    except ModelError:
        return True
    changed = [(a, b) for name in before for a, b in zip(before[name], after.get(name, ()), strict=False) if a != b]
    return not changed or any(b * heads != a * fewer for a, b in changed)


def width_options(config: PreTrainedConfig) -> dict[str, Sequence[int]]:
    """Return the sizes that a model of this config can be pruned to, ascending, the present ones included.

    Keys are those of `SIZES` that can shrink. `num_attention_heads` is left out where heads follow the hidden size
    (`heads_follow_hidden_size`). Sizes are independent, except that some architectures require a hidden size that is a
    multiple of the number of heads; `narrow_config` refuses the others.
    """
    sizes, options = sizes_of(config), dict[str, Sequence[int]]()
    if FEED_FORWARD in sizes:
        options[FEED_FORWARD] = range(1, sizes[FEED_FORWARD] + 1)
    if HEADS not in sizes or HIDDEN not in sizes:
        return options
    # an architecture without a feed-forward size derives it from the hidden size (BLOOM); a sentence encoder's modules
    # have widths that follow from it
    fixed = FEED_FORWARD not in sizes or hasattr(config, "sentence_modules")
    if heads_follow_hidden_size(config):
        return (
            options if fixed else options | {HIDDEN: range(head_width(config), sizes[HIDDEN] + 1, head_width(config))}
        )
    step = sizes[HEADS] // head_groups(config)
    options[HEADS] = [n for n in range(step, sizes[HEADS] + 1, step) if _is_possible(config, {HEADS: n})]
    if fixed:
        return options
    step = 1 if sizes[HIDDEN] > 1 and _is_possible(config, {HIDDEN: sizes[HIDDEN] - 1}) else sizes[HEADS]
    options[HIDDEN] = range(step, sizes[HIDDEN] + 1, step)
    return options


def narrow_config(
    config: PreTrainedConfig,
    *,
    intermediate_size: int | None = None,
    num_attention_heads: int | None = None,
    hidden_size: int | None = None,
) -> PreTrainedConfig:
    """Return the config of a model with these sizes, each None for the present one: the shape of a pruned model.

    A model of this config, with random weights, has the parameters and the latency of the pruned one. Raises
    `ModelError` for a size that the architecture cannot have; the message names the nearest ones that it can have.
    """
    given = {FEED_FORWARD: intermediate_size, HEADS: num_attention_heads, HIDDEN: hidden_size}
    wanted = {name: size for name, size in given.items() if size is not None}
    sizes, kind = sizes_of(config), config.model_type
    for name, size in wanted.items():
        if name not in sizes:
            raise ModelError(f"{flag(name)} {size} was given, and the config of a {kind} model has no such size.")
        if not 1 <= size <= sizes[name]:
            raise ModelError(f"{flag(name)} {size} was given; the model has {sizes[name]}: give 1 to {sizes[name]}.")
    if wanted.get(HIDDEN, sizes.get(HIDDEN)) != sizes.get(HIDDEN) and HIDDEN not in width_options(config):
        raise ModelError(
            f"--hidden-size {hidden_size} was given; the hidden size of this {kind} model cannot shrink, because other "
            "sizes follow from it: leave the option out."
        )
    if HEADS in wanted or HIDDEN in wanted:
        wanted = _check_attention(config, wanted)
    return changed_config(config, wanted)


def _check_attention(config: PreTrainedConfig, wanted: dict[str, int]) -> dict[str, int]:
    """Return the sizes with the number of heads that follows from them."""
    sizes, kind, width = sizes_of(config), config.model_type, head_width(config)
    if heads_follow_hidden_size(config):
        hidden = wanted.get(HIDDEN, sizes[HIDDEN])
        heads = wanted.get(HEADS, hidden // width)
        if hidden % width:
            near = _nearest(hidden, range(width, sizes[HIDDEN] + 1, width))
            raise ModelError(
                f"--hidden-size {hidden} was given; the attention of a {kind} model is as wide as its hidden size, and "
                f"its heads are {width} wide: give {near}."
            )
        if heads * width != hidden:
            raise ModelError(
                f"the attention of a {kind} model is as wide as its hidden size, and its heads are {width} wide, so "
                f"{heads} heads need --hidden-size {heads * width}, and --hidden-size {hidden} needs "
                f"{hidden // width} heads; give one of the two."
            )
        return wanted | {HEADS: heads}
    step = sizes[HEADS] // head_groups(config)
    heads = wanted.get(HEADS, sizes[HEADS])
    if heads % step:
        near = _nearest(heads, range(step, sizes[HEADS] + 1, step))
        raise ModelError(
            f"--num-attention-heads {heads} was given; each key and value head of this model serves {step} query "
            f"heads, which stay together: give {near}."
        )
    if HIDDEN in wanted and not _is_possible(config, wanted):
        near = _nearest(wanted[HIDDEN], range(heads, sizes[HIDDEN] + 1, heads))
        raise ModelError(
            f"--hidden-size {wanted[HIDDEN]} was given; a {kind} model of {heads} heads needs a multiple of {heads}: "
            f"give {near}."
        )
    return wanted


def _nearest(size: int, options: Sequence[int]) -> str:
    below, above = [o for o in options if o <= size][-1:], [o for o in options if o >= size][:1]
    return " or ".join(str(o) for o in dict.fromkeys(below + above))


def flag(name: str) -> str:
    """Return the command-line option of a size."""
    return f"--{name.replace('_', '-')}"


def changed_config(config: PreTrainedConfig, sizes: Mapping[str, int]) -> PreTrainedConfig:
    """Return the config with other sizes, as it is when it is loaded again from config.json.

    Sizes that the config leaves to be derived from the changed ones are set: GPT-2's feed-forward size, and the width
    of a head with a changed number of heads or hidden size. Raises `ModelError` if the architecture has no such config.
    """
    kind: Any = type(config)  # mypy considers it unhashable
    try:
        values = config.to_dict() | _changes(config, sizes)
        saved = json.dumps(kind.from_dict(values).to_diff_dict(), sort_keys=True)
        changed: PreTrainedConfig = kind(**json.loads(saved))
    except Exception as error:  # of any kind: code of the architecture, with values that nobody wrote
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ModelError(f"no {config.model_type} model can have {shown} ({reason_of(error)}).") from error
    changed._attn_implementation = config._attn_implementation  # not in config.json
    return changed


def _changes(config: PreTrainedConfig, sizes: Mapping[str, int]) -> dict[str, Any]:
    present, changes = sizes_of(config), dict[str, Any]()
    if FEED_FORWARD in present and (FEED_FORWARD in sizes or HIDDEN in sizes):
        changes[str(_feed_forward_name(config))] = sizes.get(FEED_FORWARD, present[FEED_FORWARD])
    if HEADS in sizes:
        changes[_name(config, HEADS)] = sizes[HEADS]
        if groups := getattr(config, "num_key_value_heads", None):
            fewer = groups * sizes[HEADS] // present[HEADS]
            changes[_name(config, "num_key_value_heads")] = max(fewer, 1)
    if HIDDEN in sizes:
        changes[_name(config, HIDDEN)] = sizes[HIDDEN]
        equal = [name for name in _WITH_HIDDEN if getattr(config, name, None) == present[HIDDEN]]
        changes |= dict.fromkeys(equal, sizes[HIDDEN])
    heads, hidden = (sizes.get(name, present.get(name, 0)) for name in (HEADS, HIDDEN))
    derived = isinstance(getattr(type(config), "head_dim", None), property)
    if not derived and ("head_dim" in config.to_dict() or (heads and heads * head_width(config) != hidden)):
        changes["head_dim"] = head_width(config)
    return changes


def _name(config: PreTrainedConfig, name: str) -> str:
    """Return the architecture's name of a size: GPT-2's hidden_size is n_embd."""
    return config.attribute_map.get(name, name)


def _feed_forward_name(config: PreTrainedConfig) -> str | None:
    return next((name for name in _FEED_FORWARD_NAMES if hasattr(config, name)), None)


def _is_possible(config: PreTrainedConfig, sizes: Mapping[str, int]) -> bool:
    try:
        changed_config(config, sizes)
    except ModelError:
        return False
    return True


def _one_layer(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config with its first layer only, which is faster to build, or the config if it has no such layer."""
    try:
        return truncate_config(config, (0,))
    except ModelError:
        return config


def shapes_of(config: PreTrainedConfig, model_class: Any = None) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights of a model of this config; none are allocated.

    model_class: of the model, by default the bare encoder or decoder. Raises `ModelError` if it cannot be built.
    """
    try:
        with silence_transformers(), torch.device("meta"):
            model = AutoModel.from_config(config) if model_class is None else model_class(config)
    except Exception as error:  # of any kind, as in `changed_config`
        raise ModelError(f"no {config.model_type} model has this shape ({reason_of(error)}).") from error
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
