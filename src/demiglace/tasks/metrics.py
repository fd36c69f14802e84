"""Metrics of rows: numbers of (labels [N], predictions [N]), both as a kind of problem encodes them.

SciPy and scikit-learn are imported when a metric is computed: a task is read long before.
"""

import warnings
from dataclasses import replace

import numpy as np

from demiglace.tasks.base import Metric


def _accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean(labels == predictions))


def _f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn import metrics as sk

    return float(sk.f1_score(labels == 1, predictions == 1, zero_division=0))


def _macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn import metrics as sk

    return float(sk.f1_score(labels, predictions, average="macro", zero_division=0))


def _micro_f1_of_lists(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return F1 over all pairs of row and label, [N, C] of 0 and 1."""
    from sklearn import metrics as sk

    return float(sk.f1_score(labels, predictions, average="micro", zero_division=0))


def _macro_f1_of_lists(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean F1 of the labels that occur, on either side, as `_macro_f1` does for classes."""
    from sklearn import metrics as sk

    occurs = (labels + predictions).any(axis=0)
    if not occurs.any():
        return 0.0
    return float(sk.f1_score(labels[:, occurs], predictions[:, occurs], average="macro", zero_division=0))


def _subset_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the share of rows with exactly the right labels."""
    return float((labels == predictions).all(axis=1).mean())


def average_precisions(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return the average precision of each label that a row has, from [N, C] of 0 and 1, and logits [N, C]."""
    from sklearn import metrics as sk

    return np.array(
        [sk.average_precision_score(labels[:, c], logits[:, c]) for c in np.flatnonzero(labels.any(axis=0))]
    )


def _mean_average_precision(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean over the labels that a row has; 0 if there is none: it is undefined for the others."""
    found = average_precisions(labels, logits)
    return float(found.mean()) if len(found) else 0.0


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn import metrics as sk

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a single class on both sides gives 0
        return float(sk.matthews_corrcoef(labels, predictions))


def _pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    return _correlation("pearsonr", labels, predictions)


def _spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    return _correlation("spearmanr", labels, predictions)


def _mse(labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn import metrics as sk

    return float(sk.mean_squared_error(labels, predictions))


def _correlation(function: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return a correlation; 0 where either side is constant, since it is undefined there."""
    if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(np.nan_to_num(getattr(stats, function)(labels, predictions).statistic))


OF_CLASSES = {
    "accuracy": Metric("Accuracy", "accuracy", _accuracy),
    "f1": Metric("F1", "F1", _f1),  # of class 1, as GLUE scores MRPC and QQP
    "macro_f1": Metric("Macro-F1", "macro-F1", _macro_f1, hub="f1"),
    "matthews": Metric(  # 0 for constant predictions
        "Matthews correlation", "Matthews correlation", _matthews, hub="matthews_correlation"
    ),
}
OF_NUMBERS = {
    "pearson": Metric("Pearson r", "Pearson r", _pearson, hub="pearsonr"),
    "spearman": Metric("Spearman ρ", "Spearman ρ", _spearman, hub="spearmanr"),
    "mse": Metric("Mean squared error", "mean squared error", _mse, higher_is_better=False, unit="plain", decimals=3),
}
OF_LABEL_LISTS = {
    "micro_f1": Metric("Micro-F1", "micro-F1", _micro_f1_of_lists, hub="f1"),
    "macro_f1": replace(OF_CLASSES["macro_f1"], function=_macro_f1_of_lists),
    "map": Metric(
        "Mean average precision",
        "mean average precision",
        _mean_average_precision,
        of="logits",
        hub="mean_average_precision",
    ),
    "subset_accuracy": Metric("Subset accuracy", "subset accuracy", _subset_accuracy, hub="accuracy"),
}
