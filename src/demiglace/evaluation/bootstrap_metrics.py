"""Metrics as functions of sums over rows, so that a bootstrap of 10,000 samples is one product of matrices.

Every metric here equals its namesake of `metrics.METRICS`; but on a bootstrap sample Spearman's ρ keeps the ranks that
the rows have in the whole set.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from demiglace.tasks.token_classification import entity_counts


@dataclass(frozen=True)
class SufficientStatistic:
    """A metric in two steps: features(labels [N], predictions [N]) to [N, K]; value(their sums [..., K]) to [...]."""

    features: Callable[[np.ndarray, np.ndarray], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=float), where=whole != 0)


def _hits(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return np.stack([labels == predictions, np.ones(len(labels))], axis=1).astype(float)


def share_of_map(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return by how much each row raises the mean average precision, [N]: its value minus that without the row.

    labels: [N, C] of 0 and 1; logits [N, C], without ties. Labels without a positive are left out of the mean; one
    whose only positive is the row that is left out counts as 0.
    """
    columns = np.flatnonzero(labels.any(axis=0))
    if not len(columns):
        return np.zeros(len(labels))
    return np.mean([_share_of_precision(labels[:, c], logits[:, c]) for c in columns], axis=0)


def _share_of_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the average precision, the mean over positives of hits / rank, minus that without each row, [N]."""
    order = np.argsort(-scores, kind="stable")
    positive, rank = labels[order] == 1, np.arange(1, len(order) + 1)
    hits = positive.cumsum()
    above = np.where(positive, hits / rank, 0).cumsum()

    def below(values: np.ndarray) -> np.ndarray:
        """Return the sum of values of the positives below each rank."""
        chosen = np.where(positive, values, 0)
        return chosen.sum() - chosen.cumsum()

    shorter = np.maximum(rank - 1, 1)  # the rank of a row below one that is left out
    own = np.where(positive, hits / rank, 0)
    without_negative = (above + below(hits / shorter)) / hits[-1]
    without_positive = (above - own + below((hits - 1) / shorter)) / max(hits[-1] - 1, 1)
    result = np.empty(len(order))
    result[order] = above[-1] / hits[-1] - np.where(positive, without_positive, without_negative)
    return result


def _confusion(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """True and false positives, and false negatives, of class 1."""
    own, said = labels == 1, predictions == 1
    return np.stack([own & said, ~own & said, own & ~said], axis=1).astype(float)


def _exact_hits(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return np.stack([(labels == predictions).all(axis=1), np.ones(len(labels))], axis=1).astype(float)


def _confusion_of_lists(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """True and false positives, and false negatives, over the labels of a row, [N, 3] from [N, C]."""
    own, said = labels == 1, predictions == 1
    return np.stack([own & said, ~own & said, own & ~said], axis=1).sum(axis=2).astype(float)


def _f1(sums: np.ndarray) -> np.ndarray:
    hits, extra, missed = np.moveaxis(sums, -1, 0)
    return _divide(2 * hits, 2 * hits + extra + missed)


def _pairs(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """For each class whether the row has it, is predicted to have it, and both; then 1 [N, 3·C + 1].

    labels, predictions: classes [N], or [N, C] of 0 and 1.
    """
    if labels.ndim == 1:
        classes = np.union1d(labels, predictions)
        labels, predictions = labels[:, None] == classes, predictions[:, None] == classes
    own, said = labels == 1, predictions == 1
    return np.concatenate([own, said, own & said, np.ones((len(labels), 1))], axis=1).astype(float)


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    """The mean over the classes that occur, on either side."""
    own, said, both = np.split(sums[..., :-1], 3, axis=-1)
    occurs = own + said > 0
    return (_divide(2 * both, own + said) * occurs).sum(-1) / np.maximum(1, occurs.sum(-1))


def _matthews(sums: np.ndarray) -> np.ndarray:
    """(c·s − Σ p_k·t_k) / √(s² − Σ p_k²) / √(s² − Σ t_k²) (Gorodkin 2004, R_K)."""
    own, said, both = np.split(sums[..., :-1], 3, axis=-1)
    rows = sums[..., -1]
    agreed = both.sum(-1) * rows - (own * said).sum(-1)
    spread = (rows**2 - (own**2).sum(-1)) * (rows**2 - (said**2).sum(-1))
    return _divide(agreed, np.sqrt(np.maximum(spread, 0)))


def _entities(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return entity_counts(labels, predictions).astype(float)


def _entity_f1(sums: np.ndarray) -> np.ndarray:
    return _divide(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _entity_precision(sums: np.ndarray) -> np.ndarray:
    return _divide(sums[..., 0], sums[..., 1])


def _entity_recall(sums: np.ndarray) -> np.ndarray:
    return _divide(sums[..., 0], sums[..., 2])


def _right_words(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    known = labels != ""
    return np.stack([((labels == predictions) & known).sum(1), known.sum(1)], axis=1).astype(float)


def _moments(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    x, y = labels - labels.mean(), predictions - predictions.mean()
    return np.stack([np.ones(len(x)), x, y, x * y, x * x, y * y], axis=1)


def _correlation(sums: np.ndarray) -> np.ndarray:
    rows, x, y, xy, xx, yy = np.moveaxis(sums, -1, 0)
    spread = np.maximum(rows * xx - x * x, 0) * np.maximum(rows * yy - y * y, 0)
    return _divide(rows * xy - x * y, np.sqrt(spread))


def _ranked(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return _moments(stats.rankdata(labels), stats.rankdata(predictions))


def _errors(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return np.stack([(labels - predictions) ** 2, np.ones(len(labels))], axis=1)


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _reciprocal(labels: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """For each pair that belongs together the reciprocal of its rank, and 1 [N, 2]."""
    relevant = labels == 1
    return np.stack([relevant / ranks, relevant], axis=1).astype(float)


def _within(k: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda labels, ranks: np.stack([(labels == 1) & (ranks <= k), labels == 1], axis=1).astype(float)


def _mean_of_relevant(sums: np.ndarray) -> np.ndarray:
    return _divide(sums[..., 0], sums[..., 1])


SUMMED: dict[str, SufficientStatistic] = {
    "accuracy": SufficientStatistic(_hits, _mean),
    "f1": SufficientStatistic(_confusion, _f1),
    "micro_f1": SufficientStatistic(_confusion_of_lists, _f1),
    "subset_accuracy": SufficientStatistic(_exact_hits, _mean),
    "macro_f1": SufficientStatistic(_pairs, _macro_f1),
    "matthews": SufficientStatistic(_pairs, _matthews),
    "entity_f1": SufficientStatistic(_entities, _entity_f1),
    "entity_precision": SufficientStatistic(_entities, _entity_precision),
    "entity_recall": SufficientStatistic(_entities, _entity_recall),
    "word_accuracy": SufficientStatistic(_right_words, _mean),
    "pearson": SufficientStatistic(_moments, _correlation),
    "spearman": SufficientStatistic(_ranked, _correlation),
    "mse": SufficientStatistic(_errors, _mean),
    "mrr": SufficientStatistic(_reciprocal, _mean_of_relevant),
    "recall_at_1": SufficientStatistic(_within(1), _mean_of_relevant),
    "recall_at_10": SufficientStatistic(_within(10), _mean_of_relevant),
}
