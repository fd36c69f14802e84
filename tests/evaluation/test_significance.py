"""Bootstrap intervals, tests and verdicts."""

import numpy as np
import pytest
from scipy import stats

from demiglace.evaluation.metrics import METRICS
from demiglace.evaluation.significance import corrected, interval, mcnemar, resampled, seed_test, verdict
from demiglace.evaluation.sums import SUMMED


def classes(seed: int, rows: int = 60, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, count, rows), generator.integers(0, count, rows)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_metrics_from_sums_equal_the_metrics(metric: str, seed: int) -> None:
    labels, predictions = classes(seed)
    if metric in ("pearson", "spearman", "mse"):
        labels, predictions = labels + 0.5, predictions * 1.5
    found = SUMMED[metric].value(SUMMED[metric].features(labels, predictions).sum(0))
    assert found == pytest.approx(METRICS[metric].function(labels, predictions))


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_of_constant_predictions(metric: str) -> None:
    labels, constant = classes(0)[0], np.ones(60, int)
    found = SUMMED[metric].value(SUMMED[metric].features(labels, constant).sum(0))
    assert found == pytest.approx(METRICS[metric].function(labels, constant))


def test_a_resample_is_the_metric_of_drawn_rows() -> None:
    labels, predictions = classes(1, rows=2000)
    found = resampled("accuracy", labels, [predictions, labels], resamples=2000)
    assert found.shape == (2000, 2)
    assert (found[:, 1] == 1).all()
    right = labels == predictions
    assert found[:, 0].mean() == pytest.approx(right.mean(), abs=0.002)
    assert found[:, 0].std() == pytest.approx(right.std() / 2000**0.5, rel=0.1)


def test_interval_agrees_with_scipy_for_one_seed() -> None:
    generator = np.random.default_rng(3)
    labels = np.ones(400, int)
    ours, theirs = (generator.random(400) < 0.8).astype(int), (generator.random(400) < 0.7).astype(int)
    values = resampled("accuracy", labels, [ours, theirs])
    low, high = interval(values[:, :1], values[:, 1:])
    expected = stats.bootstrap(
        (ours - theirs,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.005)


def test_interval_of_equal_models_is_zero_and_holds_seeds_too() -> None:
    labels, predictions = classes(4)
    values = resampled("accuracy", labels, [predictions] * 3, resamples=500)
    assert interval(values, values) == (0.0, 0.0)
    spread = values + np.array([0.0, 0.1, 0.2])  # seeds that differ by more than the rows do
    low, high = interval(spread, np.zeros_like(spread))
    narrow = interval(values + 0.1, np.zeros_like(values))
    assert high - low > 1.1 * (narrow[1] - narrow[0])


def test_seed_test_is_the_paired_t_test() -> None:
    ours, theirs = [0.81, 0.83, 0.82, 0.84], [0.80, 0.80, 0.81, 0.82]
    assert seed_test(ours, theirs) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert seed_test([0.5], [0.4]) is None
    assert seed_test([0.5, 0.6], [0.5, 0.6]) == 1.0
    assert seed_test([0.5, 0.5], [0.25, 0.25]) is None
    assert seed_test([0.81, 0.82, 0.83], [0.80, 0.81, 0.82]) is None  # equal but for rounding
    assert seed_test([0.1 + 0.2, 0.5], [0.3, 0.5]) == 1.0


def test_under_the_null_few_verdicts_are_wrong() -> None:
    generator, wrong = np.random.default_rng(5), 0
    for _ in range(200):
        labels = np.ones(200, int)
        sides = [(generator.random((5, 200)) < 0.8).astype(int) for _ in range(2)]
        values = resampled("accuracy", labels, [*sides[0], *sides[1]], resamples=200)
        p = seed_test(sides[0].mean(1), sides[1].mean(1))
        wrong += verdict(interval(values[:, :5], values[:, 5:]), p, 5) != "no significant difference"
    assert wrong <= 20  # 10 are expected of the t-test alone


def test_mcnemar_counts_rows_that_one_side_gets_right() -> None:
    labels = np.zeros(30, int)
    ours, theirs = labels.copy(), labels.copy()
    theirs[:9], ours[9:10] = 1, 1
    assert mcnemar(labels, ours, theirs) == pytest.approx(stats.binomtest(9, 10).pvalue)
    assert mcnemar(labels, ours, ours) == 1.0


def test_corrections() -> None:
    assert corrected([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert corrected([None]) == [None]


@pytest.mark.parametrize(
    ("interval_", "p", "seeds", "expected"),
    [
        ((0.01, 0.02), 0.01, 5, "better"),
        ((-0.02, -0.01), 0.01, 5, "worse"),
        ((-0.01, 0.02), 0.01, 5, "no significant difference"),
        ((0.01, 0.02), 0.05, 5, "no significant difference"),
        ((0.01, 0.02), 0.001, 2, "too few seeds to tell"),
        ((0.01, 0.02), None, 5, "too few seeds to tell"),
    ],
)
def test_verdicts(interval_: tuple[float, float], p: float | None, seeds: int, expected: str) -> None:
    assert verdict(interval_, p, seeds) == expected
