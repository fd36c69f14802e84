"""Trimmed vocabularies in `truncate` and `distill`."""

import json

import numpy as np
import pytest
import torch
from command_kit import QUICK, close, lenient, records, weights, write_csv
from transformers import AutoTokenizer

from demiglace import distill, evaluate, plan, truncate
from demiglace.errors import ConfigError, DataError, ModelError
from demiglace.losses.divergences import forward_kl
from demiglace.models.loading import load_as_saved, load_classifier, save_model
from demiglace.models.trimmed_model import trim_model
from demiglace.models.vocabulary import TrimmedVocabulary
from demiglace.runs.directory import read_manifest
from factories import VOCABULARY, save_sentence_encoder, tiny_tokenizer
from text_kit import tiny_lm, write_jsonl


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


# -- distillation on rows


@pytest.fixture(scope="module")
def small(rows, teacher, tmp_path_factory):
    """A student with the tokens of the training rows, two layers, from the signals of a cache."""
    home = tmp_path_factory.mktemp("trimmed")
    return distill(teacher=str(teacher), output=home / "run", layers=2, vocabulary="trim", **rows, **QUICK).path


def same_model(one, other, vocabulary, tolerance=1e-5):
    """Assert that a trimmed run has the weights of a run with the full vocabulary."""
    trimmed, full = weights(one), weights(other)
    for name, weight in full.items():
        expected = weight[vocabulary.kept] if "word_embeddings" in name else weight
        if not name.endswith("key.bias"):
            torch.testing.assert_close(trimmed[name], expected, rtol=tolerance, atol=tolerance, msg=name)


def test_distill_learns_the_same_with_fewer_tokens(small, rows, teacher, tmp_path, capsys):
    manifest, vocabulary = read_manifest(small), TrimmedVocabulary.load(small / "model")
    assert manifest["vocabulary"]["kept"] == len(vocabulary) < len(VOCABULARY)
    assert manifest["vocabulary"]["coverage"]["texts"] == 12
    assert "12 validation texts: 0.0% longer" in manifest["notices"][0]["message"]
    full = distill(teacher=str(teacher), output=tmp_path / "full", layers=2, **rows, **QUICK).path
    same_model(small, full, vocabulary)  # the rows' words are all kept, so that both runs see the same tokens
    assert manifest["metrics"] == read_manifest(full)["metrics"]


def test_a_student_that_truncate_trimmed_learns_the_same(small, rows, teacher, tmp_path, capsys):
    corpus = {"vocabulary": "trim", "vocabulary_corpus": [rows["data"]]}
    student = truncate(model=str(teacher), output=tmp_path / "student", layers=2, **corpus).path
    out = distill(teacher=str(teacher), student=str(student), output=tmp_path / "run", **rows, **QUICK).path
    close(out, small, 1e-6)
    assert np.array_equal(TrimmedVocabulary.load(out / "model").kept, TrimmedVocabulary.load(small / "model").kept)
    assert "of the teacher's 101 tokens" in capsys.readouterr().err
    # a student whose directory has no map, as after a fine-tuning, is recognized by its tokens
    (student / "vocabulary_map.json").unlink()
    again = distill(
        teacher=str(teacher), student=str(student), output=tmp_path / "again", **rows, **QUICK | {"epochs": 1}
    )
    assert read_manifest(again)["vocabulary"]["kept"] == len(TrimmedVocabulary.load(again / "model"))


@pytest.mark.parametrize("method", ["rail-balanced", "minilmv2"])
def test_rows_of_other_tokens_teach_online_and_from_the_cache(method, rows, teacher, tmp_path, capsys):
    """Some words of the rows are no tokens of the student: it reads their letters, and the teacher the words."""
    how = {"layers": 2, "method": method, "method_options": lenient(method), "cache_dtype": "float32"} | rows | QUICK
    options = how | {"vocabulary": "trim", "vocabulary_size": 90}
    runs = [
        distill(teacher=str(teacher), output=tmp_path / cache, **options, cache=cache).path for cache in ("auto", "off")
    ]
    close(*runs, 1e-4)
    lines = capsys.readouterr().err
    coverage = read_manifest(runs[0])["vocabulary"]["coverage"]
    assert coverage["changed"] > 0 and coverage["growth"] > 0.1 and coverage["trimmed_unknown"] == 0
    assert ("the teacher reads the student's: in" in lines) == (method == "minilmv2")
    full = distill(teacher=str(teacher), output=tmp_path / "full", **how).path
    kd = [records(run, "step")[0]["terms"] for run in (runs[0], full)]
    assert kd[0] != kd[1]


def test_a_sentence_encoder_is_trimmed(tmp_path):
    teacher = save_sentence_encoder(tmp_path / "teacher")
    texts = [
        {"text": t} for t in ("a good film", "the bad card", "red money", "no green film", "lost card", "yes it is")
    ]
    data = {
        "data": str(write_csv(tmp_path / "a.csv", texts[2:])),
        "validation": str(write_csv(tmp_path / "b.csv", texts[:2])),
    }
    out = distill(teacher=str(teacher), output=tmp_path / "run", layers=2, vocabulary="trim", **data, **QUICK).path
    manifest = read_manifest(out)
    assert manifest["vocabulary"]["kept"] == load_as_saved(out / "model").config.vocab_size < len(VOCABULARY)
    assert manifest["vocabulary"]["coverage"]["changed"] > 0  # good and bad are not among the training texts


def test_an_interrupted_run_keeps_its_choice(small, rows, teacher, tmp_path, capsys):
    chosen = json.loads((small / "vocabulary.json").read_text())
    assert chosen["vocabulary"]["kept"] == TrimmedVocabulary.load(small / "model").kept.tolist()
    (small / "manifest.json").rename(tmp_path / "manifest.json")
    notices = json.loads((tmp_path / "manifest.json").read_text())["notices"]
    distill(teacher=str(teacher), output=small, layers=2, vocabulary="trim", **rows, **QUICK)
    assert read_manifest(small)["notices"] == notices


def test_what_distill_refuses(small, rows, teacher, tmp_path):
    given = {"teacher": str(teacher), "output": tmp_path / "run"} | rows | QUICK
    with pytest.raises(ConfigError, match="rail-mate rewrites rows in the teacher's tokens"):
        distill(**given, layers=2, method="rail-mate", vocabulary="trim", method_options={"allow_poor_generator": True})
    with pytest.raises(ConfigError, match="--vocabulary-size is for --vocabulary trim"):
        distill(**given, layers=2, vocabulary_size=90)
    with pytest.raises(ModelError, match="different vocabularies"):
        distill(**given, student=str(small), vocabulary="trim")


def test_plan_says_what_it_leaves_out(rows, teacher, capsys):
    plan(teacher=str(teacher), layers=2, vocabulary="trim", flops=1e9, **rows)
    assert "with the full vocabulary" in capsys.readouterr().err


# -- language models


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A causal teacher of the tiny vocabulary, and a corpus of a few of its words."""
    home = tmp_path_factory.mktemp("language")
    tiny_tokenizer(home / "teacher")
    save_model(tiny_lm("gpt2", len(VOCABULARY), 3), home / "teacher")
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(["the", "film", "is", "not", "good", "card"], 12)) for _ in range(40)]
    corpus = {"corpus": str(write_jsonl(home / "train.jsonl", texts[:30]))}
    corpus["validation_corpus"] = str(write_jsonl(home / "validation.jsonl", texts[30:]))
    quick = {"block_size": 16, "epochs": 1, "batch_size": 8, "learning_rate": 3e-3, "log_steps": 1}
    return {"teacher": str(home / "teacher"), "layers": 2, "method": "vanilla-kd", **corpus, **quick}


def test_a_language_model_learns_the_kept_tokens(language, tmp_path, capsys):
    runs = [distill(**language, output=tmp_path / "online", vocabulary="trim").path]
    kept = read_manifest(runs[0])["vocabulary"]["kept"]
    cached = {"cache_tokens": "top-k", "cached_per_token": kept}  # all of the distribution
    runs.append(distill(**language, output=tmp_path / "cached", vocabulary="trim", **cached).path)
    manifest = read_manifest(runs[0])
    assert kept < len(VOCABULARY) and 0.5 < manifest["kept_probability"] < 1
    assert manifest["vocabulary"]["coverage"] | {"texts": 10, "changed": 0} == manifest["vocabulary"]["coverage"]
    assert "% of its probability" in capsys.readouterr().err
    assert load_as_saved(runs[0] / "model").config.vocab_size == kept
    terms = [[step["terms"]["kd"] for step in records(run, "step")] for run in runs]
    assert terms[0] == pytest.approx(terms[1], abs=2e-3)  # the cache has the distribution over the kept tokens


def test_the_divergence_is_that_of_the_renormalized_distribution(language, tmp_path):
    out = distill(**language | {"max_steps": 1}, output=tmp_path / "run", vocabulary="trim").path
    vocabulary = TrimmedVocabulary.load(out / "model")
    teacher, tokenizer = load_as_saved(language["teacher"]), AutoTokenizer.from_pretrained(language["teacher"])
    ids = torch.tensor([tokenizer("the film is not good", add_special_tokens=False).input_ids])
    with torch.no_grad():
        full = teacher(input_ids=ids).logits[0]
        cut = trim_model(teacher, vocabulary)(input_ids=torch.from_numpy(vocabulary.new_ids)[ids]).logits[0]
        student = torch.randn(cut.shape, generator=torch.Generator().manual_seed(0))
    probabilities = full.softmax(-1)[:, vocabulary.kept]
    renormalized = probabilities / probabilities.sum(-1, keepdim=True)
    torch.testing.assert_close(forward_kl(student, cut, 1.0), forward_kl(student, renormalized.log(), 1.0))


def test_a_trimmed_language_model_is_a_student(language, tmp_path):
    options = {"vocabulary": "trim", "vocabulary_corpus": [language["corpus"]]}
    student = truncate(model=language["teacher"], output=tmp_path / "student", layers=2, **options).path
    given = {name: value for name, value in language.items() if name != "layers"}
    one = distill(**given, student=str(student), output=tmp_path / "one").path
    two = distill(**language, output=tmp_path / "two", vocabulary="trim", strategy="alternate").path
    close(one, two, 1e-6)
    plan(**given, student=str(student), flops=1e9)


def test_a_masked_language_model_is_trimmed(language, tmp_path):
    teacher = tmp_path / "teacher"
    tiny_tokenizer(teacher)
    save_model(tiny_lm("bert", len(VOCABULARY), 3), teacher)
    out = distill(**language | {"teacher": str(teacher)}, output=tmp_path / "run", vocabulary="trim").path
    model = load_as_saved(out / "model")
    assert model.config.vocab_size == read_manifest(out)["vocabulary"]["kept"] == len(model.cls.predictions.bias)
