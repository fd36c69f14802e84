"""What a model's outputs mean: the kind of problem and the class names, both kept in its config."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from demiglace.data.rows.schema import LabelSpace
from demiglace.errors import ModelError
from demiglace.labels import Match
from demiglace.models.files import load_config, resolve_model
from demiglace.models.sentence_modules import module_directory
from demiglace.tasks.base import RowTask
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.multi_label import MULTI_LABEL
from demiglace.tasks.registry import row_task, row_tasks
from demiglace.tasks.regression import REGRESSION
from demiglace.tasks.sentence_embedding import SENTENCE_EMBEDDING

_KIND = "demiglace_task"  # key of config.json, written only where labels do not tell the kind
_RULE = "demiglace_decision_rule"  # key of config.json, written where a kind fits its rule to validation rows


def label_names_of(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the class names of a classifier in the order of their ids; empty for a model without named classes."""
    return label_names_of_config(model.config)


def label_names_of_config(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the class names from the config alone, see `label_names_of`."""
    names: dict[Any, str] = dict(config.id2label or {})
    return tuple(str(names[i]) for i in sorted(names)) if len(names) > 1 else ()


def task_of_labels(names: Sequence[str], problem_type: str | None = None) -> RowTask:
    """Return the kind of a model by its label names and the problem type in its config."""
    if problem_type == MULTI_LABEL.problem_type and names:
        return MULTI_LABEL
    return CLASSIFICATION if names else REGRESSION


def task_of_config(config: PreTrainedConfig) -> RowTask:
    """Return the kind of problem that a model solves, with the model's decision rule.

    Raises `ConfigError` for a kind that is not in the registry.
    """
    named = getattr(config, _KIND, None)
    task = row_task(named) if named else _usual_task(config)
    return task.with_decision_rule(decision_rule_of(config))


def _usual_task(config: PreTrainedConfig) -> RowTask:
    """Return the kind of a model whose config names none: by its class, if one kind alone has it, or by its labels."""
    architecture = str((config.architectures or [""])[0])
    heads = {t: t.auto_class.removeprefix("AutoModel") for t in row_tasks().values()}  # "": an encoder without a head
    found = [t for t, head in heads.items() if head and architecture.endswith(head)]
    return found[0] if len(found) == 1 else task_of_labels(label_names_of_config(config), config.problem_type)


def decision_rule_of(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the decision rule in a config; empty for a kind whose rule is fixed."""
    return dict(getattr(config, _RULE, None) or {})


def label_space_of(model: str) -> LabelSpace:
    """Return what the outputs of a model mean, from its configs alone. Raises `ModelError` as `resolve_model` does."""
    path = resolve_model(model)
    config = load_config(path)
    if module_directory(path) is not None or task_of_config(config) is SENTENCE_EMBEDDING:
        return LabelSpace(SENTENCE_EMBEDDING)
    return LabelSpace(task_of_config(config), label_names_of_config(config))


def set_labels(config: PreTrainedConfig, names: Sequence[str], task: RowTask | None = None) -> None:
    """Set the head's width, the class names and the kind of problem in a config.

    task: None for classification with names and regression without. Raises `ModelError` for a single class.
    """
    if len(names) == 1:
        raise ModelError(f"there is only one class, {names[0]!r}; a classifier needs at least two.")
    task = task or task_of_labels(names)
    config.num_labels = task.head_width(names)
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
    config.problem_type = task.problem_type
    _set(config, _KIND, task.name if task.name != _usual_task(config).name else None)
    set_decision_rule(config, task)


def set_decision_rule(config: PreTrainedConfig, task: RowTask) -> None:
    """Keep a kind's decision rule in a config."""
    _set(config, _RULE, task.decision_rule() or None)


def _set(config: PreTrainedConfig, key: str, value: Any) -> None:
    if value is not None:
        setattr(config, key, value)
    elif hasattr(config, key):
        delattr(config, key)


def adopt_labels(model: PreTrainedModel, names: Sequence[str], match: Match, task: RowTask | None = None) -> None:
    """Give a model these class names, and its outputs their order, so that logits [N, C] follow the labels.

    All later readers of the logits (cache, training, evaluation, export) then see one order. task: as in `set_labels`.
    Raises `ModelError` as `reorder_outputs` does.
    """
    reorder_outputs(model, match.ids)
    set_labels(model.config, names, task)


def reorder_outputs(model: PreTrainedModel, order: Sequence[int]) -> None:
    """Permute the outputs of a classifier's last layer in place: new output k is old output order[k].

    Raises `ModelError` if the head has no linear layer with one output per class, or the logits are not permuted alike.
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
    if not torch.allclose(before[..., index], _probe(model), rtol=1e-4, atol=1e-5):
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
    """Return the logits [1, C], or of words [1, L, C], of a few tokens, to identify the outputs."""
    last = model.config.eos_token_id  # some architectures pool it
    ids = [*range(5, 12), last if isinstance(last, int) else 12]
    was_training, table = model.training, cast(torch.nn.Embedding, model.get_input_embeddings())
    with torch.no_grad():
        tokens = torch.tensor([ids], device=model.device) % table.num_embeddings
        logits: torch.Tensor = model.eval()(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    model.train(was_training)
    return logits


def describe(names: Sequence[str]) -> str:
    """Return labels in words: how many classes there are and the first few, or "regression"."""
    if not names:
        return "regression"
    return f"{len(names)} classes ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
