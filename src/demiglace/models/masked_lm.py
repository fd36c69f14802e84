"""Compute language-model logits only at selected positions, instead of [B, L, V].

They are the masked positions of a masked language model, or any position but the first of a causal one.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.language_model import head_of, is_masked
from demiglace.models.loading import load_config, load_whole, resolve_model

# model type -> function that returns the module from hidden states to logits
_HEADS: dict[str, Callable[[Any], nn.Module]] = {
    "bert": lambda model: model.cls,
    "roberta": lambda model: model.lm_head,
    "xlm-roberta": lambda model: model.lm_head,
    "mpnet": lambda model: model.lm_head,
    "distilbert": lambda model: nn.Sequential(
        model.vocab_transform, nn.GELU(), model.vocab_layer_norm, model.vocab_projector
    ),
}


class SelectedPositionLM(nn.Module):
    """A transformer body with a language-model head; without a head, the transposed input embeddings (tied weights).

    causal: the body's state at position t depends only on the tokens up to t, so it predicts position t + 1. The
    predicted token is not an input, and needs no mask.
    """

    def __init__(self, body: Any, head: nn.Module | None, causal: bool = False):
        super().__init__()
        self.body: Any = body
        self.head = head
        self.causal = causal

    def forward(self, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
        """Return logits [M, V] at the M positions where bool [B, L] is true, row by row; not position 0 if causal."""
        states = self.body(**inputs).last_hidden_state
        hidden = states[positions.roll(-1, 1)] if self.causal else states[positions]
        if self.head is not None:
            logits: Tensor = self.head(hidden)
            return logits
        return F.linear(hidden, self.body.get_input_embeddings().weight)


def load_masked_lm(model: str) -> SelectedPositionLM:
    """Load a language model, causal or masked.

    Raises `ModelError` for other models, and for a masked language model of an unsupported type.
    """
    path = resolve_model(model)
    config = load_config(path)
    if not is_masked(config):
        loaded, _ = load_whole(AutoModelForCausalLM, path)
        return SelectedPositionLM(loaded.base_model, head_of(loaded), causal=True)
    kind = config.model_type
    if kind not in _HEADS:
        raise ModelError(
            f"{model} is a {kind} model; give a causal language model, or a masked one of type {', '.join(_HEADS)}."
        )
    loaded, _ = load_whole(AutoModelForMaskedLM, path)
    return SelectedPositionLM(loaded.base_model, _HEADS[kind](loaded))


def lm_with_tied_head(model: PreTrainedModel) -> SelectedPositionLM:
    """Return a language model, causal or masked, of a copy of a model's body, with its input embeddings as head.

    Raises `ModelError` if the embeddings and the hidden states differ in width.
    """
    width, hidden = model.get_input_embeddings().embedding_dim, model.config.hidden_size
    if width != hidden:
        raise ModelError(
            f"the teacher's embeddings are {width} wide and its hidden states {hidden}, so no generator can be made of "
            "it; give one with --method-options.generator."
        )
    return SelectedPositionLM(copy.deepcopy(model.base_model), None, causal=not is_masked(model.config))
