"""Trimmed vocabularies in `truncate` and `distill`."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from demiglace import evaluate, truncate
from demiglace.errors import ConfigError, DataError
from demiglace.models.loading import load_as_saved, load_classifier
from demiglace.models.vocabulary import TrimmedVocabulary
from demiglace.runs.directory import read_manifest
from factories import VOCABULARY


def test_truncate_keeps_the_tokens_of_files(rows, teacher, tmp_path, capsys):
    out = truncate(
        model=str(teacher), output=tmp_path / "small", layers=2, vocabulary="trim", vocabulary_corpus=[rows["data"]]
    ).path
    manifest, vocabulary = read_manifest(out), TrimmedVocabulary.load(out)
    assert manifest["after"]["vocab_size"] == len(vocabulary) == manifest["vocabulary"]["kept"] < len(VOCABULARY)
    assert manifest["vocabulary"]["coverage"] | {"texts": 3, "trimmed_unknown": 0} == manifest["vocabulary"]["coverage"]
    assert "3 of the texts, with the vocabulary of the others" in manifest["notices"][0]["message"]
    assert f"{len(vocabulary)} of {len(VOCABULARY)} tokens are kept" in capsys.readouterr().err
    tokenizer, full = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(teacher / "model")
    ids = torch.tensor([full("the good film").input_ids])
    new = torch.tensor([tokenizer("the good film").input_ids])
    assert np.array_equal(vocabulary.kept[new], ids)
    plain = truncate(model=str(teacher), output=tmp_path / "plain", layers=2).path
    with torch.no_grad():
        logits = [load_classifier(p, None)(input_ids=i).logits for p, i in ((out, new), (plain, ids))]
    torch.testing.assert_close(*logits)
    # words of the training rows are all kept, so that other rows of these words have the same predictions
    scores = [evaluate(str(p), data=rows["test"]).metrics for p in (out, plain)]
    assert scores[0] == scores[1]


def test_without_layers_only_the_vocabulary_is_trimmed(rows, base, tmp_path):
    (tmp_path / "text.txt").write_text("a good film is not bad\n")
    out = truncate(
        model=str(base), output=tmp_path / "small", vocabulary="trim", vocabulary_corpus=[str(tmp_path / "*.txt")]
    ).path
    manifest = read_manifest(out)
    assert (manifest["keep"], manifest["strategy"], manifest["layers"]) == ([0, 1, 2, 3], None, 4)
    assert "coverage" not in manifest["vocabulary"]  # of one text, no part is held out
    assert load_as_saved(out).config.vocab_size == manifest["vocabulary"]["kept"]
    assert json.loads((out / "tokenizer.json").read_text())["model"]["vocab"].keys() >= {"film", "not", "##x"}


def test_wrong_options_are_refused(rows, base, tmp_path):
    where = {"model": str(base), "output": tmp_path / "small"}
    with pytest.raises(ConfigError, match="give files as --vocabulary-corpus"):
        truncate(**where, vocabulary="trim")
    with pytest.raises(ConfigError, match="--vocabulary-corpus is for --vocabulary trim"):
        truncate(**where, layers=2, vocabulary_corpus=[rows["data"]])
    with pytest.raises(ConfigError, match="--layers"):
        truncate(**where)
    with pytest.raises(ConfigError, match="--layers"):
        truncate(**where, strategy="random", vocabulary="trim", vocabulary_corpus=[rows["data"]])
    with pytest.raises(ConfigError, match="--vocabulary-size 9 was given, and"):
        truncate(**where, vocabulary="trim", vocabulary_corpus=[rows["data"]], vocabulary_size=9)
    with pytest.raises(DataError, match=r"there is no file .*none\.csv"):
        truncate(**where, vocabulary="trim", vocabulary_corpus=[str(tmp_path / "none.csv")])
    (tmp_path / "numbers.csv").write_text("text,label\n,a\n x ,b\n")
    made = truncate(**where, vocabulary="trim", vocabulary_corpus=[str(tmp_path / "numbers.csv")]).path
    assert read_manifest(made)["vocabulary"]["drops"] == {"empty": 1}
