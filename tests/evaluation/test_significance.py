"""Intervals, tests, detectable effects and verdicts of paired differences."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from demiglace.evaluation.bootstrap_metrics import SUMMED
from demiglace.evaluation.scores import METRICS
from demiglace.evaluation.significance import (
    PairedDifference,
    holm_correction,
    influence,
    mcnemar,
    paired_difference,
    paired_t_test,
    verdict,
)
from demiglace.tasks.metrics import OF_CLASSES, OF_NUMBERS
from demiglace.tasks.token_classification import TOKEN_CLASSIFICATION

OF_ROWS = [*OF_CLASSES, *OF_NUMBERS]


def classes(seed: int, rows: int = 60, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, count, rows), generator.integers(0, count, rows)


@pytest.mark.parametrize("metric", TOKEN_CLASSIFICATION.metrics)
@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_entities_from_sums_equal_those_of_seqeval(metric: str, seed: int) -> None:
    task = TOKEN_CLASSIFICATION.with_names(("O", "B-X", "I-X", "B-Y"))
    labels, predictions = (task.readable(ids.reshape(-1, 6)) for ids in classes(seed, count=4))
    labels[::3, 4:] = ""  # shorter rows
    predictions[1, 3] = ""  # a word without a prediction
    features = SUMMED[metric].features(labels, predictions)
    assert SUMMED[metric].value(features.sum(0)) == pytest.approx(METRICS[metric].function(labels, predictions))
    assert np.isfinite(influence(metric, labels, predictions)).all()


@pytest.mark.parametrize("metric", OF_ROWS)
@pytest.mark.parametrize("seed", range(5))
def test_metrics_from_sums_equal_the_metrics(metric: str, seed: int) -> None:
    labels, predictions = classes(seed)
    if metric in ("pearson", "spearman", "mse"):
        labels, predictions = labels + 0.5, predictions * 1.5
    predictions = predictions + (metric == "mrr")  # ranks
    found = SUMMED[metric].value(SUMMED[metric].features(labels, predictions).sum(0))
    assert found == pytest.approx(METRICS[metric].function(labels, predictions))


@pytest.mark.parametrize("metric", OF_ROWS)
def test_metrics_of_constant_predictions(metric: str) -> None:
    labels, constant = classes(0)[0], np.ones(60, int)
    found = SUMMED[metric].value(SUMMED[metric].features(labels, constant).sum(0))
    assert found == pytest.approx(METRICS[metric].function(labels, constant))
    assert np.isfinite(influence(metric, labels, constant)).all()


@pytest.mark.parametrize("metric", OF_ROWS)
def test_the_variance_of_the_influences_is_that_of_a_bootstrap_over_rows(metric: str) -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, 600)
    predictions = np.where(generator.random(600) < 0.7, labels, generator.integers(0, 3, 600))
    predictions = predictions + (metric == "mrr")  # ranks
    drawn = (generator.integers(0, 600, 600) for _ in range(1500))
    summed = SUMMED[metric]  # equal to the metrics, which take a hundred times as long: see above
    values = [summed.value(summed.features(labels[rows], predictions[rows]).sum(0)) for rows in drawn]
    error = (influence(metric, labels, predictions).var(ddof=1) / 600) ** 0.5
    assert error == pytest.approx(np.std(values), rel=0.12)


def test_without_rows_it_is_the_paired_t_test() -> None:
    ours, theirs = [0.81, 0.83, 0.82, 0.84], [0.80, 0.80, 0.81, 0.82]
    expected = stats.ttest_rel(ours, theirs)
    found = paired_difference(np.subtract(ours, theirs).tolist(), ())
    assert found.p() == pytest.approx(expected.pvalue) and found.df == 3
    ends = expected.confidence_interval(0.95)
    assert found.interval() == pytest.approx([ends.low, ends.high])
    assert paired_t_test(ours, theirs) == pytest.approx(expected.pvalue)
    assert paired_t_test([0.5], [0.4]) is None
    assert paired_t_test([0.5, 0.6], [0.5, 0.6]) == 1.0
    assert paired_t_test([0.5, 0.5], [0.25, 0.25]) is None
    assert paired_t_test([0.81, 0.82, 0.83], [0.80, 0.81, 0.82]) is None  # equal but for rounding
    assert paired_t_test([0.1 + 0.2, 0.5], [0.3, 0.5]) == 1.0


def test_both_ways_are_counted_once() -> None:
    generator = np.random.default_rng(0)
    unit, row = generator.normal(0, 0.05, (6, 1)), generator.normal(0, 1.5, 5000)
    each = unit + row + generator.normal(0, 1, (6, 5000))  # differences of each unit on each row
    found = paired_difference(each.mean(1).tolist(), [each - each.mean(1, keepdims=True)])
    wanted = unit.var(ddof=1) / 6 + row.var(ddof=1) / 5000 + 1 / (6 * 5000)
    assert found.error**2 == pytest.approx(wanted, rel=0.25)
    alone = paired_difference(each.mean(1).tolist(), ())
    assert found.error > alone.error and found.df > alone.df == 5
    halves = [each[:, :2500] / 2, each[:, 2500:] / 2]  # two sets, each half of the mean
    assert paired_difference(each.mean(1).tolist(), halves).error == pytest.approx(found.error, rel=0.01)


def test_units_that_tell_nothing_have_no_error() -> None:
    copies = np.tile(np.random.default_rng(0).integers(-1, 2, 50), (3, 1))
    assert paired_difference([0.1], [copies[:1]]).interval() is None
    twins = paired_difference([0.1, 0.1, 0.1], [copies])
    assert (twins.error, twins.p(), twins.detectable(), twins.equivalence(0.2)) == (None, None, None, None)
    same = paired_difference([0.0, 0.0, 0.0], [np.zeros((3, 50))])
    assert (same.p(), same.interval(), same.detectable(), same.equivalence(0.01)) == (1.0, [0.0, 0.0], None, 0.0)
    # as many rows are gained as lost by each unit, but not the same ones: chance is at work, and rows measure it
    rows = np.stack([np.random.default_rng(i).permutation(copies[0]) for i in range(3)])
    assert paired_difference([0.1, 0.1, 0.1], [rows - rows.mean()]).error > 0


def test_equivalence_is_two_one_sided_tests() -> None:
    values = np.array([0.004, -0.002, 0.003, 0.001, -0.001])
    lower = stats.ttest_1samp(values, -0.01, alternative="greater").pvalue
    upper = stats.ttest_1samp(values, 0.01, alternative="less").pvalue
    found = paired_difference(values.tolist(), ())
    assert found.equivalence(0.01) == pytest.approx(max(lower, upper)) and found.equivalence(0.01) < 0.05
    assert found.equivalence(0.0005) > 0.5  # the mean is outside the margin


@pytest.mark.parametrize(("count", "alpha"), [(3, 0.05), (5, 0.05), (5, 0.05 / 6), (8, 0.01)])
def test_the_detectable_effect_has_the_power(count: int, alpha: float) -> None:
    found = PairedDifference(0.0, 0.01, count - 1)
    effect = found.detectable(alpha, 0.8) / (0.01 * count**0.5)
    assert TTestPower().power(effect, count, alpha) == pytest.approx(0.8, abs=1e-4)


def test_mcnemar_counts_rows_that_one_side_gets_right() -> None:
    labels = np.zeros(30, int)
    ours, theirs = labels.copy(), labels.copy()
    theirs[:9], ours[9:10] = 1, 1
    assert mcnemar(labels, ours, theirs) == pytest.approx(stats.binomtest(9, 10).pvalue)
    assert mcnemar(labels, ours, ours) == 1.0


def test_corrections() -> None:
    assert holm_correction([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm_correction([None]) == [None]


@pytest.mark.parametrize(
    ("gain", "p", "seeds", "expected"),
    [
        (0.015, 0.01, 5, "better"),
        (-0.015, 0.01, 5, "worse"),
        (0.015, 0.05, 5, "no significant difference"),
        (0.015, 0.001, 2, "too few seeds to tell"),
        (0.015, None, 5, "too few seeds to tell"),
    ],
)
def test_verdicts(gain: float, p: float | None, seeds: int, expected: str) -> None:
    assert verdict(gain, p, seeds) == expected
