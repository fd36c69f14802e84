"""Another order of classes is reported where rows prove it, and only there."""

import numpy as np
import pytest

from demiglace.evaluation.label_order import better_order, contradiction


def noisy(labels, accuracy, classes, seed=0):
    generator = np.random.default_rng(seed)
    wrong = (labels + generator.integers(1, classes, len(labels))) % classes
    return np.where(generator.random(len(labels)) < accuracy, labels, wrong)


@pytest.mark.parametrize("order", [(1, 0), (2, 0, 1), (1, 0, 2, 3), tuple(range(10, -1, -1))])
def test_a_permuted_teacher_is_found(order):
    labels = np.random.default_rng(1).integers(0, len(order), 200)
    predictions = np.array(order)[noisy(labels, 0.85, len(order))]
    assert better_order(labels, predictions, len(order)).tolist() == list(order)


@pytest.mark.parametrize("accuracy", [0.9, 0.6])
@pytest.mark.parametrize("classes", [2, 5, 20])
def test_a_teacher_in_the_right_order_is_left_alone(accuracy, classes):
    labels = np.random.default_rng(2).integers(0, classes, 256)
    assert better_order(labels, noisy(labels, accuracy, classes), classes) is None


@pytest.mark.parametrize("classes", [2, 3, 10, 77])
@pytest.mark.parametrize("seed", range(20))
def test_a_teacher_at_chance_proves_nothing(classes, seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, 256)
    assert better_order(labels, generator.integers(0, classes, 256), classes) is None
    assert better_order(labels, np.full(256, seed % classes), classes) is None


def test_few_rows_prove_nothing():
    labels = np.array([0, 1] * 6)
    assert better_order(labels, 1 - labels, 2) is None


def test_the_message_holds_the_options():
    labels = np.array([0, 1] * 30)
    found = contradiction(labels, 1 - labels, ["bad", "good"], ["LABEL_0", "LABEL_1"])
    assert found.endswith("give --label-map.bad LABEL_1 --label-map.good LABEL_0")
    assert "accuracy 0.000 on 60 rows, and 1.000 in another order" in found
