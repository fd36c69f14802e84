"""Trimmed vocabularies: the same tokens under new ids, for every kind of tokenizer, and models that fit them."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from vocabulary_kit import KINDS, random_texts, tokenizer_of

from demiglace.errors import ConfigError, ModelError
from demiglace.models.bpe_merges import Merges
from demiglace.models.trimmed_model import trim_model
from demiglace.models.trimmed_tokenizer import choose_vocabulary, coverage, trim_tokenizer
from demiglace.models.vocabulary import TrimmedVocabulary, token_counts, trim_vocabulary
from factories import ARCHITECTURES, VOCABULARY, tiny_model, tiny_tokenizer
from text_kit import tiny_lm


@pytest.fixture(scope="module", params=KINDS)
def full(request):
    return tokenizer_of(request.param)


@pytest.fixture(scope="module")
def trimmed(full):
    """The vocabulary of twelve texts, and the tokenizer that has it."""
    vocabulary = trim_vocabulary(full, token_counts(full, random_texts(12, seed=2)))
    return vocabulary, trim_tokenizer(full, vocabulary)


def test_texts_of_kept_tokens_are_split_as_before(full, trimmed):
    vocabulary, small = trimmed
    assert len(small) == len(vocabulary) < 0.9 * len(full)
    kept = random_texts(12, seed=2)
    for text in kept:
        assert np.array_equal(vocabulary.new_ids[full(text).input_ids], small(text).input_ids)
    pair = full(kept[0], kept[1]).input_ids
    assert np.array_equal(vocabulary.new_ids[pair], small(kept[0], kept[1]).input_ids)
    # further texts that happen to consist of kept tokens: coverage raises for the first that is split otherwise
    found = coverage(full, small, vocabulary, random_texts(600, seed=3, words=3))
    assert 20 < found.texts - found.changed < found.texts and found.growth > 0


def test_no_text_gets_unknown_tokens_and_all_decode_to_the_same(full, trimmed):
    _, small = trimmed
    for text in random_texts(200, seed=4):
        before, after = full(text).input_ids, small(text).input_ids
        assert full.unk_token_id is None or full.unk_token_id not in before
        assert small.unk_token_id is None or small.unk_token_id not in after
        assert small.decode(after) == full.decode(before)


def test_saved_and_loaded_it_is_the_same(full, trimmed, tmp_path):
    vocabulary, small = trimmed
    small.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = random_texts(50, seed=5)
    assert again(texts).input_ids == small(texts).input_ids
    for role in ("pad", "unk", "cls", "sep", "mask"):
        old = getattr(full, f"{role}_token_id")
        assert getattr(again, f"{role}_token_id") == (None if old is None else vocabulary.new_ids[old])
    assert full(texts[0]).input_ids == tokenizer_ids_of(full, texts[0])  # the full one is not changed


def tokenizer_ids_of(tokenizer, text):
    return Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()).encode(text).ids


def test_a_size_keeps_the_most_frequent_tokens(full):
    counts = token_counts(full, random_texts(200, seed=6))
    vocabulary = trim_vocabulary(full, counts)
    least = len(trim_vocabulary(full, np.minimum(counts, 0)))
    size = (least + len(vocabulary)) // 2
    small = trim_vocabulary(full, counts, size=size)
    assert len(small) <= size < len(vocabulary)
    assert small.removed_used > 0 == vocabulary.removed_used
    removed = np.setdiff1d(vocabulary.kept, small.kept)
    kept = np.intersect1d(np.flatnonzero(counts), small.kept)
    assert np.median(counts[kept]) > np.median(counts[removed])
    coverage(full, trim_tokenizer(full, small), small, random_texts(100, seed=7))
    with pytest.raises(ConfigError, match=r"--vocabulary-size 3 was given, and \d+ tokens are always kept"):
        trim_vocabulary(full, counts, size=3)


def test_letters_of_other_scripts_are_removed():
    letters = [*"abcxyz", "中", "я", "é", "€", "5"]
    tokens = ["[UNK]", *letters, *(f"##{c}" for c in letters), "abc", "xyz"]
    core = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    core["model"]["vocab"] = {token: i for i, token in enumerate(tokens)}
    core["added_tokens"], core["post_processor"] = [], None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(core)), unk_token="[UNK]")
    small = trim_tokenizer(tokenizer, trim_vocabulary(tokenizer, token_counts(tokenizer, ["abc", "é"])))
    assert set(tokens) - small.get_vocab().keys() == {"中", "##中", "я", "##я", "xyz"}


def test_the_parts_of_a_token_are_those_of_its_own_encoding():
    # abc is made of a and bc (rank 0), although ab and c can be merged too
    vocabulary = {t: i for i, t in enumerate(["a", "b", "c", "d", "bc", "ab", "abc", "abcd"])}
    pairs = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc"), ("abc", "d")]
    merges = Merges({"merges": pairs})
    assert merges.parts("abc") == {"a", "b", "c", "bc", "abc"}
    assert merges.parts("abcd") == {"a", "b", "c", "d", "bc", "abc", "abcd"}
    assert merges.parts("da") == {"da"}
    assert merges.among({"a", "b", "c", "bc", "abc"}) == [("b", "c"), ("a", "bc")]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE(vocabulary, pairs)))
    small = trim_tokenizer(tokenizer, trim_vocabulary(tokenizer, token_counts(tokenizer, ["abc"])))
    assert sorted(small.get_vocab()) == ["a", "abc", "b", "bc", "c", "d"]
    assert small.convert_ids_to_tokens(small("abc").input_ids) == ["abc"]


def test_merges_of_older_files_are_one_text():
    assert Merges({"merges": ["a b", "ab c"]}).parts("abc") == {"a", "b", "c", "ab", "abc"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_trimmed_classifier_computes_the_same(arch):
    model, tokenizer = tiny_model(arch, num_layers=2), tiny_tokenizer()
    vocabulary = trim_vocabulary(tokenizer, token_counts(tokenizer, ["the good film"]), model.config)
    small = trim_model(model, vocabulary)
    assert small.config.vocab_size == len(vocabulary) == small.get_input_embeddings().num_embeddings < len(VOCABULARY)
    ids = torch.tensor([tokenizer("the good film, so so").input_ids])
    new = torch.from_numpy(vocabulary.new_ids)[ids]
    with torch.no_grad():
        torch.testing.assert_close(small(input_ids=new).logits, model(input_ids=ids).logits)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        old = getattr(model.config, name, None)
        assert getattr(small.config, name, None) == (None if old is None else vocabulary.new_ids[old])


@pytest.mark.parametrize("arch", ["gpt2", "llama", "bert", "roberta", "distilbert"])
def test_a_trimmed_language_model_predicts_the_kept_tokens(arch):
    model = tiny_lm(arch, 105)
    if model.can_generate():
        model.generation_config.eos_token_id, model.generation_config.suppress_tokens = [7, 9], [8, 20]
    vocabulary = TrimmedVocabulary(np.array([0, 1, 2, 5, 7, 9, 20, 104]), 105, 8)
    small, ids = trim_model(model, vocabulary), torch.tensor([[3, 4, 7, 0, 6]])
    with torch.no_grad():
        expected = model(input_ids=torch.from_numpy(vocabulary.kept)[ids]).logits[..., vocabulary.kept]
        torch.testing.assert_close(small(input_ids=ids).logits, expected)
    head, table = small.get_output_embeddings(), small.get_input_embeddings()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (head.weight is table.weight) == tied and head.out_features == 8
    if model.can_generate():
        assert small.generation_config.eos_token_id == [4, 5] and small.generation_config.suppress_tokens == [6]


def test_the_padding_token_of_roberta_keeps_its_id():
    model, tokenizer = tiny_model("roberta", num_layers=1), tiny_tokenizer()
    model.config.pad_token_id = 5
    vocabulary = trim_vocabulary(tokenizer, token_counts(tokenizer, ["film"]), model.config)
    assert vocabulary.new_ids[5] == 5


def test_a_model_that_uses_ids_otherwise_is_refused(monkeypatch):
    model, forward = tiny_model("bert", num_layers=1), type(tiny_model("bert")).forward
    scaled = lambda self, input_ids, **rest: forward(  # noqa: E731
        self, inputs_embeds=self.get_input_embeddings()(input_ids) * input_ids[..., None], **rest
    )
    monkeypatch.setattr(type(model), "forward", scaled)
    with pytest.raises(ModelError, match="uses the ids of tokens in another way"):
        trim_model(model, TrimmedVocabulary(np.arange(50, 90), len(VOCABULARY), 40))


def test_coverage_is_measured_on_held_out_texts(full):
    texts = random_texts(100, seed=8)
    config = tiny_model("bert", num_layers=1).config
    vocabulary, found = choose_vocabulary(full, texts, config, None)
    assert found.texts == 10 and found.changed > 0  # words of the tenth that the others do not have
    assert coverage(full, trim_tokenizer(full, vocabulary), vocabulary, texts).changed == 0
    assert choose_vocabulary(full, texts[:5], config, None)[1] is None


def test_the_map_is_saved(trimmed, tmp_path):
    vocabulary, _ = trimmed
    vocabulary.save(tmp_path)
    again = TrimmedVocabulary.load(tmp_path)
    assert np.array_equal(again.kept, vocabulary.kept) and again.full == vocabulary.full
    assert (again.new_ids[again.kept] == np.arange(len(again))).all()


def test_a_tokenizer_that_does_not_fit_its_vocabulary_is_refused(full, trimmed):
    vocabulary, _ = trimmed
    other = TrimmedVocabulary(vocabulary.kept[:-1], vocabulary.full, 0)
    with pytest.raises(ModelError, match="though every token is kept"):
        coverage(full, trim_tokenizer(full, vocabulary), replaced(other), random_texts(12, seed=2))


def replaced(vocabulary):
    """The same map with all ids shifted by one."""
    return TrimmedVocabulary(np.array([0, *(vocabulary.kept[1:] - 1)]), vocabulary.full, 0)
