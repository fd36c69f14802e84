"""A new kind of problem is one file (`counts_task`) and one row: trained, evaluated and distilled by the public API."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counts_task import COUNTS

import demiglace
from demiglace.errors import ConfigError, DataError, ModelError
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import file_name
from demiglace.tasks.registry import TASK_KINDS
from factories import save_tiny

WORDS = ("the", "film", "card", "money", "red", "blue")
QUICK: dict[str, Any] = {"problem": "counts", "batch_size": 8, "lr": 2e-3, "log_steps": 1}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASK_KINDS, "counts", COUNTS)
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The options that name files of rows; the label counts the word `good`, in a column that only counts look for."""
    folder, generator, seen = tmp_path_factory.mktemp("rows"), np.random.default_rng(0), set()
    for name, count in (("train", 48), ("validation", 12), ("test", 12)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, ["text", "score", "count"])
            writer.writeheader()
            while count:
                good = int(generator.integers(0, 5))
                text = " ".join(generator.permutation([*["good"] * good, *generator.choice(WORDS, 3)]))
                if text not in seen:
                    seen.add(text)
                    writer.writerow({"text": text, "score": 0.5, "count": good})
                    count -= 1
    return {"data": str(folder)}


@pytest.fixture(scope="module")
def trained(rows: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return demiglace.finetune(
        model=str(save_tiny(folder / "base", num_layers=2)), output=folder / "run", epochs=6, **rows, **QUICK
    )


def test_its_loss_trains_and_its_metric_selects_the_epoch(trained: Path) -> None:
    manifest = read_manifest(trained)
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text("utf-8").splitlines()]
    errors = [r["metrics"]["mean_error"] for r in log if r["kind"] == "epoch"]
    losses = [r["loss"] for r in log if r["kind"] == "step"]
    assert (manifest["problem"], manifest["labels"]) == ("counts", [])
    assert np.mean(losses[-6:]) < np.mean(losses[:6])
    assert manifest["best_epoch"] == int(np.argmin(errors)) != int(np.argmax(errors))
    assert manifest["metrics"]["validation"]["mean_error"] == pytest.approx(min(errors), abs=1e-4)


def test_its_card_names_it(trained: Path) -> None:
    card = (trained / "model" / "README.md").read_text("utf-8")
    assert "(a count)" in card
    assert f"print({COUNTS.readout})" in card
    assert "| test | Mean absolute error |" in card


def test_it_is_evaluated_and_distilled(trained: Path, rows: dict[str, Any], tmp_path: Path) -> None:
    student = demiglace.distill(
        teacher=str(trained), layers=1, method="vanilla-kd", epochs=2, output=tmp_path / "student", **rows, **QUICK
    )
    test = str(Path(rows["data"]) / "test.csv")
    run = demiglace.evaluate(model=str(student), teacher=str(trained), data=(test,), output=tmp_path / "evaluation")
    (found,) = read_manifest(run)["sets"].values()
    assert found["metrics"].keys() == {"mean_error"} and found["rows"] == 12
    assert found["agreement"] >= 0 and "ece" not in found
    stem = file_name(test)
    predictions, logits = np.load(run / f"{stem}.predictions.npy"), np.load(run / f"{stem}.npy")
    np.testing.assert_allclose(predictions, np.exp(logits[:, 0]))
    labels = np.load(run / f"{stem}.labels.npy")
    assert found["metrics"]["mean_error"] == pytest.approx(np.abs(predictions - labels).mean())
    assert read_manifest(student)["problem"] == "counts"


def test_a_wrong_label_is_refused_with_its_line(trained: Path, rows: dict[str, Any], tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("text,count\nthe film,1.5\nthe card,2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"(?s)label is no count: 1.*bad\.csv:2"):
        demiglace.finetune(model=str(trained), data=str(bad), output=tmp_path / "run", problem="counts")


def test_its_teacher_is_no_teacher_of_another_kind(trained: Path, rows: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"teacher's labels are a count \(counts\), the rows' are a number \(regr"):
        demiglace.distill(
            teacher=str(trained), layers=1, problem="regression", label_column="count", output=tmp_path / "run", **rows
        )


def test_an_unknown_kind_is_refused_with_the_known_ones(rows: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown kind of problem 'cuonts'; did you mean 'counts'\? Known: class"):
        demiglace.finetune(model="m", problem="cuonts", output=tmp_path / "run", **rows)


def test_the_package_of_kinds_does_not_hide_the_command() -> None:
    import demiglace.tasks.base

    assert callable(demiglace.tasks) and demiglace.tasks.__name__ == "tasks"
