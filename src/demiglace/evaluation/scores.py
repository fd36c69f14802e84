"""Metrics of a model's logits on labelled rows, and its agreement with another model."""

from collections.abc import Sequence

import numpy as np

from demiglace.errors import ConfigError, DataError, ModelError, unknown
from demiglace.tasks.base import Metric, RowTask
from demiglace.tasks.registry import row_metrics

METRICS: dict[str, Metric] = row_metrics()


def predictions_of(logits: np.ndarray, task: RowTask, class_map: np.ndarray | None = None) -> np.ndarray:
    """Return predictions [N, ...] in the form of encoded labels, from logits float [N, C].

    class_map, int [C]: the class that each of the model's classes counts as. Several may count as one: neutral and
    contradiction are both HANS's non-entailment.
    Raises `ModelError` if a logit is not a finite number.
    """
    check_finite(logits, task)
    predictions = task.decode(logits)
    return predictions if class_map is None else np.where(predictions < 0, predictions, class_map[predictions])


def check_finite(logits: np.ndarray, task: RowTask) -> None:
    """Raise `ModelError` if a logit of a row, of float [N, C], is not a finite number."""
    bad = ~np.isfinite(logits).all(axis=1)
    if task.unit == "row" and bad.any():  # those of words are checked by `predict.finite`
        raise ModelError(
            f"the model's output is not a finite number for {bad.sum()} of {len(logits)} rows (first: row "
            f"{bad.argmax()}); its training diverged or its weights are damaged."
        )


def by_unit(labels: np.ndarray, logits: np.ndarray, task: RowTask) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and logits of each unit: of rows as they are, of words [U] and [U, C], those that have both."""
    if task.unit == "row":
        return labels, logits
    known = (labels >= 0) & np.isfinite(logits).all(axis=-1)
    return labels[known], logits[known]


def compute(
    names: Sequence[str],
    labels: np.ndarray,
    logits: np.ndarray,
    task: RowTask,
    class_map: np.ndarray | None = None,
) -> dict[str, float]:
    """Return the named metrics over the rows that have a label, in the order of `names`.

    labels: [N, ...] as the kind encodes them; logits: float [N, C], of words [N, W, C]; class_map: as in
    `predictions_of`; task: with the names of labels (`RowTask.with_names`), if its metrics read them.
    Raises `ConfigError` for a metric that the kind does not have, `DataError` if no row has a label, `ModelError` for
    logits that are not finite.
    """
    check_metrics(names, task)
    known = task.is_labelled(labels)
    if not known.any():
        raise DataError("none of the rows has a label, so there is nothing to measure; give rows with labels.")
    predictions = task.readable(predictions_of(logits[known], task, class_map))
    compared = {"logits": logits[known], "predictions": predictions}
    return {name: _value(task, name, labels[known], compared[task.metrics[name].of]) for name in names}


def _value(task: RowTask, metric: str, labels: np.ndarray, compared: np.ndarray) -> float:
    function = task.metrics[metric].function
    assert function is not None  # of rows
    return function(task.readable(labels), compared)


def check_metrics(names: Sequence[str], task: RowTask) -> None:
    """Raise `ConfigError` for a metric that no kind of problem has, or that this one does not have."""
    for name in names:
        if name in task.metrics:
            continue
        if name not in (known := row_metrics()):
            raise ConfigError(unknown("metric", name, known))
        raise ConfigError(f"metric {name!r} does not go with {task.name}; take one of {', '.join(task.metrics)}.")


def agreement(
    student_logits: np.ndarray,
    teacher_logits: np.ndarray,
    task: RowTask,
    class_map: np.ndarray | None = None,
    teacher_task: RowTask | None = None,
) -> float:
    """Return how well the student's predictions match the teacher's: `RowTask.agreement`, where classes are not merged.

    That is the share of rows with the same class, or Pearson's r of two regressors. Logits [N, C]; class_map [C]: as in
    `predictions_of`; teacher_task: the kind with the teacher's decision rule, None for the student's. Raises
    `DataError` if there are no rows.
    """
    if not len(student_logits):
        raise DataError("there are no rows to compare two models on.")
    for logits in (student_logits, teacher_logits):
        check_finite(logits, task)
    if class_map is None:
        return task.agreement(student_logits, teacher_logits, teacher_task or task)
    teacher = predictions_of(teacher_logits, teacher_task or task, class_map)
    student = predictions_of(student_logits, task, class_map)
    return _value(task, task.agreement_metric, teacher, task.readable(student))
