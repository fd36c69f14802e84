from types import SimpleNamespace

import numpy as np
import pytest

from demiglace.data.tokenize import TokenizedSplit
from demiglace.errors import DataError, ModelError, UserError
from demiglace.export.parity import Parity, assert_parity, compare, numpy_batches, predict_with
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.regression import REGRESSION


def examples_of(*lengths):
    ids = np.arange(1, 1 + sum(lengths), dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenizedSplit(ids, offsets, None, np.zeros(len(lengths), dtype=np.int64), pad_id=0, pad_left=False)


def test_batches_hold_the_rows_in_order_padded_and_filled_up_from_the_start():
    first, second = numpy_batches(examples_of(1, 3, 2), 2)
    assert first["input_ids"].tolist() == [[1, 0, 0], [2, 3, 4]]
    assert first["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert second["input_ids"].tolist() == [[5, 6], [1, 0]]
    assert first["input_ids"].dtype == np.int64


def test_more_places_than_rows():
    (batch,) = numpy_batches(examples_of(1, 1), 5)
    assert batch["input_ids"].tolist() == [[1], [2], [1], [2], [1]]


def test_filled_up_rows_do_not_count():
    runner = SimpleNamespace(logits=lambda batch: batch["input_ids"].astype(np.float32))
    logits = predict_with(runner, examples_of(1, 1, 1), 2)
    assert logits.tolist() == [[1], [2], [3]]


def test_no_rows():
    with pytest.raises(DataError, match="--data"):
        numpy_batches(examples_of(), 2)


def test_compare_classes():
    expected = np.array([[0.0, 1], [1, 0], [2, 0], [0, 3]])
    found = compare(expected, expected + np.array([[0, 0], [0, 1.5], [0, 0], [0.5, 0]]), CLASSIFICATION)
    assert found == Parity(label_agreement=0.75, largest_logit_difference=1.5, count=4)


def test_compare_numbers_within_one_per_cent_of_the_largest():
    expected = np.array([[0.0], [1], [2], [5]])
    found = compare(expected, expected + np.array([[0.04], [0], [-0.06], [0]]), REGRESSION)
    assert found.label_agreement == 0.75
    constant = np.full((3, 1), 2.0)
    assert compare(constant, constant, REGRESSION).label_agreement == 1.0


def test_artefact_that_yields_no_numbers():
    with pytest.raises(ModelError, match="not a finite number"):
        compare(np.zeros((2, 2)), np.full((2, 2), np.nan), CLASSIFICATION)


def test_check_refuses_an_artefact_that_differs():
    assert_parity(Parity(0.99, 5.0, 100), "model.onnx")
    with pytest.raises(UserError, match=r"model.onnx does not reproduce .*: 98.0% of 100 rows .* up to 0.5"):
        assert_parity(Parity(0.98, 0.5, 100), "model.onnx")
