"""Truncate a model: build a shallower model from some of its layers.

Embeddings, norms, pooler and head are copied. Which layers stay is a strategy of Li et al. 2021 (arXiv 2110.08460), a
list, or measured on text by `models.importance` or `models.greedy`. The ablations of that paper have the same shape and
random weights.

The authors' script defines `alternate`, `distil`, `bottom` and `top` for 6 of 12, 24, 36 or 48 layers of GPT-2. All
other sizes are extrapolated. From 24 layers on, the script skips layers between those that it keeps.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from demiglace.console import notice
from demiglace.errors import ConfigError, ModelError, unknown
from demiglace.models.layer_kinds import by_kind, layer_kinds, lost_kinds, number_of_layers, values_of_layers
from demiglace.models.layer_stack import layer_stack, named_stack
from demiglace.models.truncation_check import check_equal, misfit, reason_of

Keep = tuple[int, ...]

_DEEP = 24  # layers of the smallest model for which the authors' script leaves gaps


def alternate(n: int, m: int) -> Keep:
    """Return layers evenly spaced from the bottom, ⌊i·n/m⌋: 12 → 6 keeps 0 2 4 6 8 10, and 12 → 5 keeps 0 2 4 7 9."""
    return tuple(i * n // m for i in range(m))


def distil(n: int, m: int) -> Keep:
    """Return the layers of DistilGPT2's initialization: evenly spaced in both halves, with a larger gap in the middle.

    The lower half (one layer more if m is odd) is ⌊i·n/m⌋. The upper half is

    - ⌊i·n/m⌋ + 1 for n ≥ 24 and m ≤ n/2. Given for m = 6: 24 keeps 0 4 8 13 17 21, 36 keeps 0 6 12 19 25 31, and 48
      keeps 0 8 16 25 33 41.
    - the mirror image of the lower half otherwise, so that the last layer is kept. Given: 12 → 6 keeps 0 2 4 7 9 11.

    Both agree for m = n/2.
    """
    lower = (m + 1) // 2
    if n >= _DEEP and 2 * m <= n:
        return tuple(i * n // m + (i >= lower) for i in range(m))
    return tuple(i * n // m if i < lower else n - 1 - (m - 1 - i) * n // m for i in range(m))


def bottom(n: int, m: int) -> Keep:
    """Return m layers of the bottom half in equal steps from layer 0; the first m layers for n < 24 or m = n/2.

    The step is ⌊n/12⌋, or less if m layers do not fit into the half. Given for m = 6: 24 keeps 0 2 4 6 8 10, 36 keeps
    0 3 6 9 12 15, and 48 keeps 0 4 8 12 16 20.
    """
    return tuple(range(0, m * _step(n, m), _step(n, m)))


def top(n: int, m: int) -> Keep:
    """Return m layers of the top half in equal steps that end at the last layer; the last m for n < 24 or m = n/2.

    The step is that of `bottom`. Given for m = 6: 24 keeps 13 15 17 19 21 23, 36 keeps 20 23 26 29 32 35, and 48 keeps
    27 31 35 39 43 47.
    """
    return tuple(n - 1 - i for i in reversed(bottom(n, m)))


def _step(n: int, m: int) -> int:
    return max(1, min(n // 12, n // (2 * m)))


def first_middle_last(n: int, m: int) -> Keep:
    """Return the first layer, the one after the middle and the last one: 12 → 3 keeps 0 6 11.

    Raises `ModelError` unless m is 3.
    """
    if m != 3:
        raise ModelError(f"strategy first-middle-last keeps 3 layers, not {m}; give --layers 3 or another strategy.")
    return (0, n // 2, n - 1)


STRATEGIES: dict[str, Callable[[int, int], Keep]] = {
    "alternate": alternate,
    "distil": distil,
    "bottom": bottom,
    "top": top,
    "first-middle-last": first_middle_last,
    "by-kind": alternate,  # of each kind of layer; `layers_to_keep` knows the kinds
    "random": alternate,  # this one and the next use only the shape of these layers
    "embeddings": alternate,
}
ABLATIONS = ("random", "embeddings")
BY_KIND = "by-kind"
AUTO = "auto"  # chooses a strategy by the model and the available text
DATA_DRIVEN = ("block-influence", "greedy")  # strategies that measure layers on text


def layers_to_keep(strategy: str, num_layers: int, keep_count: int, kinds: Sequence[str] = ()) -> Keep:
    """Return the `keep_count` of `num_layers` layers that a strategy keeps, 0-based and ascending.

    kinds: of all layers, for by-kind and the ablations; none if all are of one kind. Raises `ConfigError` for an
    unknown strategy and `ModelError` for a number of layers that cannot be kept.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(unknown("strategy", strategy, STRATEGIES))
    check_count(keep_count, num_layers)
    if strategy in (BY_KIND, *ABLATIONS) and kinds:
        return by_kind(kinds, keep_count)
    return STRATEGIES[strategy](num_layers, keep_count)


def check_count(keep_count: int, num_layers: int) -> None:
    """Raise `ModelError` unless `keep_count` is between 1 and the number of layers of the model."""
    if not 1 <= keep_count <= num_layers:
        raise ModelError(
            f"{keep_count} layers were requested; the model has {num_layers}: give --layers 1 to {num_layers}."
        )


def check_keep(keep: Sequence[int], num_layers: int) -> None:
    """Raise `ModelError` unless `keep` is an ascending list of distinct layers of the model."""
    shown = ",".join(map(str, keep))
    if not keep:
        raise ModelError("no layer would be kept; give at least one.")
    if min(keep) < 0 or max(keep) >= num_layers:
        raise ModelError(f"layers {shown} were given; the layers of the model are 0 to {num_layers - 1}.")
    if list(keep) != sorted(set(keep)):
        raise ModelError(f"layers {shown} were given; give each layer once, in ascending order.")


def default_strategy(config: PreTrainedConfig) -> str:
    """Return the strategy of `auto` without text: by-kind for a model with several kinds of layers, else alternate."""
    return BY_KIND if len(set(layer_kinds(config))) > 1 else "alternate"


def choose_layers(
    config: PreTrainedConfig,
    layers: int | None,
    strategy: str,
    keep: Sequence[int] | None,
    *,
    all_by_default: bool = False,
) -> Keep:
    """Return the layers that --layers, --strategy and --keep select in a model of this config, 0-based and ascending.

    --keep overrides --strategy. all_by_default: return all layers if neither --layers nor --keep is given. For `auto`
    and the strategies of `DATA_DRIVEN`, return as many layers of the `default_strategy` instead: checks and cost
    estimates need a choice before anything is measured. Raises
    `ConfigError` if neither --layers nor --keep is given, if they disagree, or if --keep is given with a strategy that
    selects the layers itself; otherwise as `layers_to_keep` and `number_of_layers`.
    """
    if strategy in DATA_DRIVEN:
        if keep is not None:
            raise ConfigError(f"--strategy {strategy} selects the layers to keep; give --layers instead of --keep.")
        if layers is None:
            raise ConfigError(f"--strategy {strategy} needs --layers, the number of layers to keep.")
    num_layers = number_of_layers(config)
    if all_by_default and layers is None and keep is None:
        layers = num_layers
    if strategy in (AUTO, *DATA_DRIVEN):
        strategy = default_strategy(config)
    if keep is None:
        if layers is None:
            raise ConfigError("--layers (how many) or --keep (which ones) must be given.")
        return layers_to_keep(strategy, num_layers, layers, layer_kinds(config))
    if strategy in ABLATIONS:
        raise ConfigError(
            f"--strategy {strategy} keeps the weights of no layer, but --keep was given; give --layers instead."
        )
    if layers is not None and layers != len(keep):
        raise ConfigError(f"--layers {layers} and --keep {','.join(map(str, keep))} disagree; give one of them.")
    check_keep(keep, num_layers)
    return tuple(keep)


def truncate_model(model: PreTrainedModel, keep: Sequence[int], *, compare: bool = True) -> PreTrainedModel:
    """Return a new model of the same class with only the layers `keep`; all weights are copied.

    Dtype, device and training mode are kept. The new model computes what the given one computes without the dropped
    layers: `compare` runs both. Raises `ModelError` as `check_keep`, `layer_stack`, `check_fit` and `check_equal` do.
    """
    name, stack = named_stack(model)
    check_keep(keep, len(stack))
    check_fit(model, keep)
    with torch.random.fork_rng(devices=[]):  # all of its random weights are replaced
        student = build_truncated(model, keep)
    copy_weights(model, student, _kept_weights(model, name, keep))
    if compare:
        check_equal(model, student, keep)
    return student


def copy_weights(model: PreTrainedModel, student: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Fill a new model with weights of a model, and give it that model's dtype, device and modes."""
    nn.Module.to(student, model.device, model.dtype)
    student.train(model.training)
    student.load_state_dict(weights, strict=True)
    # whether its embedding is trained: `loading.unfreeze_padding_embedding`
    _input_embeddings(student).padding_idx = _input_embeddings(model).padding_idx
    if model.can_generate():
        student.generation_config = copy.deepcopy(model.generation_config)


def check_fit(model: PreTrainedModel, keep: Sequence[int]) -> PreTrainedModel:
    """Return the model of the layers `keep` without weights. Raises `ModelError` unless the kept weights fit it.

    The message names layers that do fit, if there are any.
    """
    fit, reason = _try_fit(model, keep)
    if fit is None:
        others = (by_kind(kinds_by_weights(model), len(keep)), bottom(len(layer_stack(model)), len(keep)))
        fitting = next((o for o in others if o != tuple(keep) and _try_fit(model, o)[0]), None)
        advice = (
            f"keep other layers, such as --keep {','.join(map(str, fitting))}"
            if fitting
            else f"models of type {model.config.model_type} cannot be truncated to {len(keep)} layers"
        )
        raise ModelError(f"{type(model).__name__} with only its layers {_shown(keep)}: {reason}; {advice}.")
    return fit


def _try_fit(model: PreTrainedModel, keep: Sequence[int]) -> tuple[PreTrainedModel | None, str]:
    """Return the model of the layers `keep` without weights, or None and the reason why the kept weights do not fit."""
    name = named_stack(model)[0]
    try:
        with torch.device("meta"):
            new = build_truncated(model, keep)
    except ModelError as error:
        return None, str(error)
    reason = misfit(_kept_weights(model, name, keep), new.state_dict(), name, keep)
    return (None if reason else new), reason


def build_truncated(model: PreTrainedModel, keep: Sequence[int]) -> PreTrainedModel:
    """Return a model of the config of these layers. Raises `ModelError` if the architecture cannot be built so."""
    config = truncate_config(model.config, keep)
    try:
        return type(model)(config)
    except Exception as error:  # of any kind, as in `truncate_config`
        raise ModelError(f"no {config.model_type} model can have these layers alone ({reason_of(error)})") from error


def kinds_by_weights(model: PreTrainedModel) -> list[str]:
    """Return a name for each layer that is equal for layers with weights of the same names and shapes."""
    return [str([(name, tuple(w.shape)) for name, w in layer.state_dict().items()]) for layer in layer_stack(model)]


def _shown(keep: Sequence[int]) -> str:
    return ",".join(map(str, keep))


def _input_embeddings(model: PreTrainedModel) -> Any:
    return model.get_input_embeddings()


def make_student(model: PreTrainedModel, keep: Sequence[int], strategy: str, seed: int) -> PreTrainedModel:
    """Return the student of a strategy, made of a model and the layers that the strategy selected.

    - random: the shape of `truncate_model`, with all weights initialized from `seed` as the architecture does.
    - embeddings: as random, but embeddings, positions, embedding norms, pooler and head are copied. The layers and the
      final norm (GPT-2's ln_f) have random weights, as in the authors' script.
    - others: `truncate_model`.

    A warning names kinds of layers of which none is kept. Raises `ModelError` as `truncate_model` does.
    """
    for kind, layers in lost_kinds(layer_kinds(model.config), keep).items():
        notice(
            "lost kind of layer",
            f"warning: no {kind} layer is kept; such layers are {_shown(layers)}. Keep some of them with --strategy "
            "by-kind or --keep.",
            layers=len(layers),
        )
    student = truncate_model(model, keep, compare=strategy not in ABLATIONS)
    if strategy in ABLATIONS:
        new = ("",) if strategy == "random" else _layers_and_final_norm(student)
        fresh = {k: w for k, w in _random_weights(student, seed).items() if k.startswith(new)}
        student.load_state_dict(fresh, strict=False)
    return student


def _layers_and_final_norm(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the name prefixes of the weights of the layers, and of the norm after the last layer, if there is one.

    The final norm is a norm in the same module as the stack of layers, such as transformer.ln_f beside transformer.h.
    Norms of embeddings in that module are left out: BLOOM's word_embeddings_layernorm and DeBERTa's LayerNorm.
    """
    stack, _ = named_stack(model)
    parent = stack.rpartition(".")[0]
    siblings = model.get_submodule(parent).named_children()
    norms = [
        name
        for name, module in siblings
        if "norm" in type(module).__name__.lower() and "embed" not in name and name != "LayerNorm"
    ]
    return (f"{stack}.", *(f"{parent}.{name}.".removeprefix(".") for name in norms))


def _random_weights(model: PreTrainedModel, seed: int) -> Mapping[str, torch.Tensor]:
    """Return the weights of a new model of the same config, initialized from `seed` in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new: PreTrainedModel = type(model)(truncate_config(model.config, range(model.config.num_hidden_layers)))
    return new.state_dict()


def _kept_weights(model: PreTrainedModel, stack: str, keep: Sequence[int]) -> dict[str, torch.Tensor]:
    """Return the state dict of the kept layers, renumbered from 0, and of all other modules."""
    new_number = {str(old): str(new) for new, old in enumerate(keep)}
    kept = {}
    for key, weight in model.state_dict().items():
        if key.startswith(stack + "."):
            old, _, rest = key.removeprefix(stack + ".").partition(".")
            if old not in new_number:
                continue
            key = f"{stack}.{new_number[old]}.{rest}"
        kept[key] = weight
    return kept


def truncate_config(config: PreTrainedConfig, keep: Sequence[int]) -> PreTrainedConfig:
    """Return the config of a model with only the layers `keep`, as it is when it is loaded again from config.json.

    What the config states of a layer stays with that layer (`layer_kinds.values_of_layers`). Raises `ModelError` if the
    architecture has no such config.
    """
    kind: Any = type(config)  # mypy considers it unhashable
    try:
        saved = json.dumps(kind.from_dict(values_of_layers(config, keep)).to_diff_dict(), sort_keys=True)
        truncated: PreTrainedConfig = kind(**json.loads(saved))
    except Exception as error:  # of any kind: code of the architecture, with values that nobody wrote
        raise ModelError(f"no {config.model_type} model can have these layers alone ({reason_of(error)})") from error
    truncated._attn_implementation = config._attn_implementation  # not in config.json
    return truncated
