"""What accuracy does not tell: whether the confidence can be trusted, and how the worst class fares."""

import numpy as np
from scipy.special import softmax
from sklearn import metrics as sk

BINS = 15
_BLOCK = 1 << 22  # logits at once


def confidences(logits: np.ndarray, class_map: np.ndarray | None = None) -> np.ndarray:
    """Return the probability of each row's predicted class, from logits [N, C] to [N].

    class_map, int [C]: the class that each of the model's classes counts as; the probabilities of those that count as
    the same add up. Rows are computed in blocks, so that many classes take little memory beside the logits.
    """
    rows = max(1, _BLOCK // max(1, logits.shape[1]))
    blocks = [_confidences(logits[start : start + rows], class_map) for start in range(0, len(logits), rows)]
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _confidences(logits: np.ndarray, class_map: np.ndarray | None) -> np.ndarray:
    probabilities = softmax(logits.astype(np.float64), axis=1)
    best = probabilities.argmax(axis=1)
    if class_map is None:
        return probabilities[np.arange(len(best)), best]
    same = class_map[None, :] == class_map[best][:, None]
    return (probabilities * same).sum(axis=1)


def expected_calibration_error(correct: np.ndarray, confidence: np.ndarray, bins: int = BINS) -> float:
    """Σ_b n_b/N · |accuracy of b − mean confidence of b| over `bins` bins of equal width.

    correct: bool [N]; confidence: [N], of the answers. 0 is best, 1 worst (Guo et al. 2017, arXiv 1706.04599, eq. 3).
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    gaps = np.abs(np.bincount(place, correct, bins) - np.bincount(place, confidence, bins))
    return float(gaps.sum() / counts.sum())


def worst_class_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """The lowest F1 of all classes that occur among the labels; labels and predictions are class ids [N]."""
    return float(sk.f1_score(labels, predictions, labels=np.unique(labels), average=None, zero_division=0).min())
