"""Metrics of rows: numbers of (labels [N], predictions [N]), both as a kind of problem encodes them."""

import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats
from sklearn import metrics as sk

from demiglace.tasks.base import Metric


def _accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean(labels == predictions))


def _f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(sk.f1_score(labels == 1, predictions == 1, zero_division=0))


def _macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(sk.f1_score(labels, predictions, average="macro", zero_division=0))


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a single class on both sides gives 0
        return float(sk.matthews_corrcoef(labels, predictions))


def _pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    return _correlation(stats.pearsonr, labels, predictions)


def _spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    return _correlation(stats.spearmanr, labels, predictions)


def _mse(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(sk.mean_squared_error(labels, predictions))


def _correlation(function: Callable, labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return a correlation; 0 where either side is constant, since it is undefined there."""
    if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(np.nan_to_num(function(labels, predictions).statistic))


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
