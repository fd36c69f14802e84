"""What a classifier's outputs mean: class names in the order of their ids, none for regression."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from demiglace.errors import ModelError
from demiglace.labels import Match


def label_names_of(model: PreTrainedModel) -> tuple[str, ...]:
    """The class names of a classifier in the order of their ids; empty for a regressor (one output)."""
    return label_names_of_config(model.config)


def label_names_of_config(config: PreTrainedConfig) -> tuple[str, ...]:
    """`label_names_of` from the config alone."""
    names: dict[Any, str] = dict(config.id2label or {})
    return tuple(str(names[i]) for i in sorted(names)) if len(names) > 1 else ()


def set_labels(config: PreTrainedConfig, names: Sequence[str]) -> None:
    """Let a config ask for a head of these classes, or without any for regression; `ModelError` for a single class."""
    if len(names) == 1:
        raise ModelError(f"there is only one class, {names[0]!r}; a classifier needs at least two.")
    config.num_labels = len(names) or 1
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
    config.problem_type = "single_label_classification" if names else "regression"


def adopt_labels(model: PreTrainedModel, names: Sequence[str], match: Match) -> None:
    """Give a classifier these class names, and its outputs their order, so that logits [N, C] follow the labels.

    Every later reader of the logits (cache, training, evaluation, export) then sees one order. Raises `ModelError` as
    `reorder_outputs` does.
    """
    reorder_outputs(model, match.ids)
    set_labels(model.config, names)


def reorder_outputs(model: PreTrainedModel, order: Sequence[int]) -> None:
    """Permute the rows of a classifier's last layer in place: output k becomes what output order[k] was.

    Raises `ModelError` where the head has no linear layer with an output for each class, or its logits do not follow.
    """
    if list(order) == list(range(len(order))):
        return
    index = torch.tensor(order, device=model.device)
    layer = _last_layer(model, len(order))
    parameters = [layer.weight, *([] if layer.bias is None else [layer.bias])]
    before = _probe(model)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(parameter[index])
    if not torch.allclose(before[:, index], _probe(model), rtol=1e-4, atol=1e-5):
        raise ModelError(
            f"the classes of a {model.config.model_type} model cannot be put into another order; give rows whose "
            "sorted labels are in the order of the model's classes."
        )


def _last_layer(model: PreTrainedModel, outputs: int) -> torch.nn.Linear:
    encoder = f"{model.base_model_prefix}."
    heads = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == outputs and not name.startswith(encoder)
    ]
    if not heads:
        raise ModelError(f"the head of a {model.config.model_type} model has no linear layer of {outputs} outputs.")
    return heads[-1]


def _probe(model: PreTrainedModel) -> torch.Tensor:
    """The logits [1, C] of a few tokens, to see which output is which."""
    last = model.config.eos_token_id  # some architectures pool it
    ids = [*range(5, 12), last if isinstance(last, int) else 12]
    was_training, table = model.training, cast(torch.nn.Embedding, model.get_input_embeddings())
    with torch.no_grad():
        tokens = torch.tensor([ids], device=model.device) % table.num_embeddings
        logits: torch.Tensor = model.eval()(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    model.train(was_training)
    return logits


def describe(names: Sequence[str]) -> str:
    """Labels in a sentence: how many there are and the first few."""
    if not names:
        return "regression"
    return f"{len(names)} classes ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
