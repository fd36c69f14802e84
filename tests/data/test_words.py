"""Words that have labels: their first tokens, in rows that are padded on either side, and the logits there."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from demiglace.data.batching import collate
from demiglace.data.rows.schema import Split
from demiglace.data.tokenize import concatenate, select, tokenize
from demiglace.errors import ModelError
from factories import decoder_tokenizer, tiny_tokenizer

WORDS = (("the", "film", "isn", "'", "t"), ("money", "\ufeff", "a"))
LABELS = np.array([[0, 1, 0, 0, 2], [1, 0, 2, -100, -100]])


def split_of(words: Sequence[Sequence[str]] = WORDS, labels: np.ndarray = LABELS) -> Split:
    lines = [("rows", i) for i in range(len(words))]
    return Split("train", [" ".join(row) for row in words], None, labels, lines, words=words)


def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, which marks a space by a letter, as that of RoBERTa; it merges the space with an f."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", *alphabet, "Ġf", "Ġi"])}
    core = Tokenizer(BPE(vocabulary, [("Ġ", "f"), ("Ġ", "i")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>")


def test_a_word_starts_where_a_tokenizer_of_words_says() -> None:
    tokenizer = tiny_tokenizer()
    examples = tokenize(split_of(), tokenizer, 64)
    encoded = tokenizer([list(words) for words in WORDS], is_split_into_words=True)
    assert examples.starts is not None
    for i, words in enumerate(WORDS):
        of_word = encoded.word_ids(i)
        expected = [of_word.index(w) if w in of_word else -1 for w in range(len(words))]
        assert examples.starts[i].tolist() == expected + [-1] * (5 - len(words))
        assert examples.ids[examples.offsets[i] : examples.offsets[i + 1]].tolist() == encoded["input_ids"][i]
    assert examples.starts[1].tolist()[1] == -1  # the tokenizer drops the byte order mark


def test_words_of_a_byte_level_tokenizer_keep_their_space() -> None:
    tokenizer = byte_level()
    examples = tokenize(split_of(), tokenizer, 64)
    assert examples.starts is not None
    first = [tokenizer.convert_ids_to_tokens(int(examples.ids[s])) for s in examples.starts[0]]
    assert first == ["t", "Ġf", "Ġi", "'", "t"]  # a space that is a token of its own is no part of a word


def test_words_beyond_the_maximum_length_have_no_token() -> None:
    examples = tokenize(split_of(), tiny_tokenizer(), 5)
    assert examples.starts is not None
    assert (examples.starts[0] >= 0).tolist() == [True, True, True, False, False]
    assert examples.units.tolist() == [3, 2] and examples.labelled.sum() == 5


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_has_the_logits_of_first_tokens(side: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    examples = tokenize(split_of(), tokenizer, 64)
    batch = collate(examples, np.array([1, 0]), weight=0.5)
    logits = batch.input_ids[..., None].float()  # of each token its id
    known = [tokenizer.convert_tokens_to_ids(t) for t in ("money", "a", "the", "film", "is", "'", "t")]
    assert batch.unit_logits(logits).flatten().tolist() == known
    labels, weights, labelled = batch.units
    assert (labels.tolist(), weights.tolist(), labelled.all()) == ([1, 2, 0, 1, 0, 0, 2], [0.5] * 7, True)
    stored = np.full((2, 5, 1), np.nan)
    stored[batch.unit_rows(np.array([1, 0]))] = batch.unit_logits(logits).numpy()
    assert np.isfinite(stored[..., 0]).tolist() == [[True] * 5, [True, False, True, False, False]]
    torch.testing.assert_close(
        torch.from_numpy(stored)[batch.rows][batch.word_index].float(), batch.unit_logits(logits)
    )


def test_rows_are_selected_and_concatenated_with_their_words() -> None:
    tokenizer = tiny_tokenizer()
    examples = tokenize(split_of(), tokenizer, 64)
    short = select(tokenize(split_of(WORDS[1:], LABELS[1:, :3]), tokenizer, 64), [0])
    both = concatenate(short, select(examples, [0]))
    expected = select(examples, [1, 0])
    for name in ("ids", "offsets", "labels", "starts"):
        np.testing.assert_array_equal(getattr(both, name), getattr(expected, name))
    assert both.fingerprint == expected.fingerprint
    assert both.fingerprint != replace(both, starts=both.starts + 1).fingerprint  # type: ignore[operator]


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow(PreTrainedTokenizerFast):
        is_fast = False

    tokenizer = Slow(tokenizer_object=decoder_tokenizer().backend_tokenizer)
    with pytest.raises(ModelError, match="Slow is a slow tokenizer"):
        tokenize(split_of(), tokenizer, 64)
