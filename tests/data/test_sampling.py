"""Splitting off a validation part, and drawing."""

import numpy as np
import pytest

from demiglace.data.rows.sampling import draw, stratified_holdout


def test_each_class_gives_its_share() -> None:
    classes = np.repeat([0, 1, 2], [500, 300, 200])
    held = stratified_holdout(range(1000), classes, 0.1)
    assert held.sum() == 100
    assert np.abs(np.bincount(classes[held]) - [50, 30, 20]).max() <= 1


def test_the_same_rows_every_time_and_not_the_first_ones() -> None:
    held = stratified_holdout(range(200), np.zeros(200, dtype=np.int64), 0.2)
    assert np.array_equal(held, stratified_holdout(range(200), np.zeros(200, dtype=np.int64), 0.2))
    assert not np.array_equal(held, stratified_holdout(range(200), np.zeros(200, dtype=np.int64), 0.2, seed=1))
    assert not held[:40].all()
    assert held.sum() == 40


def test_equal_rows_stay_on_one_side() -> None:
    keys = [i // 4 for i in range(400)]
    held = stratified_holdout(keys, np.zeros(400, dtype=np.int64), 0.25).reshape(100, 4)
    assert (held.all(axis=1) | ~held.any(axis=1)).all()
    assert held.sum() == 100


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_every_class_keeps_a_training_row(fraction: float) -> None:
    classes = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    held = stratified_holdout(range(10), classes, fraction)
    assert set(classes[~held]) == {0, 1, 2, 3}


def test_one_row_cannot_be_split() -> None:
    assert not stratified_holdout(["a"], np.zeros(1, dtype=np.int64), 0.5).any()


def test_a_draw_is_sorted_distinct_and_no_larger_than_the_whole() -> None:
    rows = draw(100, 10)
    assert len(set(rows.tolist())) == 10
    assert rows.tolist() == sorted(rows.tolist())
    assert rows.tolist() == draw(100, 10).tolist()
    assert rows.tolist() != draw(100, 10, seed=1).tolist()
    assert draw(5, 10).tolist() == [0, 1, 2, 3, 4]
