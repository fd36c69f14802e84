import numpy as np
import pytest
import torch

from demiglace.data.batching import collate
from demiglace.data.rows.schema import Split
from demiglace.data.tokenize import TokenizedSplit, tokenize
from demiglace.evaluation.predict import predict
from factories import tiny_model, tiny_tokenizer

TEXTS = ["good film", "the red card is not lost and it is great", "no", "bad money, awful!", "yes " * 20]


def examples_of(texts=TEXTS, segments=True):
    split = Split("test", texts, None, np.zeros(len(texts), dtype=np.int64), [("t", 1)] * len(texts))
    return tokenize(split, tiny_tokenizer(segments=segments), max_length=64)


@pytest.mark.parametrize("batch_tokens", [1, 40, 16384])
def test_rows_come_back_in_their_order(batch_tokens):
    model, examples = tiny_model("bert", num_layers=2), examples_of()
    logits = predict(model, examples, batch_tokens=batch_tokens)
    with torch.no_grad():
        alone = [model(**collate(examples, np.array([i])).inputs).logits[0].numpy() for i in range(len(TEXTS))]
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, np.stack(alone), atol=1e-5)


def test_no_dropout_and_the_modes_come_back():
    model, examples = tiny_model("bert", num_layers=2), examples_of()
    expected = predict(model, examples)
    model.train()
    frozen = model.bert.embeddings.eval()
    np.testing.assert_array_equal(predict(model, examples), expected)
    assert model.training and model.bert.encoder.training and not frozen.training


def test_modes_come_back_after_an_error():
    model = tiny_model("bert", num_layers=2).train()
    examples = examples_of(["yes " * 60])
    examples.ids[:] = 10_000  # beyond the vocabulary
    with pytest.raises(IndexError):
        predict(model, examples)
    assert model.training


def test_low_precision_is_near_and_returned_in_float32():
    model, examples = tiny_model("bert", num_layers=2), examples_of()
    exact, near = predict(model, examples), predict(model, examples, precision="bf16")
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.1


def test_no_rows_give_no_logits():
    none = np.zeros(0, dtype=np.int64)
    empty = TokenizedSplit(none, np.zeros(1, dtype=np.int64), None, none, pad_id=0, pad_left=False)
    assert predict(tiny_model("bert", num_layers=2), empty).shape == (0, 3)


def test_progress_is_shown_when_described(capsys):
    predict(tiny_model("bert", num_layers=2), examples_of(), describe="counting rows")
    shown = capsys.readouterr()
    assert "counting rows" in shown.err and "5/5" in shown.err and not shown.out
