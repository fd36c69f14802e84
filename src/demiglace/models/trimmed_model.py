"""Remove the embeddings and the outputs of tokens from a model."""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.modes import evaluating
from demiglace.models.truncation_check import reason_of
from demiglace.models.vocabulary import TrimmedVocabulary, as_list, id_fields


def trim_model(model: PreTrainedModel, vocabulary: TrimmedVocabulary, *, compare: bool = True) -> PreTrainedModel:
    """Return a new model of the same class with the embeddings, and the outputs, of the kept tokens only.

    All weights are copied; those that have a row for each token (embeddings, a head and its bias) lose the rows of
    removed tokens. Config and generation config have the new ids of special tokens. Dtype, device and training mode are
    kept. `compare` checks that both models compute the same. Raises `ModelError` for an architecture that cannot be
    built with fewer tokens, or that uses the ids in another way.
    """
    config = _with_new_ids(model.config, vocabulary)
    config.vocab_size = len(vocabulary)
    name = type(model).__name__
    try:
        with torch.random.fork_rng(devices=[]):  # all of its random weights are replaced
            trimmed = type(model)(config)
    except Exception as error:  # of any kind: code of the architecture
        raise ModelError(f"no {name} can have {len(vocabulary):,} tokens ({reason_of(error)}).") from error
    torch.nn.Module.to(trimmed, model.device, model.dtype)
    trimmed.train(model.training)
    shapes = {key: weight.shape for key, weight in trimmed.state_dict().items()}
    kept = torch.from_numpy(vocabulary.kept).to(model.device)
    weights = {key: _kept_rows(key, w, shapes.get(key, w.shape), kept) for key, w in model.state_dict().items()}
    trimmed.load_state_dict(weights, strict=True)
    tables: list[Any] = [model.get_input_embeddings(), trimmed.get_input_embeddings()]
    pad = tables[0].padding_idx
    tables[1].padding_idx = None if pad is None else _new_id(vocabulary, pad)
    if model.can_generate():
        trimmed.generation_config = _with_new_ids(model.generation_config, vocabulary)
    if compare:
        _check_same_outputs(model, trimmed, vocabulary)
    return trimmed


def _kept_rows(name: str, weight: Tensor, shape: torch.Size, kept: Tensor) -> Tensor:
    """Return a weight with the kept entries in the dimension that is smaller in the trimmed model."""
    differing = [d for d, (old, new) in enumerate(zip(weight.shape, shape, strict=True)) if old != new]
    if not differing:
        return weight
    if len(differing) > 1 or shape[differing[0]] != len(kept) or weight.shape[differing[0]] <= int(kept[-1]):
        raise ModelError(
            f"the weight {name} would change from {list(weight.shape)} to {list(shape)}, which is not a row for each "
            "token; the vocabulary of this architecture cannot be trimmed."
        )
    return weight.index_select(differing[0], kept)


def _with_new_ids(config: Any, vocabulary: TrimmedVocabulary) -> Any:
    """Return a copy of a config with the new ids of tokens; None for one that no kept token has."""
    new = copy.deepcopy(config)
    for name, value in id_fields(config).items():
        ids = [i for old in as_list(value) if (i := _new_id(vocabulary, old)) is not None]
        setattr(new, name, (ids or None) if isinstance(value, list) else next(iter(ids), None))
    return new


def _new_id(vocabulary: TrimmedVocabulary, old: int) -> int | None:
    new = int(vocabulary.new_ids[old]) if 0 <= old < vocabulary.full else -1
    return None if new < 0 else new


@torch.no_grad()
def _check_same_outputs(model: PreTrainedModel, trimmed: PreTrainedModel, vocabulary: TrimmedVocabulary) -> None:
    """Raise `ModelError` unless both models compute the same for twelve random kept tokens."""
    ids = torch.randint(len(vocabulary), (1, 12), generator=torch.Generator().manual_seed(0))
    end = getattr(trimmed.config, "eos_token_id", None)
    if isinstance(end, int):
        ids[:, -1] = end  # without which BART's classifiers cannot be run
    kept = torch.from_numpy(vocabulary.kept)

    def run(one: PreTrainedModel, tokens: Tensor) -> Tensor:
        tokens = tokens.to(one.device)
        with evaluating(one):
            return one(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0].float().cpu()

    expected, computed = run(model, kept[ids]), run(trimmed, ids)
    if expected.shape != computed.shape:
        expected = expected[..., kept]
    difference, scale = (expected - computed).abs().max().item(), expected.abs().max().item()
    if difference > (1e-4 if model.dtype in (torch.float32, torch.float64) else 1e-2) * scale:
        raise ModelError(
            f"{type(model).__name__} with fewer tokens would not compute what it computes now: outputs of up to "
            f"{scale:.3g} change by {difference:.2g}, because this architecture uses the ids of tokens in another way. "
            "Leave --vocabulary out."
        )
