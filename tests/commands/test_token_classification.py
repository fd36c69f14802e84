"""Token classification from files to an exported student: trained, distilled, evaluated and compared by the API."""

import contextlib
import importlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_kit import close
from seqeval.metrics import classification_report

import demiglace
from demiglace.export.measure import Measurement
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import file_name
from factories import save_tiny

TAG_OF = {"red": "B-COLOUR", "blue": "B-COLOUR", "green": "I-COLOUR", "film": "B-THING", "card": "I-THING"}
WORDS = (*TAG_OF, "the", "a", "is", "not", "good", "money")
TAGS = ("O", "B-COLOUR", "I-COLOUR", "B-THING", "I-THING")
QUICK: dict[str, Any] = {"batch_size": 8, "learning_rate": 3e-3, "log_steps": 1, "epochs": 2}


def tags_of(words: Sequence[str]) -> list[str]:
    return [TAG_OF.get(word, "O") for word in words]


def rows_of(count: int, seed: int) -> list[list[str]]:
    generator = np.random.default_rng(seed)
    return [generator.choice(WORDS, generator.integers(3, 9)).tolist() for _ in range(count)]


def write_jsonl(file: Path, rows: Sequence[Sequence[str]]) -> Path:
    lines = [json.dumps({"tokens": list(words), "tags": tags_of(words)}) for words in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("rows")
    seen = {tuple(row) for row in rows_of(24, 2)}
    train = [row for row in rows_of(80, 0) if tuple(row) not in seen]
    write_jsonl(folder / "train.jsonl", train)
    conll = "-DOCSTART- -X- O\n\n" + "\n\n".join(
        "\n".join(f"{word} NN {tag}" for word, tag in zip(words, tags_of(words), strict=True))
        for words in rows_of(24, 2)
    )
    (folder / "validation.conll").write_text(conll + "\n", encoding="utf-8")
    return {"data": str(folder)}


@pytest.fixture(scope="module")
def test_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("test") / "rows.jsonl", rows_of(20, 1))


@pytest.fixture(scope="module")
def teacher(rows: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    model = str(save_tiny(folder / "base", num_layers=2))
    return demiglace.finetune(model=model, output=folder / "teacher", **rows, **QUICK | {"epochs": 5}).path


@pytest.fixture(scope="module")
def student(teacher: Path, rows: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "student"
    options = {"layers": 1, "method": "rail-balanced", "output": output}
    return demiglace.distill(teacher=str(teacher), **options, **rows, **QUICK | {"epochs": 3}).path


def test_files_of_words_are_recognized_and_the_teacher_learns_their_entities(teacher: Path) -> None:
    manifest = read_manifest(teacher)
    config = json.loads((teacher / "model" / "config.json").read_text("utf-8"))
    assert (manifest["problem"], tuple(manifest["labels"])) == ("token-classification", TAGS)
    assert config["architectures"] == ["BertForTokenClassification"]
    assert list(manifest["metrics"]["validation"]) == ["entity_f1", "entity_precision", "entity_recall"]
    assert manifest["metrics"]["validation"]["entity_f1"] > 0.9
    assert manifest["words"]["train"]["lost"] == 0 < manifest["words"]["train"]["total"]


@pytest.mark.parametrize("method", ["none", "vanilla-kd"])
def test_methods_give_the_same_result_with_and_without_the_cache(
    method: str, teacher: Path, rows: dict[str, str], tmp_path: Path
) -> None:
    runs = [
        demiglace.distill(
            teacher=str(teacher), layers=1, method=method, cache=cache, cache_dtype="float32", precision="fp32",
            output=tmp_path / f"run-{i}", **rows, **QUICK,
        )
        for i, cache in enumerate(["auto", "off"] if method != "none" else ["auto"])
    ]  # fmt: skip
    losses = [[r["loss"] for r in log(run.path, "step")] for run in runs]
    assert np.mean(losses[0][-4:]) < np.mean(losses[0][:4])
    np.testing.assert_allclose(losses[0], losses[-1], rtol=1e-4)


def log(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


def test_a_student_is_evaluated_with_its_teacher_by_type_of_entity(
    teacher: Path, student: Path, test_rows: Path, tmp_path: Path
) -> None:
    result = demiglace.evaluate(
        model=str(student), teacher=str(teacher), data=(str(test_rows),), output=tmp_path / "run"
    )
    run = result.path
    assert run is not None and [row[0] for row in result.tables[1].rows] == ["COLOUR", "THING"]
    (found,) = read_manifest(run)["sets"].values()
    stem = file_name(str(test_rows))
    predictions = np.load(run / f"{stem}.predictions.npy")
    true = [tags_of(words) for words in rows_of(20, 1)]
    answers = [row[: len(tags)].tolist() for row, tags in zip(predictions, true, strict=True)]
    report = classification_report(true, answers, output_dict=True, zero_division=0)
    assert found["metrics"]["entity_f1"] == pytest.approx(report["micro avg"]["f1-score"])
    assert found["groups"]["THING"]["metrics"]["entity_recall"] == pytest.approx(report["THING"]["recall"])
    assert found["groups"]["COLOUR"]["rows"] == report["COLOUR"]["support"]
    assert found["words"] == {"total": sum(map(len, true)), "lost": 0}
    assert 0.5 < found["agreement"] <= 1 and 0 <= found["ece"] < 1
    changes = json.loads((run / f"{stem}.changes.json").read_text("utf-8"))
    assert changes["rows"] == sum(changes["counts"].values()) == found["words"]["total"]
    assert all("[" in example["text"] for example in changes["examples"]["lost"])


def test_an_exported_student_predicts_the_same_tags(
    student: Path, test_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"p50": 1.0, "p95": 2.0}  # measuring takes a process for each file, and is tested elsewhere
    measurement = Measurement({"1": times, "32": times}, 100.0)
    monkeypatch.setattr(importlib.import_module("demiglace.commands.export"), "measure", lambda *_, **__: measurement)
    exported = demiglace.export(
        model=str(student), data=str(test_rows), quantize="int8", rows=8, output=tmp_path / "onnx"
    ).path
    (full,) = [a for a in read_manifest(exported)["artefacts"] if a["name"] == "ONNX fp32"]
    assert full["label_agreement"] == 1.0
    runs = [
        demiglace.evaluate(model=str(m), data=(str(test_rows),), output=tmp_path / f"{i}").path
        for i, m in enumerate((student, exported))
    ]
    stem = file_name(str(test_rows))
    logits, of_export = (np.load(run / f"{stem}.npy") for run in runs)
    assert logits.shape == (20, 8, len(TAGS)) and np.isfinite(logits).any()
    np.testing.assert_allclose(logits, of_export, atol=1e-4)
    assert read_manifest(runs[1])["sets"][str(test_rows)]["metrics"] == full["metrics"]
    _run_code_of(exported)
    _run_code_of(student / "model")


def _run_code_of(directory: Path) -> None:
    """Run the Python of a card in its directory: it prints each word of its text with a tag."""
    (code,) = re.findall(r"```python\n(.*?)```", (directory / "README.md").read_text("utf-8"), re.DOTALL)
    with contextlib.chdir(directory), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    lines = [line.split() for line in printed.getvalue().splitlines()]
    assert [word for word, _ in lines] == ["Ada", "Lovelace", "lived", "in", "London", "."]
    assert {tag for _, tag in lines} <= {*TAGS}


def test_words_beyond_the_maximum_length_are_counted_and_missed(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_jsonl(tmp_path / "long.jsonl", [["the", "red", "film", "is", "not", "film"], ["good", "film"]])
    run = demiglace.evaluate(model=str(teacher), data=(str(file),), max_length=5, output=tmp_path / "run").path
    (found,) = read_manifest(run)["sets"].values()
    assert found["words"] == {"total": 8, "lost": 3}
    assert found["groups"]["THING"]["metrics"]["entity_recall"] == pytest.approx(2 / 3)
    assert (
        "3 of 8 words, in 1 rows, have no token; 1 of these rows are cut at --max-length 5" in capsys.readouterr().err
    )


def test_words_of_a_trimmed_student_learn_from_the_same_words(teacher, rows, tmp_path):
    """Rows of letters are cut at --max-length earlier than the teacher's rows of words: only common words count."""
    how = {"layers": 1, "method": "vanilla-kd", "cache_dtype": "float32", "max_length": 12} | QUICK | rows
    how |= {"vocabulary": "trim", "vocabulary_size": 86}
    runs = [demiglace.distill(teacher=str(teacher), output=tmp_path / c, cache=c, **how).path for c in ("auto", "off")]
    manifest = read_manifest(runs[0])
    assert manifest["vocabulary"]["coverage"]["growth"] > 0.3
    assert manifest["words"]["train"]["lost"] > 0
    close(*runs, 1e-4)
