"""Language models, causal and masked: loading and making them, and their outputs without [B, L, V] logits."""

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

from demiglace.console import say
from demiglace.errors import ConfigError, ModelError
from demiglace.models.files import LOAD_ERRORS, load_config, resolve_model
from demiglace.models.loading import load_whole, seeded, set_dropout, silence_transformers
from demiglace.models.shape import CAUSAL_NAMES, unused_positions
from demiglace.models.tokenizer import check_ids, load_text_tokenizer
from demiglace.models.truncate import truncate_config
from demiglace.runs.processes import processes


@dataclass(frozen=True)
class HeadInput:
    """What a language model's head makes logits from: hidden [..., d], weight [V, d], bias [V] or none."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None

    def at(self, places: Tensor | None) -> "HeadInput":
        """One token after another, hidden [N, d]: of all places [B, L], or of these in each row, int64 [B, K]."""
        hidden = self.hidden
        if places is not None:
            hidden = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
        return HeadInput(hidden.flatten(0, -2), self.weight, self.bias)


def head_of(model: PreTrainedModel) -> nn.Linear | None:
    """The layer that makes a language model's logits; none for a model that is no language model."""
    head: Any = model.get_output_embeddings()
    return head if isinstance(head, nn.Linear) else None


@contextmanager
def head_input(model: PreTrainedModel) -> Iterator[list[HeadInput]]:
    """Inside, a language model's forward puts what its head is given into the list, and makes no logits."""
    head, found = head_of(model), list[HeadInput]()
    assert head is not None

    def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        found.append(HeadInput(args[0], head.weight, head.bias))
        return (args[0][:, :0],)  # no token is left to make logits of

    handle = head.register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def is_masked(config: PreTrainedConfig) -> bool:
    """Whether a model is a masked language model and not a causal one, by its class, else by its architecture.

    Raises `ModelError` for an architecture that has neither.
    """
    named = (config.architectures or [""])[0]
    if named.endswith("ForMaskedLM"):
        return True
    if named.endswith(CAUSAL_NAMES):
        return False
    kind = type(config)
    if kind in MODEL_FOR_MASKED_LM_MAPPING:
        return True
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        return False
    raise ModelError(f"a {config.model_type} model cannot be a language model in transformers.")


def language_config(model: str, dropout: float | None = None) -> PreTrainedConfig:
    """The config of a language model, its dropout set where one is given. Raises `ModelError` as `is_masked` does."""
    config = load_config(resolve_model(model))
    is_masked(config)
    if dropout is not None:
        set_dropout(config, dropout)
    return config


def load_language_model(
    model: str, *, dropout: float | None = None, attention: str = "sdpa", allow_pickle: bool = False, seed: int = 0
) -> PreTrainedModel:
    """A causal or masked language model in fp32 and eval mode, its dropout set where one is given.

    An encoder without a masked head gets a new one, drawn from `seed`, and the user is told. Raises `ModelError` for
    what `load_whole` refuses, and for a model whose logits are not its head's alone.
    """
    path, config = resolve_model(model), language_config(model, dropout)
    masked = is_masked(config)
    with seeded(seed):
        loaded, is_new = load_whole(
            language_class(config), path, config, attention=attention, allow_pickle=allow_pickle, new_head=masked
        )
    if is_new:
        say("The head of the masked language model is new: the model has none.")
    return checked(loaded, path)


def language_class(config: PreTrainedConfig) -> Any:
    """The class that makes language models of a config."""
    return AutoModelForMaskedLM if is_masked(config) else AutoModelForCausalLM


def new_language_config(
    architecture: str,
    tokenizer: PreTrainedTokenizerBase,
    sizes: dict[str, int | None],
    *,
    positions: int,
    dropout: float | None = None,
) -> PreTrainedConfig:
    """The config of a new language model of a kind (gpt2, llama, bert, …) or after another model's.

    sizes: hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, those of them that are not none;
    heads are 64 wide and the intermediate size is 4 · d where d is given and they are not. The vocabulary is the
    tokenizer's. positions: the longest row, at least. Raises `ConfigError` for sizes that do not go together, and
    `ModelError` as `is_masked` does and for a tokenizer whose padding the architecture cannot do with.
    """
    config = _set_config_sizes(_config_named(architecture), sizes, positions)
    is_masked(config)
    config.vocab_size = len(tokenizer)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    if dropout is not None:
        set_dropout(config, dropout)
    own = _own_padding(tokenizer)
    config.pad_token_id = own or 0
    with torch.device("meta"):
        unused = unused_positions(_made(truncate_config(config, (0,)), architecture))
    if unused and own is None:
        raise ModelError(
            f"--architecture {architecture} tells positions by the padding token, and the tokenizer has none, or one "
            "that is another token too; train one with `demiglace tokenizer train --mask-token`, or take another kind "
            "of model."
        )
    config.pad_token_id = own
    return _set_config_sizes(config, {}, positions + unused)


def _own_padding(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The padding token, if it is no other one too: its embedding stays zero, and that of an end of text must learn."""
    others = ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "unk_token_id")
    pad: int | None = tokenizer.pad_token_id
    return None if pad in [getattr(tokenizer, name) for name in others] else pad


def new_language_model(
    config: PreTrainedConfig, name: str, *, attention: str = "sdpa", seed: int = 0
) -> PreTrainedModel:
    """A language model of a config, with weights drawn from `seed`; name: what the config was made after.

    Raises `ConfigError` for sizes that do not go together.
    """
    with seeded(seed):
        model = _made(config, name, attention)
    return checked(model.eval(), name)


def _made(config: PreTrainedConfig, name: str, attention: str = "sdpa") -> PreTrainedModel:
    kernel = None if attention == "sdpa" else attention
    try:
        with silence_transformers():
            model: PreTrainedModel = language_class(config).from_config(
                config, attn_implementation=kernel, dtype=torch.float32, trust_remote_code=False
            )
    except LOAD_ERRORS as error:
        raise ConfigError(f"no model can be made of {name} in these sizes: {' '.join(str(error).split())}") from error
    return model


def _config_named(architecture: str) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.for_model(architecture)
    except ValueError:
        config = load_config(resolve_model(architecture))
    return config


def _set_config_sizes(config: PreTrainedConfig, sizes: dict[str, int | None], positions: int) -> PreTrainedConfig:
    """The config in these sizes, whatever it calls them."""
    given = {name: size for name, size in sizes.items() if size is not None}
    if "hidden_size" in given:
        width = given["hidden_size"]
        given.setdefault("num_attention_heads", max(1, width // 64))
        given.setdefault("intermediate_size", 4 * width)
        if width % given["num_attention_heads"]:
            raise ConfigError(
                f"--hidden-size {width} cannot be shared out among {given['num_attention_heads']} heads; give "
                "--num-heads a divisor of it."
            )
    values = config.to_dict()
    if "num_attention_heads" in given:  # of which Llama's kin have more to say
        heads, width = given["num_attention_heads"], given.get("hidden_size", config.hidden_size)
        more = {"num_key_value_heads": heads, "head_dim": width // heads}
        given |= {name: size for name, size in more.items() if name in values}
    if "num_hidden_layers" in given:
        values.pop("layer_types", None)  # a word for each layer, made anew
    if (getattr(config, "max_position_embeddings", None) or positions) < positions:
        given["max_position_embeddings"] = positions
    names = {"intermediate_size": "n_inner"} if "n_inner" in values else {}
    for name, size in given.items():
        values[config.attribute_map.get(name, names.get(name, name))] = size
    try:
        return type(config).from_dict(values)
    except LOAD_ERRORS as error:
        kind, fault = config.model_type, " ".join(str(error).split())
        raise ConfigError(f"no {kind} model can be made in these sizes: {fault}") from error


def checked(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """The model, if its logits are what its head makes of its hidden states; else `ModelError`.

    Some models cap or scale their logits behind the head, which the losses, reading the head's input, would not see.
    """
    head = head_of(model)
    if head is None:
        raise ModelError(f"{name} is a {type(model).__name__}, which has no head of a language model.")
    ids = torch.arange(4, device=model.device)[None] % model.config.vocab_size
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        logits = model(**inputs).logits
        with head_input(model) as found:
            model(**inputs)
        same = torch.allclose(logits, head(found[0].hidden), rtol=1e-3, atol=1e-3)
    if not same:
        raise ModelError(
            f"{name} is a {type(model).__name__}, which changes its logits behind the head; that is not supported."
        )
    return model


def load_causal(name: str, allow_pickle: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, in fp32 on its device, and its tokenizer. Raises `ModelError` for a masked language model."""
    tokenizer = load_text_tokenizer(name)
    model = load_language_model(name, allow_pickle=allow_pickle)
    if is_masked(model.config):
        raise ModelError(
            f"{name} is a masked language model, which fills gaps; text is written, and its perplexity measured, by "
            "causal ones."
        )
    check_ids(model, tokenizer)
    model.to(processes().device)  # type: ignore[arg-type] # its decorator
    return model, tokenizer
