"""What a classifier's outputs mean: class names in the order of their ids, none for regression."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from demiglace.errors import ModelError


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


def fits(own: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a head for the labels `own` serves `wanted`: the same ones, or as many that nobody has named."""
    unnamed = [f"LABEL_{i}" for i in range(len(wanted))]
    return list(own) in (list(wanted), unnamed)


def describe(names: Sequence[str]) -> str:
    """Labels in a sentence: how many there are and the first few."""
    if not names:
        return "regression"
    return f"{len(names)} classes ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
