"""Tokenizers that are absent, cannot pad, do not fit the model or do not fit each other."""

import json

import pytest
from tokenizers import normalizers

from demiglace.errors import ModelError
from demiglace.models.loading import check_same_vocabulary, check_tokenizer, load_tokenizer
from factories import ARCHITECTURES, save_tiny, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_each_tokenizer_fits_its_model(arch, tmp_path):
    tokenizer = load_tokenizer(save_tiny(tmp_path, arch, num_layers=1))
    model = tiny_model(arch, num_layers=1)
    check_tokenizer(model, tokenizer)
    rows = tokenizer(["a good film", "bad"], ["red", "the blue card"], padding=True, return_tensors="pt")
    assert model(**rows).logits.shape == (2, 3)


def test_a_directory_without_tokenizer_is_refused(tmp_path):
    """transformers makes up an empty tokenizer there, which turns every word into [UNK]."""
    save_tiny(tmp_path, num_layers=1)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="holds no tokenizer"):
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
def test_segments_are_left_out_for_models_that_take_none(arch, kept, tmp_path):
    save_tiny(tmp_path, arch, num_layers=1)
    tiny_tokenizer(tmp_path, segments=True)
    assert ("token_type_ids" in load_tokenizer(tmp_path)("a", "the")) == kept


def test_segments_are_left_out_where_the_model_has_only_one(tmp_path):
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


def test_different_vocabularies_are_told_apart_by_example():
    student = tiny_tokenizer()
    student.add_tokens(["extra"])
    with pytest.raises(ModelError, match=r"101 tokens against 102, 1 of them.*'extra' is absent there, id 101 here"):
        check_same_vocabulary(tiny_tokenizer(), student)


def test_different_special_tokens_are_told_apart():
    with pytest.raises(ModelError, match="pad_token_id is 0 for the teacher, 4 for the student"):
        check_same_vocabulary(tiny_tokenizer(), tiny_tokenizer(pad_token="[MASK]"))


def test_equal_vocabularies_that_split_differently_are_told_apart():
    student = tiny_tokenizer()
    student.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    with pytest.raises(ModelError, match="becomes"):
        check_same_vocabulary(tiny_tokenizer(), student)
