"""Paired tests, confidence intervals, equivalence tests and detectable effects for the difference of two methods."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special, stats
from statsmodels.stats.contingency_tables import mcnemar as _mcnemar
from statsmodels.stats.multitest import multipletests

from demiglace.evaluation.bootstrap_metrics import SUMMED, share_of_map
from demiglace.evaluation.verdicts import NO_DIFFERENCE, UNKNOWN

LEVEL, ALPHA, POWER = 0.95, 0.05, 0.8
LEAST_SEEDS = 3
_ROUNDING = 1e-12  # two metrics that differ by less are equal
Verdict = Literal["better", "worse", "no significant difference", "too few seeds to tell"]


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of two methods over paired units (seeds or replicates), with its standard error.

    The sampling error is that of new units *and* of new test rows. Tests and intervals use Student's t.
    """

    mean: float
    error: float | None  # standard error; None: it cannot be estimated
    df: float | None  # Satterthwaite's degrees of freedom; None with the standard error

    def p(self) -> float | None:
        """Return the two-sided p of a mean of 0; 1 where the methods are identical; None without a standard error."""
        if self.error is None:
            return None
        return 1.0 if self.error == 0 else float(2 * stats.t.sf(abs(self.mean) / self.error, self.df))

    def interval(self, level: float = LEVEL) -> list[float] | None:
        """Return the confidence interval of the mean; None without a standard error."""
        if self.error is None:
            return None
        half = self.error and float(stats.t.ppf((1 + level) / 2, self.df)) * self.error
        return [self.mean - half, self.mean + half]

    def equivalence(self, margin: float) -> float | None:
        """Return p of two one-sided t-tests (TOST, Schuirmann 1987) that the true mean lies within ± `margin`.

        It is the larger of both p; None without a standard error.
        """
        if self.error is None:
            return None
        nearest = margin - abs(self.mean)
        return float(stats.t.sf(nearest / self.error, self.df)) if self.error else float(nearest <= 0)

    def detectable(self, alpha: float = ALPHA, power: float = POWER) -> float | None:
        """Return the minimum detectable effect (MDE): the least true mean found with this `power` at two-sided `alpha`.

        The noncentral t distribution gives it, with the standard error as estimated. None without a standard error.
        """
        if not self.error:
            return None
        noncentrality = special.nctdtrinc(self.df, 1 - power, stats.t.isf(alpha / 2, self.df))
        return float(noncentrality) * self.error


def influence(metric: str, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return the jackknife influence of each row on a metric, [N]; their variance / N is the metric's variance.

    labels, predictions: as the kind of problem encodes them [N, ...]; for "map" logits in place of predictions.
    See Efron and Tibshirani 1993, ch. 11.
    """
    if metric == "map":
        return (len(labels) - 1) * share_of_map(labels, predictions)
    features = SUMMED[metric].features(labels, predictions)
    total = features.sum(0)
    each: np.ndarray = SUMMED[metric].value(total) - SUMMED[metric].value(total - features)
    return (len(labels) - 1) * each


def paired_difference(differences: Sequence[float], rows: Sequence[np.ndarray]) -> PairedDifference:
    """Estimate the mean of paired differences, and its standard error over new units and new test rows.

    differences: method − baseline of each unit [S]. rows: of each test set the influence of its rows on each of these
    differences [S, N]; the sets are independent of one another, and all units are measured on the same rows.

    The variance is that of two-way clustering (Cameron, Gelbach and Miller 2011): unit variance / S + variance over
    rows − residual variance / S. The residual is part of both and is counted once. The last two terms together are the
    component of the rows, and are at least 0.

    The degrees of freedom are Satterthwaite's (1946), with a larger unit component than the estimated one: the estimate
    times (S + 1) / (S − 1), or the residual noise, which it contains. Otherwise a unit variance that is small by chance
    would also raise the degrees of freedom, and the test of few units would reject too often (benchmarks/coverage.py).

    No standard error is estimated for fewer than two units, and for units that are copies of one another.
    """
    values = np.asarray(differences, dtype=float)
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return PairedDifference(mean, None, None)
    residual = sum(variance_over_rows(each - each.mean(0)).sum() / (count - 1) for each in rows) / count
    shared = max(0.0, sum(float(variance_over_rows(each.mean(0))) for each in rows) - residual)
    # scores on few rows may agree by chance; the residual noise is then all that is known of the units' deviation
    units = residual if np.ptp(values) < _ROUNDING else float(values.var(ddof=1)) / count
    if not units:
        identical = not shared and abs(mean) < _ROUNDING
        return PairedDifference(mean, 0.0 if identical else None, None)
    larger = max(units * (count + 1) / (count - 1), residual)
    rest = shared**2 / max(1, min(each.shape[1] for each in rows) - 1) if shared else 0.0
    return PairedDifference(mean, math.sqrt(units + shared), (larger + shared) ** 2 / (larger**2 / (count - 1) + rest))


def variance_over_rows(influences: np.ndarray) -> np.ndarray:
    """Return the variance of a metric from its rows' influences [..., N]; 0 for a single row."""
    size = influences.shape[-1]
    return influences.var(axis=-1, ddof=1) / size if size > 1 else np.zeros(influences.shape[:-1])


def paired_t_test(method: Sequence[float], baseline: Sequence[float]) -> float | None:
    """Return the two-sided p of a paired t-test over seeds alone, for scores whose predictions are not available.

    1 where all differences are 0. None for fewer than two pairs, and where all differences are one other number.
    """
    return paired_difference(np.subtract(method, baseline).tolist(), ()).p()


def mean_interval(mean: float, sd: float | None, count: int, level: float = LEVEL) -> list[float] | None:
    """Return Student's t interval of a mean of `count` values with deviation `sd`; None for one value."""
    if sd is None:
        return None
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * sd / count**0.5
    return [mean - half, mean + half]


def mcnemar(labels: np.ndarray, method: np.ndarray, baseline: np.ndarray) -> float:
    """Return the two-sided p of McNemar's exact test that two models of one seed are right equally often.

    labels, method, baseline: class ids [N]. Only rows that one of the two has right count.
    """
    right, other = method == labels, baseline == labels
    table = [[int((right & other).sum()), int((right & ~other).sum())], [int((~right & other).sum()), 0]]
    return float(_mcnemar(table, exact=True).pvalue)


def holm_correction(p: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number (Holm 1979); None stays None and is not counted."""
    known = [i for i, value in enumerate(p) if value is not None]
    found: list[float | None] = [None] * len(p)
    if known:
        values = multipletests([p[i] for i in known], method="holm")[1]
        for i, value in zip(known, values, strict=True):
            found[i] = float(value)
    return found


def verdict(gain: float, p: float | None, seeds: int, alpha: float = ALPHA) -> Verdict:
    """Return the verdict on a difference; gain: the mean difference, above 0 where the method is better."""
    if seeds < LEAST_SEEDS or p is None:
        return UNKNOWN
    if p >= alpha:
        return NO_DIFFERENCE
    return "better" if gain > 0 else "worse"
