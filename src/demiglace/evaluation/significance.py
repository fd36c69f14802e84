"""Whether a difference between two methods is more than chance: of the rows they are measured on, and of the seeds."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as _mcnemar
from statsmodels.stats.multitest import multipletests

from demiglace.evaluation.sums import SUMMED

RESAMPLES, LEVEL, ALPHA = 10_000, 0.95, 0.05
LEAST_SEEDS = 3
_BLOCK = 20_000_000  # numbers of a block of row weights
_ROUNDING = 1e-12  # two metrics that differ by less are equal
Verdict = Literal["better", "worse", "no significant difference", "too few seeds to tell"]


def resampled(
    metric: str, labels: np.ndarray, predictions: Sequence[np.ndarray], resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """The metric of every model on bootstrap samples of the rows, the same samples for all, [resamples, models].

    labels: [N]; predictions: for each model class ids or numbers [N]. seed: of the samples drawn.
    """
    generator = np.random.default_rng(seed)
    features = [SUMMED[metric].features(labels, p) for p in predictions]
    widths = np.cumsum([f.shape[1] for f in features])[:-1]
    together = np.concatenate(features, axis=1).astype(np.float32)
    values = np.empty((resamples, len(predictions)))
    block = max(1, _BLOCK // max(together.shape))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        sums = (_row_weights(generator, len(labels), size) @ together).astype(np.float64)
        each = [SUMMED[metric].value(part) for part in np.split(sums, widths, axis=1)]
        values[start : start + size] = np.stack(each, axis=1)
    return values


def interval(method: np.ndarray, control: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """A percentile interval of method − control, both averaged over seeds, from `resampled` values [R, seeds] of each.

    Every sample also draws seeds with replacement, in pairs; so the interval is about other rows and other seeds
    (Efron and Tibshirani 1993, sec. 13.3). With few seeds it is somewhat too narrow, which is why `verdict` wants the
    seeds' own test as well.
    """
    resamples, seeds = method.shape
    weights = np.random.default_rng(1).multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    low, high = np.quantile(((method - control) * weights).sum(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _row_weights(generator: np.random.Generator, rows: int, count: int) -> np.ndarray:
    """How often each row is drawn in each of `count` samples, float32 [count, rows]."""
    drawn = generator.integers(0, rows, (count, rows)) + np.arange(count)[:, None] * rows
    return np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float32)


def seed_test(method: Sequence[float], control: Sequence[float]) -> float | None:
    """Two-sided p of a paired t-test over seeds; 1 where all differences are 0.

    None for fewer than two pairs, and where all differences are one other number: such seeds tell nothing of chance.
    """
    if len(method) < 2:
        return None
    differences = np.subtract(method, control)
    if np.ptp(differences) < _ROUNDING:  # no deviation: the test is not defined
        return 1.0 if abs(differences[0]) < _ROUNDING else None
    return float(stats.ttest_rel(method, control).pvalue)


def mean_interval(mean: float, sd: float | None, count: int, level: float = LEVEL) -> list[float] | None:
    """Student's t interval of a mean of `count` values with deviation `sd`; none for one value."""
    if sd is None:
        return None
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * sd / count**0.5
    return [mean - half, mean + half]


def mcnemar(labels: np.ndarray, method: np.ndarray, control: np.ndarray) -> float:
    """Two-sided p of McNemar's exact test that two models of one seed are right equally often.

    labels, method, control: class ids [N]. Only rows that one of the two has right count.
    """
    right, other = method == labels, control == labels
    table = [[int((right & other).sum()), int((right & ~other).sum())], [int((~right & other).sum()), 0]]
    return float(_mcnemar(table, exact=True).pvalue)


def corrected(p: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number, as Holm 1979 does; none stays none."""
    known = [i for i, value in enumerate(p) if value is not None]
    found: list[float | None] = [None] * len(p)
    if known:
        values = multipletests([p[i] for i in known], method="holm")[1]
        for i, value in zip(known, values, strict=True):
            found[i] = float(value)
    return found


def verdict(interval: tuple[float, float], p: float | None, seeds: int, alpha: float = ALPHA) -> Verdict:
    """What can be said of a difference in a metric of which more is better.

    Better or worse is one that the corrected p and the interval both find.
    """
    if seeds < LEAST_SEEDS or p is None:
        return "too few seeds to tell"
    low, high = interval
    if p >= alpha or low <= 0 <= high:
        return "no significant difference"
    return "better" if low > 0 else "worse"
