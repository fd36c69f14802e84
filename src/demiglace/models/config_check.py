"""Check a config.json before transformers reads it: sizes that no model has would take minutes, or all memory."""

import json
from pathlib import Path
from typing import Any

from demiglace.errors import ModelError

_MOST_BYTES = 50_000_000  # a million labels
_MOST_PARAMETERS = 10**13
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_LIMITS = {
    **dict.fromkeys(_LAYERS, 2_000),
    **dict.fromkeys(_WIDTHS, 200_000),
    **dict.fromkeys(_HEADS, 20_000),
    "num_key_value_heads": 20_000,
    "intermediate_size": 5_000_000,
    "vocab_size": 50_000_000,
    "max_position_embeddings": 1_000_000_000,
    "type_vocab_size": 1_000_000,
    "num_labels": 10_000_000,
}
_MAY_BE_ZERO = ("type_vocab_size",)
_WITHOUT_LAYERS = ("demiglace-static",)  # model types


def check_config_file(file: Path) -> None:
    """Raise `ModelError` for a config.json that is damaged, or whose values no model can have.

    Sizes must be integers within generous bounds, the padding token must be in the vocabulary, and labels must be a
    mapping. Fields that are missing or null are left to transformers.
    """
    if (size := file.stat().st_size) > _MOST_BYTES:
        raise _unusable(file, f"it has {size:,} bytes")
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _unusable(file, "it is nested too deeply" if isinstance(error, RecursionError) else str(error)) from error
    if not isinstance(config, dict):
        raise _unusable(file, "it holds no object")
    no_layers = config.get("model_type") in _WITHOUT_LAYERS
    for name, most in _LIMITS.items():
        value, least = config.get(name), 0 if name in _MAY_BE_ZERO or (no_layers and name in _LAYERS) else 1
        numbers: list[Any] = value if isinstance(value, list) else [value]  # some models have one value a layer
        if value is not None and not all(_is_integer(n) and least <= n <= most for n in numbers):
            raise _unusable(file, f"{name} is {_shown(value)}; expected an integer from {least} to {most:,}")
    layers, width = (next((config[n] for n in names if _is_integer(config.get(n))), 1) for names in (_LAYERS, _WIDTHS))
    if layers * width * (4 * width + 2 * _largest(config.get("intermediate_size"))) > _MOST_PARAMETERS:
        raise _unusable(file, f"{layers:,} layers of width {width:,} have more parameters than any model")
    pad: Any = config.get("pad_token_id")
    vocabulary: Any = config.get("vocab_size")
    if _is_integer(pad) and _is_integer(vocabulary) and pad >= vocabulary:
        raise _unusable(file, f"pad_token_id is {pad:,}, and there are {vocabulary:,} tokens")
    for name in ("id2label", "label2id"):
        if not isinstance(config.get(name), (dict, type(None))):
            raise _unusable(file, f"{name} is {_shown(config[name])}; expected a mapping")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _largest(value: Any) -> int:
    return max((n for n in (value if isinstance(value, list) else [value]) if _is_integer(n)), default=0)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _unusable(file: Path, reason: str) -> ModelError:
    return ModelError(f"{file} is no config of a model: {reason}. Copy or download the model again.")
