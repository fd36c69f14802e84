"""Tokenizers that are missing, cannot pad, or do not match the model or each other."""

import json

import pytest
from tokenizers import ByteLevelBPETokenizer, normalizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, GPT2Config, GPT2Tokenizer

from demiglace.errors import ModelError
from demiglace.models.loading import check_same_vocabulary, check_tokenizer, load_tokenizer
from factories import ARCHITECTURES, decoder_tokenizer, save_decoder, save_tiny, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_each_tokenizer_matches_its_model(arch, tmp_path):
    tokenizer = load_tokenizer(save_tiny(tmp_path, arch, num_layers=1))
    model = tiny_model(arch, num_layers=1)
    check_tokenizer(model, tokenizer)
    rows = tokenizer(["a good film", "bad"], ["red", "the blue card"], padding=True, return_tensors="pt")
    assert model(**rows).logits.shape == (2, 3)


def test_a_directory_without_tokenizer_is_refused(tmp_path):
    """transformers would create an empty tokenizer, which turns every word into [UNK]."""
    save_tiny(tmp_path, num_layers=1)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="contains no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_refused(tmp_path):
    save_tiny(tmp_path, num_layers=1)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", ')
    with pytest.raises(ModelError, match="could not be loaded"):
        load_tokenizer(tmp_path)


def test_a_decoder_pads_with_its_end_of_text(tmp_path):
    save_tiny(tmp_path, "gpt2", num_layers=1)
    tiny_tokenizer(tmp_path, pad_token=None)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 3


def test_no_token_to_pad_with_is_an_error(tmp_path):
    save_tiny(tmp_path, "gpt2", num_layers=1)
    tiny_tokenizer(tmp_path, pad_token=None)
    file = tmp_path / "tokenizer_config.json"
    options = json.loads(file.read_text())
    del options["eos_token"]
    file.write_text(json.dumps(options))
    with pytest.raises(ModelError, match="neither a padding nor an end-of-text token"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("arch", "kept"), [("bert", True), ("distilbert", False)])
def test_segments_are_omitted_for_models_without_them(arch, kept, tmp_path):
    save_tiny(tmp_path, arch, num_layers=1)
    tiny_tokenizer(tmp_path, segments=True)
    assert ("token_type_ids" in load_tokenizer(tmp_path)("a", "the")) == kept


def test_segments_are_omitted_for_models_with_one_segment(tmp_path):
    save_tiny(tmp_path, "roberta", num_layers=1)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"type_vocab_size": 1}))
    tiny_tokenizer(tmp_path, segments=True)
    assert "token_type_ids" not in load_tokenizer(tmp_path)("a", "the")


def test_ids_beyond_the_embeddings_are_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["extra"])
    with pytest.raises(ModelError, match=r"ids up to 101, and the model embeds 101 tokens \(0 to 100\)"):
        check_tokenizer(tiny_model("bert", num_layers=1), tokenizer)


def test_another_padding_id_is_refused():
    tokenizer = tiny_tokenizer(pad_token="[MASK]")
    with pytest.raises(ModelError, match=r"pads with id 4 \('\[MASK\]'\), and the model expects 0"):
        check_tokenizer(tiny_model("bert", num_layers=1), tokenizer)


def test_equal_vocabularies_pass():
    check_same_vocabulary(tiny_tokenizer(), tiny_tokenizer(segments=True))


def test_different_vocabularies_are_refused_with_examples():
    student = tiny_tokenizer()
    student.add_tokens(["extra"])
    with pytest.raises(
        ModelError,
        match=r"101 tokens in .* 102 in .*, 1 of them.*'extra' is absent in the teacher's, id 101 in the student's",
    ):
        check_same_vocabulary(tiny_tokenizer(), student)


def test_different_special_tokens_are_refused():
    with pytest.raises(ModelError, match="pad_token_id is 0 for the teacher, 4 for the student"):
        check_same_vocabulary(tiny_tokenizer(), tiny_tokenizer(pad_token="[MASK]"))


def test_padding_token_matters_only_if_rows_are_padded():
    teacher = decoder_tokenizer()  # GPT-2 has no token to pad with, and what was truncated from it has
    student = decoder_tokenizer()
    student.pad_token = student.eos_token
    with pytest.raises(ModelError, match="pad_token_id is None for the teacher, 3 for the student"):
        check_same_vocabulary(teacher, student)
    check_same_vocabulary(teacher, student, padded=False)


def test_equal_vocabularies_that_split_differently_are_refused():
    student = tiny_tokenizer()
    student.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    with pytest.raises(ModelError, match="becomes"):
        check_same_vocabulary(tiny_tokenizer(), student)


# pairs


@pytest.fixture
def gpt2_directory(tmp_path):
    """Write a tokenizer of GPT-2's class with a small vocabulary, and a config."""
    core = ByteLevelBPETokenizer()
    core.train_from_iterator(["the good film is bad " * 50], vocab_size=300, special_tokens=["<|endoftext|>"])
    core.save_model(str(tmp_path))
    vocabulary, merges = str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    GPT2Tokenizer(vocab=vocabulary, merges=merges).save_pretrained(tmp_path / "model")
    GPT2Config(vocab_size=300).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_gpt2_pairs_are_separated_also_after_saving(gpt2_directory, tmp_path):
    plain = AutoTokenizer.from_pretrained(gpt2_directory)
    first, second = (plain(text)["input_ids"] for text in ("the film", " is bad"))
    assert plain("the film", " is bad")["input_ids"] == first + second
    tokenizer = load_tokenizer(gpt2_directory)
    expected = [*first, tokenizer.eos_token_id, *second]
    assert tokenizer("the film", " is bad")["input_ids"] == expected
    assert tokenizer("the film")["input_ids"] == first
    tokenizer.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("the film", " is bad")["input_ids"] == expected
    GPT2Config(vocab_size=300).save_pretrained(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again("the film", " is bad")["input_ids"] == expected  # one separator, not two
    check_same_vocabulary(tokenizer, again)


def test_tokens_around_a_text_are_kept(tmp_path):
    save_decoder(tmp_path, "llama", num_layers=1)
    tokenizer = decoder_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", 2)]
    )
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.convert_ids_to_tokens(loaded("red", "blue")["input_ids"]) == ["[CLS]", "red", "[SEP]", "blue"]
    assert loaded.convert_ids_to_tokens(loaded("red")["input_ids"]) == ["[CLS]", "red"]


def test_tokenizers_that_separate_pairs_are_unchanged(tmp_path):
    before = tiny_tokenizer()("red", "blue")["input_ids"]
    assert load_tokenizer(save_tiny(tmp_path, num_layers=1))("red", "blue")["input_ids"] == before


@pytest.mark.parametrize(("arch", "side"), [("gpt2", "right"), ("llama", "left")])
def test_gpt2_is_padded_on_the_right(arch, side, tmp_path):
    assert load_tokenizer(save_decoder(tmp_path, arch, padding_side="left")).padding_side == side


def test_gpt2_gets_no_segments(tmp_path):
    """It would embed segment ids as words, and add the embedding of word 0 to every token."""
    save_tiny(tmp_path, "gpt2", num_layers=1)
    tiny_tokenizer(tmp_path, segments=True)
    assert "token_type_ids" not in load_tokenizer(tmp_path)("a", "the")
