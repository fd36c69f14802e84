"""`distill` on text without labels: the teacher's outputs alone, reported as agreement with the teacher."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from command_kit import QUICK, arguments, records, weights, write_csv, write_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from demiglace.cli import main
from demiglace.commands.export import _rows as export_rows
from demiglace.config.command_options import ExportConfig
from demiglace.models.labels import label_space_of
from demiglace.runs.directory import read_manifest

OPTIONS: dict[str, Any] = {"layers": 2, "method": "rail-balanced", **QUICK}


def texts_of(file: str) -> list[str]:
    with Path(file).open(encoding="utf-8") as handle:
        return [row["text"] for row in csv.DictReader(handle)]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, str]) -> dict[str, str]:
    """The texts of the rows without their labels; one of the training texts occurs twice."""
    home = tmp_path_factory.mktemp("texts")
    found = {name: texts_of(file) for name, file in rows.items()}
    found["data"].append(found["data"][0])
    return {
        name: str(write_csv(home / f"{name}.csv", [{"text": t, "mood": "?"} for t in each]))
        for name, each in found.items()
    }


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, teacher: Path, texts: dict[str, str]) -> Path:
    output = tmp_path_factory.mktemp("student") / "run"
    assert main(arguments("distill", teacher=teacher, output=output, **texts, **OPTIONS)) == 0
    return output


def classes(model: Path, texts: list[str]) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    with torch.no_grad():
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        return AutoModelForSequenceClassification.from_pretrained(model)(**batch).logits.argmax(-1).tolist()


def test_a_student_of_text_alone_is_scored_by_its_agreement(
    student: Path, teacher: Path, texts: dict[str, str]
) -> None:
    manifest = read_manifest(student)
    assert (manifest["labelled"], manifest["labels"]) == (False, ["negative", "positive"])
    assert manifest["rows"] == {"train": 36, "validation": 12, "test": 12}
    assert manifest["drops"] == {"repeated texts": 1}
    for split in ("validation", "test"):
        held = texts_of(texts[split])
        same = [a == b for a, b in zip(*(classes(run / "model", held) for run in (student, teacher)), strict=True)]
        assert manifest["metrics"][split] == {"agreement": pytest.approx(sum(same) / len(same))}
    assert list(records(student, "step")[0]["terms"]) == ["kd", "layers"]
    config = AutoModelForSequenceClassification.from_pretrained(student / "model").config
    assert config.id2label == {0: "negative", 1: "positive"}
    card = (student / "model" / "README.md").read_text("utf-8")
    assert "Its training text has no labels" in card and "Agreement with teacher" in card


def test_unlabelled_rows_alone_train_the_same_student(
    student: Path, tmp_path: Path, teacher: Path, texts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = {name: file for name, file in texts.items() if name != "data"}
    assert (
        main(
            arguments("distill", teacher=teacher, output=tmp_path / "run", unlabelled=texts["data"], **given, **OPTIONS)
        )
        == 0
    )
    lines = capsys.readouterr().err
    assert "no labels. The student learns from the teacher's outputs" in lines
    assert "Not read: mood; --label-column names a column of labels." in lines
    assert "left out 1 repeated texts of the training texts" in lines
    assert "method rail-balanced trains without its loss on labels: task (weight 0.333)" in lines
    ours, theirs = weights(tmp_path / "run"), weights(student)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_report_export_and_plan_of_text_without_labels(
    student: Path, tmp_path: Path, teacher: Path, texts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(student), "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "reaches agreement with the teacher" in page
    assert main(arguments("plan", teacher=teacher, layers=2, unlabelled=texts["data"], flops=1e12, batch_size=8)) == 0
    assert "for training" in capsys.readouterr().out
    config = ExportConfig(str(student), tmp_path / "onnx")
    checked, scored = export_rows(config, label_space_of(str(student)))
    assert (len(checked), scored) == (12, None)  # compared with the model, and not scored


def test_a_pair_of_texts_and_numbers_need_no_labels(tmp_path: Path, base: Path) -> None:
    for kind in ("pairs", "regression"):
        rows = write_rows(tmp_path / kind, kind)
        teacher = tmp_path / f"{kind}-teacher"
        assert main(arguments("finetune", model=base, output=teacher, **rows, **QUICK)) == 0
        with Path(rows["data"]).open(encoding="utf-8") as handle:
            texts = [{k: v for k, v in row.items() if k not in ("label", "score")} for row in csv.DictReader(handle)]
        data = write_csv(tmp_path / kind / "texts.csv", texts)
        options = {"teacher": teacher, "data": data, "layers": 2, "method": "vanilla-kd", **QUICK}
        assert main(arguments("distill", output=tmp_path / f"{kind}-run", **options)) == 0
        found = read_manifest(tmp_path / f"{kind}-run")
        assert (found["labelled"], found["pairs"], *found["metrics"]["validation"]) == (
            False,
            kind == "pairs",
            "agreement",
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "none"}, "method none trains on labels alone, and the rows have none"),
        ({"method": "annealing-kd", "epochs": 8}, "phase 2 of method annealing-kd trains on labels alone"),
        ({"metric": "accuracy"}, "unknown metric of data.csv: 'accuracy'"),
        ({"label_column": "label"}, "has no column 'label' (--label-column)"),
    ],
)
def test_what_needs_labels_is_refused(
    options: dict,
    message: str,
    tmp_path: Path,
    teacher: Path,
    texts: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = OPTIONS | {"teacher": teacher, "output": tmp_path / "run", "data": texts["data"]} | options
    assert main(arguments("distill", **given)) == 2
    assert message in capsys.readouterr().err


def test_finetune_and_compare_need_labels(
    tmp_path: Path, base: Path, teacher: Path, texts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("finetune", model=base, output=tmp_path / "run", data=texts["data"])) == 2
    assert "has no label column with a usual name" in capsys.readouterr().err
    grid = tmp_path / "grid.yaml"
    task = f"{{data: {texts['data']}, validation: {texts['validation']}, teacher: {{run: {teacher}}}}}"
    grid.write_text(
        f"tasks: {{mine: {task}}}\nstudents: {{small: {{layers: 2}}}}\nmethods: {{none: {{}}, vanilla-kd: {{}}}}\n"
    )
    assert main(["compare", str(grid), "-o", str(tmp_path / "grid"), "--dry-run"]) == 2
    message = capsys.readouterr().err
    assert "tasks.mine: " in message and "A comparison scores students on labelled rows" in message
