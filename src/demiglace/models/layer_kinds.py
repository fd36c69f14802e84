"""Kinds of layers: what a config states of each layer, and the layers that keep the pattern of kinds.

Gemma 3 has five layers with a sliding window for each one that attends to all tokens; hybrids mix attention with
recurrent layers, and other models have layers with and without experts. Configs state this in lists with one entry for
each layer, in lists of layer numbers, as the number of first layers of a kind, or as a period.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from transformers import PreTrainedConfig

from demiglace.errors import ModelError

# parts of the names of lists with one entry for each layer; other lists have that length by chance (pos_att_type)
_LISTS = (
    "layer",
    "attention_window",
    "activation_sparsity_pattern",
    "indexer_types",
    "intermediate_size",
    "kv_sharing_modes",
    "moe_topk",
    "num_experts",
    "swiglu_limits",
)
_NUMBERS = ("mlp_only_layers", "moe_layers", "rope_scaling_layers")  # lists of the numbers of the layers of a kind
_FIRST = ("first_k_dense_replace", "num_dense_layers")  # how many of the first layers are of a kind
# layers of a kind: each `period` layers, from `offset`
_PERIODS = (("attn_layer_period", "attn_layer_offset"), ("expert_layer_period", "expert_layer_offset"))
_COMPUTED = ("layer_types", "layers_num_experts")  # properties that some configs compute from other fields


def number_of_layers(config: PreTrainedConfig) -> int:
    """Return the number of layers of a config. Raises `ModelError` for an architecture without such a number."""
    count: int | None = getattr(config, "num_hidden_layers", None)  # some configs of transformers lack it
    if not count:  # a static model has none
        raise ModelError(
            f"{config.name_or_path or 'the model'} is a {config.model_type} model, which has no single stack of layers "
            "to truncate; take a model of another architecture."
        )
    return count


def layer_kinds(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the kind of each layer, such as ``sliding_attention``; equal names if the config knows one kind only.

    Raises `ModelError` as `number_of_layers` does.
    """
    columns = list(_columns(config))
    kinds = list(zip(*columns, strict=True)) if columns else [()] * number_of_layers(config)
    return tuple(", ".join(dict.fromkeys(kind)) for kind in kinds)


def _columns(config: PreTrainedConfig) -> Iterator[list[str]]:
    """Yield what each property that differs between layers is for each layer."""
    count, values = number_of_layers(config), config.to_dict()
    values |= {name: getattr(config, name, None) for name in _COMPUTED}
    for name, value in values.items():
        if name in _NUMBERS:
            column: list[Hashable] = [i in (value or ()) for i in range(count)]
        elif name in _FIRST:
            column = [i < (value or 0) for i in range(count)]
        elif _is_by_layer(name, value, count) and all(isinstance(v, (str, int, float)) for v in value):
            column = list(value)
        else:
            continue
        numeric = not any(isinstance(v, str) for v in column)
        # numbers that differ in most layers, such as windows that grow, are sizes and not kinds
        if 1 < len(set(column)) <= (max(2, count // 2) if numeric else count):
            yield [str(v) if isinstance(v, str) else f"{name}: {v}" for v in column]


def _is_by_layer(name: str, value: Any, count: int) -> bool:
    named = name not in _NUMBERS and any(part in name for part in _LISTS)
    return named and isinstance(value, (list, tuple)) and len(value) == count


def by_kind(kinds: Sequence[str], keep_count: int) -> tuple[int, ...]:
    """Return `keep_count` layers, ascending: of each kind its share, evenly spaced from the first one of the kind.

    Shares are rounded by largest remainder. Each kind keeps at least one layer if there are as many layers to keep as
    kinds; otherwise the most frequent kinds are kept. With one kind this is ⌊i·n/m⌋, as `alternate`.
    """
    shares, keep = _shares(Counter(kinds), keep_count), []
    for kind, share in shares.items():
        layers = [i for i, k in enumerate(kinds) if k == kind]
        keep += [layers[i * len(layers) // share] for i in range(share)]
    return tuple(sorted(keep))


def _shares(counts: Counter[str], total: int) -> dict[str, int]:
    kept = dict(counts.most_common(total))
    exact = {kind: total * count / sum(kept.values()) for kind, count in kept.items()}
    shares = {kind: max(1, int(share)) for kind, share in exact.items()}
    while (missing := total - sum(shares.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [kind for kind in shares if (shares[kind] < kept[kind] if step > 0 else shares[kind] > 1)]
        shares[max(movable, key=lambda kind: step * (exact[kind] - shares[kind]))] += step
    return shares


def lost_kinds(kinds: Sequence[str], keep: Sequence[int]) -> dict[str, list[int]]:
    """Return the kinds of which no layer is kept, with their layers."""
    kept = {kinds[i] for i in keep}
    return {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in dict.fromkeys(kinds) if kind not in kept}


def values_of_layers(config: PreTrainedConfig, keep: Sequence[int]) -> dict[str, Any]:
    """Return the config's values for a model with only the layers `keep`; what it states of a layer stays with it."""
    count, values = config.num_hidden_layers, config.to_dict()
    for name, value in values.items():
        if name in _NUMBERS and value is not None:
            values[name] = [new for new, old in enumerate(keep) if old in value]
        elif name in _FIRST and value is not None:
            values[name] = sum(old < value for old in keep)
        elif _is_by_layer(name, value, count):
            values[name] = [value[i] for i in keep]
    for period, offset in _PERIODS:
        if period in values:
            of_kind = [i % values[period] == values[offset] for i in keep]
            values[period], values[offset] = _period(of_kind) or (values[period], values[offset])
    if "attention_types" in values:  # GPT-Neo's list of [kinds, repetitions]; `attention_layers` is the same in full
        values["attention_types"] = [[values["attention_layers"], 1]]
    if pattern := values.get("block_types"):  # RecurrentGemma repeats this list
        values["block_types"] = [pattern[i % len(pattern)] for i in keep]
    values[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(keep)
    return values


def _period(of_kind: Sequence[bool]) -> tuple[int, int] | None:
    """Return the period and offset of the layers of a kind, None if they have none."""
    count = len(of_kind)
    for period in range(1, count + 2):
        for offset in range(period):
            if [i % period == offset for i in range(count)] == list(of_kind):
                return period, offset
    return None
