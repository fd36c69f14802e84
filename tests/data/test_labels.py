"""Labels as they stand in files to ids and numbers."""

import math

import numpy as np
import pytest

from demiglace.data.rows.labels import encode, infer_task, label_space, label_text, plain_integers
from demiglace.data.rows.schema import LabelSpace
from demiglace.tasks.classification import CLASSIFICATION, UNLABELLED
from demiglace.tasks.regression import REGRESSION


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (3.0, "3"), (" 3 ", "3"), (2.5, "2.5"), (True, "true"), ("", None), ("  ", None), (None, None)],
)
def test_one_label_has_one_name(value: object, text: str | None) -> None:
    assert label_text(value) == text


def test_nan_is_a_missing_label() -> None:
    assert label_text(math.nan) is None


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["1", "2", "3"], "classification"),
        (["1.0", "2.0"], "classification"),
        (["0.5", "1", "3"], "regression"),
        ([*(str(i / 2) for i in range(30)), "n/a"], "regression"),
        (["1.5", "2.0", "other"], "classification"),
        (["good", "bad"], "classification"),
        ([], "classification"),
    ],
)
def test_numbers_with_a_fraction_are_regression(labels: list[str], problem: str) -> None:
    assert infer_task(labels).name == problem
    assert infer_task(labels, "regression") is REGRESSION


def test_classes_come_sorted_and_integers_by_size() -> None:
    assert label_space(["b", "a", "b"], CLASSIFICATION).names == ("a", "b")
    assert label_space(["10", "9", "-1"], CLASSIFICATION).names == ("-1", "9", "10")
    assert label_space(["10", "9", "x"], CLASSIFICATION).names == ("10", "9", "x")


def test_whole_numbers_lose_their_point_only_all_together() -> None:
    assert plain_integers(["1.0", "2", None]) == ["1", "2", None]
    assert plain_integers(["1.0", "x"]) == ["1.0", "x"]


def test_encoding_marks_missing_labels() -> None:
    ids = encode(["b", None, "a"], LabelSpace(CLASSIFICATION, ("a", "b")))
    assert ids.dtype == np.int64
    assert ids.tolist() == [1, UNLABELLED, 0]
    numbers = encode(["2.5", None], LabelSpace(REGRESSION))
    assert numbers.dtype == np.float32
    assert numbers[0] == 2.5
    assert np.isnan(numbers[1])
