"""Language models, causal and masked: load or create them, and run them without computing [B, L, V] logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from demiglace.console import notice
from demiglace.errors import ConfigError, ModelError
from demiglace.models.files import load_config, resolve_model
from demiglace.models.library import LOAD_ERRORS, silence_transformers
from demiglace.models.loading import load_whole, seeded, set_dropout
from demiglace.models.shape import CAUSAL_NAMES, unused_positions
from demiglace.models.tokenizer import check_ids, load_text_tokenizer
from demiglace.models.truncate import truncate_config
from demiglace.runs.processes import processes


@dataclass(frozen=True)
class HeadInput:
    """The input of a language-model head, and the head's parameters; the logits are hidden · weightᵀ + bias."""

    hidden: Tensor  # [..., d]
    weight: Tensor  # [V, d]
    bias: Tensor | None  # [V]

    def at(self, positions: Tensor | None) -> "HeadInput":
        """Return hidden states [N, d] of all positions [B, L], or of these positions of each row, int64 [B, K]."""
        hidden = self.hidden
        if positions is not None:
            hidden = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
        return HeadInput(hidden.flatten(0, -2), self.weight, self.bias)


def head_of(model: PreTrainedModel) -> nn.Linear | None:
    """Return the head of a language model, the linear layer that computes its logits; None for other models."""
    head: Any = model.get_output_embeddings()
    return head if isinstance(head, nn.Linear) else None


@contextmanager
def head_input(model: PreTrainedModel) -> Iterator[list[HeadInput]]:
    """Capture the head's input instead of computing logits: inside, each forward pass appends to the yielded list."""
    head, inputs = head_of(model), list[HeadInput]()
    assert head is not None

    def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        inputs.append(HeadInput(args[0], head.weight, head.bias))
        return (args[0][:, :0],)  # the head then computes the logits of no token

    handle = head.register_forward_pre_hook(keep)
    try:
        yield inputs
    finally:
        handle.remove()


def is_masked(config: PreTrainedConfig) -> bool:
    """Return whether a model is a masked, not a causal, language model, by its class or else by its architecture.

    Raises `ModelError` for an architecture that has neither.
    """
    class_name = (config.architectures or [""])[0]
    if class_name.endswith("ForMaskedLM"):
        return True
    if class_name.endswith(CAUSAL_NAMES):
        return False
    kind = type(config)
    if kind in MODEL_FOR_MASKED_LM_MAPPING:
        return True
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        return False
    raise ModelError(
        f"transformers has no language model of type {config.model_type}; use a causal or masked language model."
    )


def is_language_model(config: PreTrainedConfig) -> bool:
    """Return whether the class named in a config is a causal or masked language model."""
    return (config.architectures or [""])[0].endswith(("ForMaskedLM", *CAUSAL_NAMES))


def language_config(model: str, dropout: float | None = None) -> PreTrainedConfig:
    """Return the config of a language model, with this dropout if given. Raises `ModelError` as `is_masked` does."""
    config = load_config(resolve_model(model))
    is_masked(config)
    if dropout is not None:
        set_dropout(config, dropout)
    return config


def load_language_model(
    model: str, *, dropout: float | None = None, attention: str = "sdpa", allow_pickle: bool = False, seed: int = 0
) -> PreTrainedModel:
    """Load a causal or masked language model in fp32 and eval mode, with this dropout if given.

    An encoder without a masked-language-model head gets a new one, initialized from `seed`, which is printed. Raises
    `ModelError` as `load_whole` does, and for a model that changes the logits of its head.
    """
    return load_with_head(model, dropout, attention, allow_pickle, seed)[0]


def load_with_head(
    model: str, dropout: float | None = None, attention: str = "sdpa", allow_pickle: bool = False, seed: int = 0
) -> tuple[PreTrainedModel, bool]:
    """Return what `load_language_model` does, and whether the head is new."""
    path, config = resolve_model(model), language_config(model, dropout)
    masked = is_masked(config)
    with seeded(seed):
        loaded, is_new = load_whole(
            language_class(config), path, config, attention=attention, allow_pickle=allow_pickle, new_head=masked
        )
    if is_new:
        notice("new head", f"{path} has no masked-language-model head; a new one was initialized.")
    elif kind := next((a for a in config.architectures or () if a.endswith("Classification")), None):
        notice("classifier", f"warning: {path} is a {kind}; a classifier's body predicts tokens badly.")
    return check_head(loaded, path), is_new


def language_class(config: PreTrainedConfig) -> Any:
    """Return the Auto class of the language models of a config."""
    return AutoModelForMaskedLM if is_masked(config) else AutoModelForCausalLM


def new_language_config(
    architecture: str,
    tokenizer: PreTrainedTokenizerBase,
    sizes: dict[str, int | None],
    *,
    positions: int,
    dropout: float | None = None,
) -> PreTrainedConfig:
    """Return the config of a new language model of a type (gpt2, llama, bert, …) or with another model's architecture.

    sizes: hidden_size, num_hidden_layers, num_attention_heads and intermediate_size; None keeps the default. If only
    the hidden size d is given, heads are 64 wide and the intermediate size is 4 · d. The vocabulary is that of the
    tokenizer. positions: at least so many tokens in a row. Raises `ConfigError` for incompatible sizes, and
    `ModelError` as `is_masked` does and for a tokenizer without the padding token that the architecture needs.
    """
    config = _set_config_sizes(_config_named(architecture), sizes, positions)
    is_masked(config)
    config.vocab_size = len(tokenizer)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    if dropout is not None:
        set_dropout(config, dropout)
    pad_token_id = _dedicated_pad_token_id(tokenizer)
    config.pad_token_id = pad_token_id or 0
    with torch.device("meta"):
        unused = unused_positions(_build(truncate_config(config, (0,)), architecture))
    if unused and pad_token_id is None:
        raise ModelError(
            f"--architecture {architecture} numbers positions from the padding token, and the tokenizer has none, or "
            "one with another role; train one with `demiglace tokenizer train --mask-token`, or give another model "
            "type."
        )
    config.pad_token_id = pad_token_id
    return _set_config_sizes(config, {}, positions + unused)


def _dedicated_pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the padding token, None if it has another role: the embedding of a padding token is not trained."""
    others = ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "unk_token_id")
    pad: int | None = tokenizer.pad_token_id
    return None if pad in [getattr(tokenizer, name) for name in others] else pad


def new_language_model(
    config: PreTrainedConfig, name: str, *, attention: str = "sdpa", seed: int = 0
) -> PreTrainedModel:
    """Return a language model of a config, with weights initialized from `seed`; name: of the config, for messages.

    Raises `ConfigError` for incompatible sizes, and `ModelError` as `check_head` does.
    """
    with seeded(seed):
        model = _build(config, name, attention)
    return check_head(model.eval(), name)


def _build(config: PreTrainedConfig, name: str, attention: str = "sdpa") -> PreTrainedModel:
    kernel = None if attention == "sdpa" else attention
    try:
        with silence_transformers():
            model: PreTrainedModel = language_class(config).from_config(
                config, attn_implementation=kernel, dtype=torch.float32, trust_remote_code=False
            )
    except LOAD_ERRORS as error:
        raise ConfigError(f"no model of type {name} can have these sizes: {' '.join(str(error).split())}") from error
    return model


def _config_named(architecture: str) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.for_model(architecture)
    except ValueError:
        config = load_config(resolve_model(architecture))
    return config


def _set_config_sizes(config: PreTrainedConfig, sizes: dict[str, int | None], positions: int) -> PreTrainedConfig:
    """Return the config with these sizes, whatever it names them. Raises `ConfigError` for incompatible ones."""
    given = {name: size for name, size in sizes.items() if size is not None}
    if "hidden_size" in given:
        width = given["hidden_size"]
        given.setdefault("num_attention_heads", max(1, width // 64))
        given.setdefault("intermediate_size", 4 * width)
        if width % given["num_attention_heads"]:
            raise ConfigError(
                f"--hidden-size {width} cannot be divided into {given['num_attention_heads']} heads; give --num-heads "
                "a divisor."
            )
    values = config.to_dict()
    if "num_attention_heads" in given:  # configs like Llama's have further fields for it
        heads, width = given["num_attention_heads"], given.get("hidden_size", config.hidden_size)
        derived = {"num_key_value_heads": heads, "head_dim": width // heads}
        given |= {name: size for name, size in derived.items() if name in values}
    if "num_hidden_layers" in given:
        values.pop("layer_types", None)  # has one entry for each layer; transformers fills it
    if (getattr(config, "max_position_embeddings", None) or positions) < positions:
        given["max_position_embeddings"] = positions
    names = {"intermediate_size": "n_inner"} if "n_inner" in values else {}
    for name, size in given.items():
        values[config.attribute_map.get(name, names.get(name, name))] = size
    try:
        return type(config).from_dict(values)
    except LOAD_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"no {config.model_type} model can have these sizes: {reason}") from error


_ENLARGED = 1e3


def check_head(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """Return the model. Raises `ModelError` unless its logits are the output of its head.

    Some models cap or scale the logits after the head. The losses use the head's input and would not see that. A cap
    hardly changes the small logits of a new model, so the head's output is enlarged for the comparison.
    """
    head = head_of(model)
    if head is None:
        raise ModelError(f"{name} is a {type(model).__name__}, which has no language-model head; use a language model.")
    ids = torch.arange(4, device=model.device)[None] % model.config.vocab_size
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        with head_input(model) as captured:
            model(**inputs)
        expected = head(captured[0].hidden)
        handle = head.register_forward_hook(lambda _module, _args, output: _ENLARGED * output)
        try:
            logits = model(**inputs).logits / _ENLARGED
        finally:
            handle.remove()
        is_equal = torch.allclose(logits, expected, rtol=1e-3, atol=1e-3)
    if not is_equal:
        raise ModelError(
            f"{name} is a {type(model).__name__}, which changes the logits of its head; that is not supported."
        )
    return model


def load_causal(name: str, allow_pickle: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model in fp32 on this process's device, and its tokenizer.

    Raises `ModelError` for a masked language model.
    """
    tokenizer = load_text_tokenizer(name)
    model = load_language_model(name, allow_pickle=allow_pickle)
    if is_masked(model.config):
        raise ModelError(
            f"{name} is a masked language model; generating text and measuring perplexity need a causal one, such as a "
            "GPT-2 or Llama."
        )
    check_ids(model, tokenizer)
    model.to(processes().device)  # type: ignore[arg-type] # its decorator
    return model, tokenizer
