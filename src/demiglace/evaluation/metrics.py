"""Task metrics, one visible table; every metric is a number of (labels, predictions) over the labelled rows."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn import metrics as sk

from demiglace.data.rows.schema import Problem
from demiglace.errors import ConfigError, DataError, ModelError, unknown


@dataclass(frozen=True)
class Metric:
    """A metric: function(labels [N], predictions [N]) -> number, which way is better, and its name in tables."""

    function: Callable[[np.ndarray, np.ndarray], float]
    higher_is_better: bool
    title: str


def _accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean(labels == predictions))


def _f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(sk.f1_score(labels == 1, predictions == 1, zero_division=0))


def _macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(sk.f1_score(labels, predictions, average="macro", zero_division=0))


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a single class on both sides: 0, and no need to say more
        return float(sk.matthews_corrcoef(labels, predictions))


def _pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    return _correlation(stats.pearsonr, labels, predictions)


def _spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    return _correlation(stats.spearmanr, labels, predictions)


def _mse(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(sk.mean_squared_error(labels, predictions))


def _correlation(function: Callable, labels: np.ndarray, predictions: np.ndarray) -> float:
    """0 where either side is constant: a correlation is undefined there, and such predictions tell nothing."""
    if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(np.nan_to_num(function(labels, predictions).statistic))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(_accuracy, True, "accuracy"),
    "f1": Metric(_f1, True, "F1"),  # of class 1, as GLUE scores MRPC and QQP
    "macro_f1": Metric(_macro_f1, True, "macro-F1"),
    "matthews": Metric(_matthews, True, "Matthews correlation"),  # 0 for constant predictions
    "pearson": Metric(_pearson, True, "Pearson r"),
    "spearman": Metric(_spearman, True, "Spearman ρ"),
    "mse": Metric(_mse, False, "mean squared error"),
}
_OF_NUMBERS = ("pearson", "spearman", "mse")


def predictions_of(logits: np.ndarray, problem: Problem, class_map: np.ndarray | None = None) -> np.ndarray:
    """Logits float [N, C] to class ids int64 [N], or to numbers [N] for regression (C = 1).

    class_map, int [C]: the class that each of the model's classes counts as; several may count as one, as neutral and
    contradiction both do for HANS's non-entailment.
    Raises `ModelError` if a logit is not a finite number.
    """
    bad = ~np.isfinite(logits).all(axis=1)
    if bad.any():
        raise ModelError(
            f"the model's output is not a finite number for {bad.sum()} of {len(logits)} rows (first: row "
            f"{bad.argmax()}); its training diverged or its weights are damaged."
        )
    if problem == "regression":
        return logits[:, 0]
    classes = logits.argmax(axis=1)
    return classes if class_map is None else class_map[classes]


def compute(
    names: Sequence[str],
    labels: np.ndarray,
    logits: np.ndarray,
    problem: Problem,
    class_map: np.ndarray | None = None,
) -> dict[str, float]:
    """The named metrics over the rows that have a label, in the order of `names`.

    labels: int [N], negative where there is none, or float [N], NaN where there is none; logits: float [N, C];
    class_map: as in `predictions_of`. Raises `ConfigError` for an unknown metric or one that does not go with the
    problem, `DataError` if no row has a label, `ModelError` for logits that are not finite.
    """
    check_metrics(names, problem)
    known = ~np.isnan(labels) if problem == "regression" else labels >= 0
    if not known.any():
        raise DataError("none of the rows has a label, so there is nothing to measure; give rows with labels.")
    predictions = predictions_of(logits[known], problem, class_map)
    return {name: METRICS[name].function(labels[known], predictions) for name in names}


def check_metrics(names: Sequence[str], problem: Problem) -> None:
    """Raise `ConfigError` for a metric that is not in the table or that this kind of labels has no use for."""
    for name in names:
        if name not in METRICS:
            raise ConfigError(unknown("metric", name, METRICS))
        if (name in _OF_NUMBERS) != (problem == "regression"):
            fitting = [n for n in METRICS if (n in _OF_NUMBERS) == (problem == "regression")]
            raise ConfigError(f"metric {name!r} does not go with {problem}; take one of {', '.join(fitting)}.")


def agreement(
    student_logits: np.ndarray, teacher_logits: np.ndarray, problem: Problem, class_map: np.ndarray | None = None
) -> float:
    """Share of rows with the same class, or Pearson's r of the two outputs for regression.

    Logits [N, C]; class_map [C]: the class that each of the models' own counts as, as in `predictions_of`.
    """
    student = predictions_of(student_logits, problem, class_map)
    teacher = predictions_of(teacher_logits, problem, class_map)
    if not len(student):
        raise DataError("there are no rows to compare two models on.")
    return (_pearson if problem == "regression" else _accuracy)(teacher, student)
