"""Language models that predict at the places that are asked for alone, and not [B, L, V] for all: those that a
masked language model sees masked, or, by a causal one, any from the tokens before it.
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

# model type -> what maps hidden states to logits
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
    """A body and a head; without a head, its own input embeddings turned round.

    causal: the body's state at place t has seen the tokens up to t alone, and so predicts place t + 1. It is never
    shown what it predicts, and needs no mask there.
    """

    def __init__(self, body: Any, head: nn.Module | None, causal: bool = False):
        super().__init__()
        self.body: Any = body
        self.head = head
        self.causal = causal

    def forward(self, inputs: dict[str, Tensor], places: Tensor) -> Tensor:
        """Logits [M, V] at the M places where bool [B, L] is true, in reading order; of a causal body never place 0."""
        states = self.body(**inputs).last_hidden_state
        hidden = states[places.roll(-1, 1)] if self.causal else states[places]
        if self.head is not None:
            logits: Tensor = self.head(hidden)
            return logits
        return F.linear(hidden, self.body.get_input_embeddings().weight)


def load_masked_lm(model: str) -> SelectedPositionLM:
    """A language model from a checkpoint, causal or masked.

    Raises `ModelError` where it is none, or masked and of a type not known here.
    """
    path = resolve_model(model)
    config = load_config(path)
    if not is_masked(config):
        loaded, _ = load_whole(AutoModelForCausalLM, path)
        return SelectedPositionLM(loaded.base_model, head_of(loaded), causal=True)
    kind = config.model_type
    if kind not in _HEADS:
        raise ModelError(f"{model} is a {kind} model; a generator is a causal one, or one of {', '.join(_HEADS)}.")
    loaded, _ = load_whole(AutoModelForMaskedLM, path)
    return SelectedPositionLM(loaded.base_model, _HEADS[kind](loaded))


def lm_with_tied_head(model: PreTrainedModel) -> SelectedPositionLM:
    """A language model, causal or masked, of a copy of another one's body, its embeddings being its output layer.

    Raises `ModelError` where those are of another width than its hidden states.
    """
    width, hidden = model.get_input_embeddings().embedding_dim, model.config.hidden_size
    if width != hidden:
        raise ModelError(
            f"the teacher's embeddings are {width} wide and its hidden states {hidden}, so that it cannot be its own "
            "generator; name one with --method-options.generator."
        )
    return SelectedPositionLM(copy.deepcopy(model.base_model), None, causal=not is_masked(model.config))
