"""Calibration and the worst class."""

import tracemalloc

import numpy as np
import pytest

from demiglace.evaluation import calibration
from demiglace.evaluation.calibration import confidences, expected_calibration_error, worst_class_f1


def test_confidence_is_the_probability_of_the_answer() -> None:
    logits = np.log([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    assert confidences(logits) == pytest.approx([0.7, 0.4])
    assert confidences(logits, np.array([0, 1, 1])) == pytest.approx([0.7, 0.7])  # 0.3 + 0.4 count as one


def test_calibration_error_by_hand() -> None:
    correct = np.array([True, False, True, True])
    confidence = np.array([0.55, 0.55, 0.95, 1.0])
    # two bins of two rows: |0.5 − 0.55| and |1 − 0.975|
    assert expected_calibration_error(correct, confidence, bins=10) == pytest.approx(0.5 * 0.05 + 0.5 * 0.025)


def test_calibrated_answers_have_no_error() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.3, 1, 100_000)
    correct = generator.random(100_000) < confidence
    assert expected_calibration_error(correct, confidence) < 0.01
    assert expected_calibration_error(correct, np.ones(100_000)) == pytest.approx(0.35, abs=0.01)


def test_worst_class() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert worst_class_f1(labels, labels) == 1
    assert worst_class_f1(labels, np.array([0, 0, 0, 1, 2, 0])) == 0
    assert worst_class_f1(np.array([0, 0, 1]), np.array([0, 3, 1])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("class_map", [None, np.arange(500) // 2])
def test_blocks_of_rows_change_no_confidence_and_take_little_memory(class_map, monkeypatch):
    logits = np.random.default_rng(0).normal(size=(4000, 500)).astype(np.float32)
    whole = confidences(logits, class_map)
    monkeypatch.setattr(calibration, "_BLOCK", 10_000)
    tracemalloc.start()
    try:
        assert np.array_equal(confidences(logits, class_map), whole)
        assert tracemalloc.get_traced_memory()[1] < logits.nbytes // 4
    finally:
        tracemalloc.stop()


def test_no_rows_have_no_confidences():
    assert confidences(np.zeros((0, 3), np.float32)).shape == (0,)
