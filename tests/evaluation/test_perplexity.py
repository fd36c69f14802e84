"""Perplexity against a plain computation, the windows' promise, and last words."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from demiglace.config.data import ReadConfig
from demiglace.data.text.blocks import Masking, all_blocks
from demiglace.data.text.calibration_sample import drawn_rows
from demiglace.data.text.text_bounds import TextBounds, text_bounds
from demiglace.data.text.token_shards import Corpus, load_corpus
from demiglace.errors import ConfigError, DataError, ModelError
from demiglace.evaluation.perplexity import LastWord, block_loss, last_word, last_words, perplexity, windows
from text_kit import begin_texts, byte_tokenizer, sentences, tiny_lm, write_jsonl

TOKENIZER = byte_tokenizer(mask=True)
END = TOKENIZER.eos_token_id
BOUNDS = TextBounds(None, END, False)


def words_of(texts: list[str], size: int) -> list[LastWord]:
    return [last_word(TOKENIZER, text, size) for text in texts]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    file = write_jsonl(tmp_path / "a.jsonl", [*sentences(6), "two words é"])
    return load_corpus(tmp_path / "tokens", [str(file)], TOKENIZER, ReadConfig())


@pytest.mark.parametrize(("tokens", "size", "stride"), [(10, 4, 4), (10, 4, 1), (9, 3, 2), (3, 8, 8), (8, 8, 3)])
def test_windows_count_every_token_once(tokens: int, size: int, stride: int) -> None:
    plan = windows(tokens, size, stride)
    counted = [t for w in plan for t in range(w.first, w.end)]
    assert counted == list(range(tokens))
    assert all(0 < w.end - w.begin <= size for w in plan)
    assert all(w.first - w.begin >= min(size - stride, w.first) for w in plan)


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
@pytest.mark.parametrize("stride", [20, 7])
def test_perplexity_is_the_plain_one(corpus: Corpus, arch: str, stride: int) -> None:
    model, size = tiny_lm(arch, len(TOKENIZER)), 20
    tokens = corpus.read(0, len(corpus))
    total = text = 0.0
    for window in windows(len(tokens), size, stride):
        row = [END, *tokens][window.begin : window.end]
        logits = model(input_ids=torch.tensor([row])).logits[0].double()
        losses = F.cross_entropy(logits, torch.tensor(tokens[window.begin : window.end]), reduction="none")
        for place, loss in zip(range(window.begin, window.end), losses.tolist(), strict=True):
            if place >= window.first:
                total += loss
                text += loss * (tokens[place] != END)
    result = perplexity(model, corpus, BOUNDS, size, stride)
    found, parts = result.scores, result.parts
    assert parts["losses"].sum() / parts["tokens"].sum() == pytest.approx(found["loss"])
    assert parts["tokens"].tolist() == [w.end - w.first for w in windows(len(tokens), size, stride)]
    assert found["loss"] == pytest.approx(total / len(tokens), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / len(tokens)), rel=1e-5)
    assert found["word_perplexity"] == pytest.approx(math.exp(text / corpus.words), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(text / math.log(2) / corpus.bytes, rel=1e-5)
    assert found["tokens"] == len(tokens)


@pytest.mark.parametrize(("adds_end", "stride"), [(False, 20), (True, 7)])
def test_each_document_begins_with_the_beginning_token(corpus: Corpus, adds_end: bool, stride: int) -> None:
    """As the model was trained: each document separately, each window after <s>, which is not scored."""
    model, size, begin = tiny_lm("llama", len(TOKENIZER)), 20, TOKENIZER.mask_token_id
    losses, text = [], 0.0
    for document in [*sentences(6), "two words é"]:
        tokens = [*TOKENIZER(document)["input_ids"], *([END] if adds_end else [])]
        for window in windows(len(tokens), size, stride):
            row = [begin, *tokens[window.begin : window.end]]
            logits = model(input_ids=torch.tensor([row])).logits[0, :-1].double()
            each = F.cross_entropy(logits, torch.tensor(row[1:]), reduction="none")[window.first - window.begin :]
            losses += each.tolist()
            text += sum(n for n, t in zip(each.tolist(), tokens[window.first : window.end], strict=True) if t != END)
    found = perplexity(model, corpus, TextBounds(begin, END, adds_end, "<s>"), size, stride).scores
    assert found["tokens"] == len(losses)
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(text / math.log(2) / corpus.bytes, rel=1e-5)


def test_the_beginning_token_is_the_one_that_the_tokenizer_adds() -> None:
    plain, begins = byte_tokenizer(), begin_texts(byte_tokenizer())
    assert text_bounds(plain, "auto") == TextBounds(None, END, False)
    found = text_bounds(begins, "auto")
    assert (found.begin, found.adds_end, found.name) == (begins.bos_token_id, False, "<s>")
    assert "each window after the beginning token <s>" in found.describe()
    without = text_bounds(begins, "false")
    assert without.begin is None and "--add-bos false leaves out <s>, which" in without.describe()
    both = text_bounds(begin_texts(byte_tokenizer(), end=True), "auto")
    assert both.begin == begins.bos_token_id and both.adds_end
    named = byte_tokenizer()
    named.add_special_tokens({"bos_token": "<s>"})  # as Qwen's and Pythia's: one that is not put before texts
    assert text_bounds(named, "auto").begin is None and text_bounds(named, "true").begin == named.bos_token_id
    assert "the tokenizer has <s> and does not add it" in text_bounds(named, "auto").describe()
    with pytest.raises(ConfigError, match="--add-bos true was given, and the tokenizer has no beginning-of-text token"):
        text_bounds(plain, "true")


def test_blocks_begin_with_the_beginning_token(corpus: Corpus) -> None:
    plain = all_blocks(corpus, 16)
    blocks = replace(plain, begin=99)
    ours, theirs = (each.batch(np.arange(3), "cpu", 1.0, 0) for each in (blocks, plain))
    assert (ours.input_ids[:, 0] == 99).all() and torch.equal(ours.labels, theirs.labels)
    assert torch.equal(ours.input_ids[:, 1:], theirs.input_ids[:, 1:])
    drawn = drawn_rows(blocks, 1000, 8)
    assert (drawn.ids[drawn.offsets[:-1]] == 99).all()


def test_bits_per_byte_of_a_model_that_knows_nothing(corpus: Corpus) -> None:
    model = tiny_lm("gpt2", len(TOKENIZER))
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    found = perplexity(model, corpus, BOUNDS, 16, 16).scores
    assert found["perplexity"] == pytest.approx(len(TOKENIZER), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(math.log2(len(TOKENIZER)), rel=1e-5)  # a token is a byte here


@pytest.mark.parametrize("arch", ["gpt2", "bert"])
def test_block_loss_is_the_mean_over_what_is_predicted(corpus: Corpus, arch: str) -> None:
    model = tiny_lm(arch, len(TOKENIZER))
    masking = Masking(0.25, TOKENIZER.mask_token_id, (0, len(TOKENIZER)), 0) if arch == "bert" else None
    blocks = all_blocks(corpus, 16, masking)
    batch = blocks.batch(np.arange(len(blocks)), "cpu", 1.0, 0)
    logits = model(**batch.inputs).logits
    if batch.positions is not None:
        logits = logits[torch.arange(len(logits))[:, None], batch.positions]
    expected = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()).item()
    found = block_loss(model, blocks, "fp32")
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)


def test_a_model_that_is_damaged(corpus: Corpus) -> None:
    model = tiny_lm("gpt2", len(TOKENIZER))
    torch.nn.init.constant_(model.get_output_embeddings().weight, math.nan)
    for measure in (
        lambda: block_loss(model, all_blocks(corpus, 16, None), "fp32"),
        lambda: perplexity(model, corpus, BOUNDS, 16, 16),
        lambda: last_words(model, [LastWord([1, 2, 3], 1)]),
    ):
        with pytest.raises(ModelError, match="loss is nan and not a finite number"):
            measure()


def test_last_words_of_a_model_that_has_learned_them() -> None:
    model, text = tiny_lm("gpt2", len(TOKENIZER)), "the cat sat on the mat"
    ids = torch.tensor([TOKENIZER(text)["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = last_words(model.eval(), words_of([text, "the cat sat on the dog"], 64))
    assert found.scores["accuracy"] == 0.5 and found.parts["right"].tolist() == [True, False]


def test_last_words_are_the_plain_ones() -> None:
    model, texts = tiny_lm("gpt2", len(TOKENIZER)), sentences(4, seed=5)
    losses, right = [], 0
    for text in texts:
        context, word = text.rsplit(" ", 1)
        before, after = (TOKENIZER(t)["input_ids"] for t in (context, " " + word))
        logits = model(input_ids=torch.tensor([before + after[:-1]])).logits[0, -len(after) :]
        losses.append(F.cross_entropy(logits, torch.tensor(after), reduction="sum").item())
        right += logits.argmax(-1).tolist() == after
    result = last_words(model, words_of(texts, 250))
    found = result.scores
    assert result.parts["losses"] == pytest.approx(losses, rel=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert found["accuracy"] == right / len(texts) and found["texts"] == 4


def test_a_text_of_one_word_has_no_last_one() -> None:
    with pytest.raises(DataError, match="fewer than two words"):
        last_word(TOKENIZER, " word\n", 8)


def test_any_white_space_parts_words() -> None:
    for text, word in (("a\nbc", "\nbc"), ("a  bc ", " bc"), ("a\tb\n\nc\n", "\nc")):
        found = last_word(TOKENIZER, text, 50)
        assert TOKENIZER.decode(found.ids[-found.count :]) == word
        assert TOKENIZER.decode(found.ids) == text.rstrip()


def test_a_last_word_fits_the_window_or_is_refused() -> None:
    assert last_word(TOKENIZER, "text " + "x" * 7, 8).count == 8
    assert len(last_word(TOKENIZER, "text " + "x" * 7, 8).ids) == 9
    with pytest.raises(DataError, match=r"ends in a word of 9 tokens; expected 1 to 8.*larger --block-size"):
        last_word(TOKENIZER, "text " + "x" * 8, 8)


def test_a_last_word_is_encoded_in_its_text() -> None:
    """Llama 2 puts a ▁ before all it is given; alone, the word would get one more than in the text."""
    core = Tokenizer(BPE({t: i for i, t in enumerate(["▁", "a", "b", "▁a", "▁b"])}, [("▁", "a"), ("▁", "b")]))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found = last_word(PreTrainedTokenizerFast(tokenizer_object=core), "a b", 8)
    assert (list(found.ids), found.count) == ([3, 4], 1)


def test_a_beginning_token_takes_room_before_a_last_word() -> None:
    plain, begun = last_word(TOKENIZER, "some text word", 8), last_word(TOKENIZER, "some text word", 8, 99)
    assert begun.ids == [99, *plain.ids[1:]] and begun.count == plain.count == 5
    short = last_word(TOKENIZER, "a b", 8)
    assert last_word(TOKENIZER, "a b", 8, 99).ids == [99, *short.ids]


def test_a_word_that_is_one_token_with_its_context_takes_all_of_it() -> None:
    core = Tokenizer(BPE({t: i for i, t in enumerate(["a", "b", "c", " ", "b ", "b c"])}, [("b", " "), ("b ", "c")]))
    found = last_word(PreTrainedTokenizerFast(tokenizer_object=core), "ab c", 8)
    assert (list(found.ids), found.count) == ([0, 5], 1)
