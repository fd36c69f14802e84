"""Sentence encoders through all commands: truncate, distill, evaluate, export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_kit import write_csv

import demiglace
from demiglace.errors import ConfigError, DataError, ModelError, UserError
from demiglace.export.measure import Measurement
from demiglace.export.onnx import OnnxRunner
from demiglace.models.loading import load_classifier, load_tokenizer
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import file_name
from factories import save_sentence_encoder, save_tiny

WORDS = ["the", "a", "and", "good", "bad", "great", "awful", "film", "card", "money", "lost", "red", "blue", "green"]
QUICK: dict[str, Any] = {"epochs": 4, "batch_size": 8, "lr": 2e-3, "log_steps": 1}
GENERATOR = np.random.default_rng(0)


def text(words: int = 5) -> list[str]:
    return GENERATOR.choice(WORDS, words).tolist()


def pair() -> dict[str, Any]:
    """Two texts, and how many words they share by position."""
    first, second, changed = text(), text(), int(GENERATOR.integers(0, 6))
    return {
        "sentence1": " ".join(first),
        "sentence2": " ".join([*second[:changed], *first[changed:]]),
        "score": 5 - changed,
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def teacher(home: Path) -> Path:
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    return save_sentence_encoder(home / "teacher", pooling=pooling)


@pytest.fixture(scope="module")
def texts(home: Path) -> str:
    return str(write_csv(home / "texts.csv", [{"text": " ".join(text())} for _ in range(60)]))


@pytest.fixture(scope="module")
def pairs(home: Path) -> str:
    return str(write_csv(home / "pairs.csv", [pair() for _ in range(24)]))


@pytest.fixture(scope="module")
def student(home: Path, teacher: Path, texts: str, pairs: str) -> Path:
    options = {"method": "rail-balanced", "data": texts, "validation": pairs, **QUICK}
    demiglace.distill(teacher=str(teacher), layers=2, output=home / "student", **options)
    return home / "student"


def embeddings(model: str | Path, rows: list[str]) -> np.ndarray:
    """The embeddings of texts, one text at a time."""
    loaded, tokenizer = load_classifier(model, None), load_tokenizer(str(model))
    with torch.no_grad():
        return np.concatenate([loaded(**tokenizer(t, return_tensors="pt")).logits.numpy() for t in rows])


def module_texts(path: Path) -> dict[str, str]:
    names = ("modules.json", "1_Pooling/config.json", "2_Normalize/config.json", "sentence_bert_config.json")
    return {name: (path / name).read_text() for name in (*names, "config_sentence_transformers.json")}


def test_the_teacher_pools_its_first_token_and_normalizes(teacher):
    model, tokenizer = load_classifier(teacher, None), load_tokenizer(str(teacher))
    inputs = tokenizer(["the film", "a good card and money"], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model.encoder(**inputs).last_hidden_state[:, 0]
        torch.testing.assert_close(model(**inputs).logits, hidden / hidden.norm(dim=1, keepdim=True))


def test_a_truncated_model_keeps_its_modules(teacher, tmp_path, capsys):
    demiglace.truncate(str(teacher), layers=2, output=tmp_path / "cut")
    assert module_texts(tmp_path / "cut") == module_texts(teacher)
    assert "sentence-transformers modules are kept: Pooling, Normalize" in capsys.readouterr().err
    assert read_manifest(tmp_path / "cut")["sentence_modules"] == ["Pooling", "Normalize"]
    assert np.linalg.norm(embeddings(tmp_path / "cut", ["the film"])) == pytest.approx(1, abs=1e-5)


def test_a_student_learns_the_embeddings_and_keeps_the_modules(teacher, student, pairs):
    manifest = read_manifest(student)
    log = [json.loads(line) for line in (student / "log.jsonl").read_text("utf-8").splitlines()]
    losses = [r["terms"]["kd"] for r in log if r["kind"] == "step"]
    assert np.mean(losses[-7:]) < 0.5 * np.mean(losses[:7])
    assert (manifest["config"]["problem"], manifest["config"]["max_length"]) == ("auto", None)  # as they were given
    assert (
        manifest["problem"] == "sentence-embedding"
        and manifest["max_length"] == 24
        and manifest["rows"]["validation"] == 24
    )
    assert set(manifest["metrics"]["validation"]) == {"spearman", "pearson", "agreement"}
    found = {name: json.loads(t) for name, t in module_texts(student / "model").items()}
    expected = {name: json.loads(t) for name, t in module_texts(teacher).items()}
    assert found["1_Pooling/config.json"] == expected["1_Pooling/config.json"]
    assert [m["type"] for m in found["modules.json"]] == [m["type"] for m in expected["modules.json"]]
    assert found["sentence_bert_config.json"] == {"max_seq_length": 24, "do_lower_case": False}


def test_sentence_transformers_gives_the_same_embeddings(student):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    rows = ["the film is good", "bad card"]
    encoded = sentence_transformers.SentenceTransformer(str(student / "model"), device="cpu").encode(rows)
    np.testing.assert_allclose(encoded, embeddings(student / "model", rows), atol=1e-5)


def test_sets_are_scored_by_similarity_by_retrieval_and_against_the_teacher(teacher, student, pairs, home):
    rows = [pair() for _ in range(30)]
    duplicates = str(write_csv(home / "duplicates.csv", [r | {"score": int(r["score"] > 2)} for r in rows]))
    plain = str(write_csv(home / "plain.csv", [{"text": r["sentence1"]} for r in rows]))
    run = home / "evaluation"
    demiglace.evaluate(model=str(student), teacher=str(teacher), data=(pairs, duplicates, plain), output=run)
    sets = read_manifest(run)["sets"]
    assert [list(s["metrics"]) for s in sets.values()] == [
        ["spearman", "pearson"],
        ["mrr", "recall_at_1", "recall_at_10"],
        [],
    ]
    one, other = (embeddings(path, [r["sentence1"] for r in rows]) for path in (student / "model", teacher))
    assert sets[plain]["agreement"] == pytest.approx(float((one * other).sum(1).mean()), abs=1e-5)
    second = embeddings(student / "model", [r["sentence2"] for r in rows])
    ranks = [1 + sum(np.unique(second, axis=0) @ q > q @ s + 1e-6) for q, s in zip(one, second, strict=True)]
    np.testing.assert_array_equal(np.load(run / f"{file_name(duplicates)}.predictions.npy"), ranks)
    relevant = [1 / rank for rank, r in zip(ranks, rows, strict=True) if r["score"] > 2]
    assert sets[duplicates]["metrics"]["mrr"] == pytest.approx(np.mean(relevant))


def test_texts_without_labels_need_a_teacher(student, texts):
    with pytest.raises(ConfigError, match="no labels to score the model with; give --teacher"):
        demiglace.evaluate(model=str(student), data=(texts,))


def test_an_exported_graph_pools_and_normalizes(student, pairs, home, monkeypatch):
    times = {"1": {"p50": 1.0, "p95": 1.0}, "32": {"p50": 1.0, "p95": 1.0}}
    monkeypatch.setattr("demiglace.commands.export.measure", lambda *args, **options: Measurement(times, 1.0))
    demiglace.export(model=str(student), output=home / "onnx", quantize="int8", rows=8, repeats=1)
    artefacts = read_manifest(home / "onnx")["artefacts"]
    assert artefacts[1]["label_agreement"] == 1 and artefacts[1]["largest_logit_difference"] < 1e-5
    assert "spearman" in artefacts[1]["metrics"]
    tokenizer = load_tokenizer(str(home / "onnx"))
    inputs = tokenizer(["the film", "a good card and money"], padding=True, return_tensors="np")
    runner = OnnxRunner(str(home / "onnx/onnx/model.onnx"))
    expected = embeddings(student / "model", ["the film", "a good card and money"])
    np.testing.assert_allclose(runner.logits(dict(inputs)), expected, atol=1e-5)
    assert runner._session.get_outputs()[0].name == "sentence_embedding"
    scored = demiglace.evaluate(model=str(home / "onnx"), data=(pairs,))
    assert scored.metrics[pairs]["spearman"] == pytest.approx(artefacts[1]["metrics"]["spearman"], abs=1e-3)
    card = (home / "onnx" / "README.md").read_text("utf-8")
    assert "pipeline_tag: sentence-similarity" in card and '["sentence_embedding"]' in card


def test_its_card_is_for_sentence_transformers(student):
    card = (student / "model" / "README.md").read_text("utf-8")
    assert "library_name: sentence-transformers" in card and "pipeline_tag: sentence-similarity" in card
    assert 'SentenceTransformer(".")' in card


def test_a_narrower_student_without_modules_gets_the_teachers_and_a_dense_layer(teacher, texts, tmp_path, capsys):
    narrow = save_tiny(tmp_path / "narrow", num_layers=1, hidden=16)
    options = {"method": "vanilla-kd", "data": texts, **QUICK, "epochs": 1}
    demiglace.distill(teacher=str(teacher), student=str(narrow), output=tmp_path / "run", **options)
    assert "a new dense layer from 16 to 32 gives embeddings the teacher's width" in capsys.readouterr().err
    model = load_classifier(tmp_path / "run", None)
    assert model.output_width == 32 and model.poolings == ("cls",)
    modules = json.loads((tmp_path / "run" / "model" / "modules.json").read_text())
    assert [m["type"].rpartition(".")[2] for m in modules] == ["Transformer", "Pooling", "Dense", "Normalize"]
    scores = read_manifest(tmp_path / "run")["metrics"]["validation"]
    assert scores.keys() == {"agreement"}
    held = demiglace.evaluate(model=str(tmp_path / "run"), teacher=str(teacher), data=(texts,))
    assert -1 <= held.metrics[texts]["agreement"] <= 1


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("none", "method none trains on labels alone"),
        ("minilm", "phase 2 of method minilm trains on labels alone"),
        ("universal-kd", "method universal-kd reads the teacher's outputs as scores"),
        ("mate-kd", "method mate-kd reads the teacher's outputs as scores"),
        ("pseudo-labels", "method pseudo-labels reads the teacher's outputs as scores"),
    ],
)
def test_methods_of_labels_and_classes_are_refused(teacher, texts, tmp_path, method, message):
    with pytest.raises(ConfigError, match=message):
        demiglace.distill(teacher=str(teacher), layers=1, method=method, data=texts, output=tmp_path / "r", **QUICK)


def test_texts_are_trained_on_once_and_never_those_of_other_splits(teacher, tmp_path, capsys):
    train = [{"text": t} for t in ("good film", "good film", "bad card", "red money", "the end", "a new red card")]
    files = {"data": write_csv(tmp_path / "t.csv", train), "validation": write_csv(tmp_path / "v.csv", train[2:3])}
    named = {name: str(file) for name, file in files.items()}
    options = {"method": "vanilla-kd", **QUICK, "epochs": 1}
    demiglace.distill(teacher=str(teacher), layers=1, output=tmp_path / "run", **named, **options)
    assert "1 repeated texts, 1 texts that are in another split" in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "run")
    assert manifest["rows"] == {"train": 4, "validation": 1}
    assert manifest["drops"] == {"repeated texts": 1, "texts that are in another split": 1}


def test_similarities_that_are_no_numbers_are_refused_with_their_line(teacher, texts, tmp_path):
    bad = write_csv(tmp_path / "bad.csv", [pair() | {"score": "3"}, pair() | {"score": "high"}])
    with pytest.raises(DataError, match=r"(?s)similarity is no number.*bad\.csv:3"):
        demiglace.distill(
            teacher=str(teacher), layers=1, data=texts, validation=str(bad), label_column="score", output=tmp_path / "r"
        )


def test_other_teachers_and_fine_tuning_are_refused(teacher, texts, tmp_path):
    classifier = str(save_tiny(tmp_path / "c", num_layers=1))
    with pytest.raises(ModelError, match="the rows' are the similarity of two texts"):
        options = {"problem": "sentence-embedding", "method": "vanilla-kd", "data": texts}
        demiglace.distill(teacher=classifier, layers=1, output=tmp_path / "r", **options)
    with pytest.raises(UserError, match="a sentence encoder is not fine-tuned on labels here"):
        demiglace.finetune(model=str(teacher), problem="sentence-embedding", data=texts, output=tmp_path / "f")
