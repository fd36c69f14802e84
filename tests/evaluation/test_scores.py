import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from demiglace.errors import ConfigError, DataError, ModelError
from demiglace.evaluation.scores import METRICS, agreement, compute, predictions_of
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.regression import REGRESSION

OF_CLASSES = ("accuracy", "f1", "macro_f1", "matthews")
OF_NUMBERS = ("pearson", "spearman", "mse")


def one_hot(classes, width=3):
    return np.eye(width, dtype=np.float32)[classes]


def column(numbers):
    return np.asarray(numbers, dtype=np.float32)[:, None]


def test_known_values():
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    found = compute(OF_CLASSES, labels, one_hot([1, 1, 0, 1, 0, 0, 0, 0], 2), CLASSIFICATION)
    assert found["accuracy"] == 6 / 8
    assert found["f1"] == pytest.approx(2 / 3)  # precision and recall are 2/3
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert found["matthews"] == pytest.approx((2 * 4 - 1) / np.sqrt(3 * 3 * 5 * 5))


def test_known_values_of_numbers():
    found = compute(OF_NUMBERS, np.array([0.0, 1.0, 2.0, 3.0]), column([1, 3, 5, 7]), REGRESSION)
    assert found == {
        "pearson": pytest.approx(1.0),
        "spearman": pytest.approx(1.0),
        "mse": pytest.approx((1 + 4 + 9 + 16) / 4),
    }
    monotone = compute(("pearson", "spearman"), np.arange(4.0), column([0, 1, 8, 27]), REGRESSION)
    assert monotone["spearman"] == pytest.approx(1) and monotone["pearson"] < 0.95


def test_every_metric_is_best_at_its_best():
    classes = np.array([0, 1, 2, 1])
    numbers = np.array([0.5, -1.0, 2.0, 4.0])
    assert compute(OF_CLASSES, classes, one_hot(classes), CLASSIFICATION) == dict.fromkeys(OF_CLASSES, 1.0)
    best = compute(OF_NUMBERS, numbers, column(numbers), REGRESSION)
    assert best == pytest.approx({"pearson": 1.0, "spearman": 1.0, "mse": 0.0}, abs=1e-6)
    assert {n for n, m in METRICS.items() if not m.higher_is_better} == {"mse"}
    assert {*OF_CLASSES, *OF_NUMBERS} < set(METRICS)


def test_f1_is_of_class_1_even_among_three():
    found = compute(["f1"], np.array([1, 1, 2, 0]), one_hot([1, 2, 2, 0]), CLASSIFICATION)
    assert found["f1"] == pytest.approx(2 / 3)


def test_rows_without_label_do_not_count():
    labels = np.array([0, -100, 1])
    assert compute(["accuracy"], labels, one_hot([0, 2, 1]), CLASSIFICATION) == {"accuracy": 1.0}
    logits = column([1, np.nan, 2])  # an unlabelled row's logit is not even looked at
    assert compute(["mse"], np.array([1, np.nan, 2]), logits, REGRESSION) == {"mse": 0.0}


@pytest.mark.parametrize("labels", [[-100, -100], []])
def test_no_labels_at_all(labels):
    with pytest.raises(DataError, match="none of the rows has a label"):
        compute(["accuracy"], np.array(labels), one_hot([0] * len(labels)), CLASSIFICATION)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_no_numbers(bad):
    logits = one_hot([0, 1, 2])
    logits[1, 0] = bad
    with pytest.raises(ModelError, match=r"not a finite number for 1 of 3 rows \(first: row 1\)"):
        compute(["accuracy"], np.array([0, 1, 2]), logits, CLASSIFICATION)


def test_constant_predictions_score_zero_without_a_warning(recwarn):
    numbers = compute(("pearson", "spearman"), np.array([1.0, 2.0, 3.0]), column([5, 5, 5]), REGRESSION)
    assert numbers == {"pearson": 0.0, "spearman": 0.0}
    classes = compute(("matthews", "f1", "macro_f1"), np.array([1, 1, 2]), one_hot([0, 0, 0]), CLASSIFICATION)
    assert classes == {"matthews": 0.0, "f1": 0.0, "macro_f1": 0.0}
    assert compute(["pearson"], np.array([1.0]), column([5]), REGRESSION) == {"pearson": 0.0}
    one = compute(["matthews"], np.array([1, 1]), one_hot([1, 1]), CLASSIFICATION)
    assert one == {"matthews": 0.0}  # a single class on both sides
    assert not recwarn.list


def test_unknown_and_unfitting_metrics_are_named():
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        compute(["acuracy"], np.array([0]), one_hot([0]), CLASSIFICATION)
    with pytest.raises(ConfigError, match=r"'pearson' does not go with classification; take one of accuracy"):
        compute(["pearson"], np.array([0]), one_hot([0]), CLASSIFICATION)
    with pytest.raises(ConfigError, match="'accuracy' does not go with regression"):
        compute(["accuracy"], np.array([0.0]), column([0]), REGRESSION)


def test_several_classes_of_the_model_may_count_as_one():
    class_map = np.array([0, 1, 1])  # entailment; neutral and contradiction are both non-entailment
    logits = one_hot([0, 1, 2, 2])
    assert predictions_of(logits, CLASSIFICATION, class_map).tolist() == [0, 1, 1, 1]
    found = compute(["accuracy"], np.array([0, 1, 1, 0]), logits, CLASSIFICATION, class_map)
    assert found == {"accuracy": 0.75}


def test_agreement():
    assert agreement(one_hot([0, 1, 2, 2]), one_hot([0, 1, 1, 2]), CLASSIFICATION) == 0.75
    merged = agreement(one_hot([0, 1, 2, 2]), one_hot([0, 1, 1, 0]), CLASSIFICATION, np.array([0, 1, 1]))
    assert merged == 0.75  # classes that count as one agree
    assert agreement(column([1, 2, 3]), column([-2, -4, -6]), REGRESSION) == pytest.approx(-1)
    with pytest.raises(DataError, match="no rows"):
        agreement(one_hot([]), one_hot([]), CLASSIFICATION)


@pytest.mark.filterwarnings("ignore:A single label was found")  # scikit-learn's, called by the test itself
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_classes_equal_scikit_learn(pairs):
    labels, predictions = np.array(pairs).T
    found = compute(("accuracy", "macro_f1", "matthews"), labels, one_hot(predictions, 4), CLASSIFICATION)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predictions))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, predictions, average="macro"))
    assert found["matthews"] == pytest.approx(sk.matthews_corrcoef(labels, predictions))


def test_numbers_equal_scipy():
    rng = np.random.default_rng(0)
    labels, predictions = rng.normal(size=40), rng.normal(size=40).astype(np.float32)
    found = compute(OF_NUMBERS, labels, predictions[:, None], REGRESSION)
    assert found["pearson"] == pytest.approx(stats.pearsonr(labels, predictions).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(labels, predictions).statistic)
    assert found["mse"] == pytest.approx(np.mean((labels - predictions) ** 2))
