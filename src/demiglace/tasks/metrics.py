"""Metrics of rows: numbers of (labels [N], predictions [N]), both as a kind of problem encodes them.

SciPy and scikit-learn are imported when a metric is computed: a task is read long before.
"""

import warnings

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
    "accuracy": Metric(True, "accuracy", _accuracy),
    "f1": Metric(True, "F1", _f1),  # of class 1, as GLUE scores MRPC and QQP
    "macro_f1": Metric(True, "macro-F1", _macro_f1),
    "matthews": Metric(True, "Matthews correlation", _matthews),  # 0 for constant predictions
}
OF_NUMBERS = {
    "pearson": Metric(True, "Pearson r", _pearson),
    "spearman": Metric(True, "Spearman ρ", _spearman),
    "mse": Metric(False, "mean squared error", _mse),
}
