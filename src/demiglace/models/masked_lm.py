"""Masked language models that predict at the places that are asked for alone, and not [B, L, V] for all."""

import copy
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.loading import load_config, load_whole, resolve_model

# model type -> what maps hidden states to logits
_HEADS: dict[str, Callable[[Any], nn.Module]] = {
    "bert": lambda model: model.cls,
    "roberta": lambda model: model.lm_head,
    "xlm-roberta": lambda model: model.lm_head,
    "distilbert": lambda model: nn.Sequential(
        model.vocab_transform, nn.GELU(), model.vocab_layer_norm, model.vocab_projector
    ),
}


class MaskedLM(nn.Module):
    """A body and a head; without a head, its own input embeddings turned round."""

    def __init__(self, body: Any, head: nn.Module | None):
        super().__init__()
        self.body: Any = body
        self.head = head

    def forward(self, inputs: dict[str, Tensor], places: Tensor) -> Tensor:
        """Logits [M, V] at the M places where bool [B, L] is true, in reading order."""
        hidden = self.body(**inputs).last_hidden_state[places]
        if self.head is not None:
            logits: Tensor = self.head(hidden)
            return logits
        return F.linear(hidden, self.body.get_input_embeddings().weight)


def load_masked_lm(model: str) -> MaskedLM:
    """A masked language model from a checkpoint. Raises `ModelError` where it is none, or of a type not known here."""
    path = resolve_model(model)
    kind = load_config(path).model_type
    if kind not in _HEADS:
        raise ModelError(f"{model} is a {kind} model; a generator is one of {', '.join(_HEADS)}.")
    loaded = load_whole(AutoModelForMaskedLM, path)
    return MaskedLM(loaded.base_model, _HEADS[kind](loaded))


def tied_masked_lm(model: PreTrainedModel) -> MaskedLM:
    """A masked language model of a copy of another model's body, its embeddings being its output layer."""
    return MaskedLM(copy.deepcopy(model.base_model), None)
