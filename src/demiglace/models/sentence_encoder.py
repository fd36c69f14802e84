"""A sentence encoder: an encoder of transformers with pooling, dense layers and normalization after it."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from demiglace.errors import ModelError
from demiglace.models.sentence_modules import Modules, embedding_width, poolings_of, write_modules

_KEYS = ("sentence_modules", "sentence_settings", "demiglace_task")  # of the config, beside those of the encoder
_SMALL = 1e-9  # smallest divisor of a mean


class SentenceEncoder(PreTrainedModel):
    """An encoder whose `logits` [B, D] are the embeddings of the rows' texts.

    It is a `PreTrainedModel`, so that it is truncated, trained and exported as any other. Its config is the encoder's
    with the modules in addition, so that a truncated config keeps them.
    """

    base_model_prefix = "encoder"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True  # as its encoder

    def __init__(self, config: PreTrainedConfig, encoder: PreTrainedModel | None = None):
        """Make the modules that the config describes. encoder: without one, a new one of random weights."""
        inner = _encoder_config(config)
        super().__init__(config)
        self.encoder = AutoModel.from_config(inner) if encoder is None else encoder
        self.encoder.config = _encoder_config(self.encoder.config)
        self.supports_gradient_checkpointing = self.encoder.supports_gradient_checkpointing
        self.config._attn_implementation = self.encoder.config._attn_implementation
        pooling, *others = config.sentence_modules
        self.poolings = poolings_of(pooling["config"])
        self.head = nn.Sequential(*map(_module, others))
        self.output_width = embedding_width(config.sentence_modules, config.hidden_size)
        if isinstance(pooler := getattr(self.encoder, "pooler", None), nn.Module):
            pooler.requires_grad_(False)  # BERT's, which is saved and not used

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Return the embeddings as `logits`, [B, D]."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **segments).last_hidden_state
        pooled = torch.cat([POOL[name](hidden, attention_mask) for name in self.poolings], dim=-1)
        return SequenceClassifierOutput(logits=self.head(pooled))

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's token embeddings."""
        return self.encoder.get_input_embeddings()

    def get_output_embeddings(self) -> None:
        """Return None: it is no language model."""

    def save_pretrained(self, save_directory: Any, *args: Any, **options: Any) -> None:
        """Write a directory that sentence-transformers reads."""
        directory = Path(save_directory)
        self.encoder.save_pretrained(directory, *args, **options)
        write_modules(self.config.sentence_modules, self.config.sentence_settings, directory)
        for number, module in enumerate(self.head, 2):
            if isinstance(module, _Dense):
                weights = {name: weight.contiguous() for name, weight in module.state_dict().items()}
                save_file(weights, directory / f"{number}_Dense" / "model.safetensors")


def describe_modules(config: PreTrainedConfig, modules: Modules, settings: Mapping[str, Any], task: str) -> None:
    """Set in an encoder's config which modules follow it, so that it is the config of a `SentenceEncoder`."""
    config.sentence_modules, config.sentence_settings, config.demiglace_task = modules, dict(settings), task


def load_dense(model: SentenceEncoder, directory: Path, *, allow_pickle: bool) -> None:
    """Load the weights of the dense layers from a directory of sentence-transformers.

    Raises `ModelError` for missing, damaged or, unless allowed, pickled weights.
    """
    for entry, module in zip(model.config.sentence_modules[1:], model.head, strict=True):
        if isinstance(module, _Dense) and "path" in entry:  # a new one has none
            folder = directory / entry["path"]
            try:
                module.load_state_dict(_weights(folder, allow_pickle))
            except (OSError, RuntimeError, ValueError) as error:
                raise ModelError(f"{folder}: the weights of the dense layer cannot be read ({error}).") from error


def _weights(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    if (folder / "model.safetensors").is_file():
        return load_file(folder / "model.safetensors")
    if not allow_pickle:
        raise ModelError(
            f"{folder} has no model.safetensors. If it has pickled weights, which can run any code when they are "
            "loaded, give --allow-pickle if you trust their origin."
        )
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def _encoder_config(config: PreTrainedConfig) -> PreTrainedConfig:
    inner = copy.deepcopy(config)
    for key in _KEYS:
        if key in inner.__dict__:
            delattr(inner, key)
    return inner


class _Dense(nn.Module):
    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
        self.activation = getattr(nn, str(config.get("activation_function", "Tanh")).rpartition(".")[2])()

    def forward(self, embedding: Tensor) -> Tensor:
        return self.activation(self.linear(embedding))


class _Normalize(nn.Module):
    def forward(self, embedding: Tensor) -> Tensor:
        return F.normalize(embedding, dim=-1)


def _module(entry: Mapping[str, Any]) -> nn.Module:
    return _Dense(entry["config"]) if entry["kind"] == "Dense" else _Normalize()


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    return _at(hidden, mask.to(torch.int32).argmax(dim=1))


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    return _at(hidden, mask.shape[1] - 1 - mask.flip(1).to(torch.int32).argmax(dim=1))


def _at(hidden: Tensor, index: Tensor) -> Tensor:
    return hidden.gather(1, index[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)


def _sum(hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the weighted states, and of the weights, in float32: mask [B, L] is any weight."""
    weights = mask[..., None].float()
    return (hidden.float() * weights).sum(1), weights.sum(1).clamp(min=_SMALL)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    total, count = _sum(hidden, mask)
    return total / count


def _mean_sqrt_len(hidden: Tensor, mask: Tensor) -> Tensor:
    total, count = _sum(hidden, mask)
    return total / count.sqrt()


def _weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean with the weights 1, 2, 3, … from the first real token on."""
    return _mean(hidden, mask.cumsum(1) * mask)


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask[..., None] == 0, -torch.inf).max(dim=1).values


# hidden states [B, L, d] and attention mask [B, L] to [B, d], under the names of sentence-transformers
POOL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
