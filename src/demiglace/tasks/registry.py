"""The kinds of problems: one visible table."""

from collections.abc import Mapping, Sequence
from typing import Any

from demiglace.errors import ConfigError, unknown
from demiglace.tasks.base import Metric, RowTask, Task
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING
from demiglace.tasks.multi_label import MULTI_LABEL
from demiglace.tasks.regression import REGRESSION
from demiglace.tasks.sentence_embedding import RETRIEVAL, SENTENCE_EMBEDDING
from demiglace.tasks.token_classification import TOKEN_CLASSIFICATION

TASK_KINDS: dict[str, Task] = {
    "classification": CLASSIFICATION,
    "regression": REGRESSION,
    "sentence-embedding": SENTENCE_EMBEDDING,
    "multi-label": MULTI_LABEL,
    "token-classification": TOKEN_CLASSIFICATION,
    "language-modelling": LANGUAGE_MODELLING,
}
SET_KINDS = (RETRIEVAL,)  # kinds of evaluation sets for models of another kind

_NAMES_OF_0_1 = {"language": LANGUAGE_MODELLING.name}  # in manifests of version 0.1


def task_kind(name: str) -> Task:
    """Return the kind of this name. Raises `ConfigError` for an unknown one."""
    if name not in TASK_KINDS:
        raise ConfigError(unknown("kind of problem", name, TASK_KINDS))
    return TASK_KINDS[name]


def row_tasks() -> dict[str, RowTask]:
    """Return the kinds that read rows of texts, by name."""
    return {name: task for name, task in TASK_KINDS.items() if isinstance(task, RowTask)}


def row_task(name: str) -> RowTask:
    """Return the kind of this name that reads rows. Raises `ConfigError` for any other name."""
    kinds = row_tasks()
    if name not in kinds:
        raise ConfigError(unknown("kind of problem", name, kinds))
    return kinds[name]


def recognized_task(columns: Mapping[str, Sequence[Any]]) -> RowTask | None:
    """Return the kind that a table with these columns can only be of, or None."""
    return next((task for task in row_tasks().values() if task.recognizes(columns)), None)


def predicts_classes(name: str) -> bool:
    """Return whether the kind of this name predicts one of several named classes; False for an unknown name."""
    task = TASK_KINDS.get(name)
    return isinstance(task, RowTask) and task.has_classes


def task_of_manifest(manifest: Mapping[str, Any]) -> Task:
    """Return the kind that a manifest names, by default classification. Raises `ConfigError` for an unknown one."""
    name = str(manifest.get("problem", CLASSIFICATION.name))
    return task_kind(_NAMES_OF_0_1.get(name, name))


def row_metrics() -> dict[str, Metric]:
    """Return the metrics of all kinds that read rows, by name."""
    return _metrics_of([*row_tasks().values(), *SET_KINDS])


def all_metrics() -> dict[str, Metric]:
    """Return the metrics of all kinds, by name."""
    return _metrics_of([*TASK_KINDS.values(), *SET_KINDS])


def _metrics_of(tasks: Sequence[Task]) -> dict[str, Metric]:
    return {name: metric for task in tasks for name, metric in task.metrics.items()}
