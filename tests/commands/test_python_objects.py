"""Models, rows and callbacks that a Python program gives as objects."""

import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
from command_kit import QUICK, records, weights
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import demiglace
from demiglace.data.rows.readers import read_table
from demiglace.errors import ConfigError, DataError, ModelError, RunError
from demiglace.methods.registry import find_method
from demiglace.runs.directory import read_manifest

SETTINGS = QUICK | {"epochs": 1}


@pytest.fixture(scope="module")
def frames(rows: dict[str, str]) -> dict[str, pd.DataFrame]:
    return {split: pd.read_csv(file) for split, file in rows.items()}


@pytest.fixture
def objects(teacher: Path) -> dict[str, Any]:
    """A teacher and its tokenizer, loaded."""
    path = teacher / "model"
    return {
        "teacher": AutoModelForSequenceClassification.from_pretrained(path),
        "tokenizer": AutoTokenizer.from_pretrained(path),
    }


def as_dataset(frame: pd.DataFrame, names: tuple[str, ...] = ("negative", "positive")) -> datasets.Dataset:
    """The rows with a ClassLabel feature, as the hub has them."""
    label = datasets.ClassLabel(names=list(names))
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    return datasets.Dataset.from_dict({"text": list(frame.text), "label": list(frame.label)}, features=features)


def test_objects_give_the_same_student_as_files(tmp_path, frames, rows, teacher, objects):
    given = datasets.DatasetDict(
        {"train": as_dataset(frames["data"]), "validation": as_dataset(frames["validation"]),
         "test": as_dataset(frames["test"]), "unsupervised": as_dataset(frames["test"])}
    )  # fmt: skip
    by_object = demiglace.distill(**objects, data=given, layers=2, output=tmp_path / "a", **SETTINGS)
    by_path = demiglace.distill(teacher, layers=2, output=tmp_path / "b", **rows, **SETTINGS)
    assert by_object.metrics == by_path.metrics
    one, other = weights(by_object.path), weights(by_path.path)
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert by_object.manifest["labels"] == ["negative", "positive"]
    assert by_object.manifest["inputs"]["data"] == by_path.manifest["inputs"]["data"]


def test_an_equal_call_is_up_to_date_and_other_rows_or_weights_are_refused(tmp_path, frames, objects, capsys):
    call = {"layers": 2, "output": tmp_path / "run", **SETTINGS}
    data = frames["data"].to_dict("records")
    first = demiglace.distill(**objects, data=data, **call)
    inputs = sorted(p.name for p in (tmp_path / "run" / "inputs").iterdir())
    assert [name.partition("-")[0] for name in inputs] == ["data", "teacher"]
    assert demiglace.distill(**objects, data=frames["data"], **call).metrics == first.metrics
    assert "is up to date" in capsys.readouterr().err
    with pytest.raises(RunError, match=r"inputs\.data"):
        demiglace.distill(**objects, data=data[:-1], **call)
    with torch.no_grad():
        objects["teacher"].classifier.bias += 1
    with pytest.raises(RunError, match=r"inputs\.teacher"):
        demiglace.distill(**objects, data=data, **call)
    assert sorted(p.name for p in (tmp_path / "run" / "inputs").iterdir()) == inputs, "refused calls leave nothing"


def test_every_command_takes_objects(tmp_path, frames, objects, monkeypatch):
    model, tokenizer = objects["teacher"], objects["tokenizer"]
    names = {"tokenizer": tokenizer}
    tuned = demiglace.finetune(model, data=frames["data"], output=tmp_path / "tuned", **names, **SETTINGS)
    alone = demiglace.evaluate(model, data=frames["test"], **names)
    assert alone.path is None and next(iter(alone.metrics)).startswith("data-")
    scored = demiglace.evaluate(tuned, data=as_dataset(frames["test"]), teacher=model, output=tmp_path / "e", **names)
    assert scored.metrics.keys() == alone.metrics.keys(), "equal rows have one name in all runs"
    cut = demiglace.truncate(model, layers=2, output=tmp_path / "cut", **names)
    assert cut.metrics["layers"] == 2
    demiglace.plan(teacher=model, layers=2, data=frames["data"], flops=1e9, output=tmp_path / "plan", **names)
    assert not (tmp_path / "plan").exists()
    monkeypatch.setattr("demiglace.commands.export._artefacts", lambda *_: ())  # the ONNX exporter takes a minute
    exported = demiglace.export(model, data=frames["test"], output=tmp_path / "onnx", rows=8, **names)
    assert exported.manifest["inputs"].keys() >= {"model", "rows"}


def test_a_student_model_and_a_method_may_be_objects(tmp_path, frames, objects):
    student = AutoModelForSequenceClassification.from_config(objects["teacher"].config)
    method = find_method("vanilla-kd").options().method()
    result = demiglace.distill(
        objects.pop("teacher"), student=student, method=method, data=frames["data"], output=tmp_path / "run", **objects,
        **SETTINGS,
    )  # fmt: skip
    assert result.manifest["inputs"].keys() >= {"teacher", "student", "data", "method"}
    assert not torch.equal(weights(result.path)["classifier.weight"], student.classifier.weight)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (iter([{"text": "a"}]), "--data was given an object of the type"),
        ([{"text": "a", "label": "x"}, "b"], "item 2 is of the type str"),
        ({"text": ["a", "b"], "label": ["x"]}, "columns of different lengths"),
        ({"text": "a"}, "expected a datasets.Dataset"),
        ({"unsupervised": [{"text": "a"}]}, "expected train, validation"),
        (datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).to_iterable_dataset(), "streamed data set"),
        (pd.DataFrame({"text": [], "label": []}), "holds no rows"),
    ],
)
def test_what_is_no_table_is_refused_in_words(value, message, tmp_path, base):
    with pytest.raises((ConfigError, DataError), match=message):
        demiglace.finetune(base, data=value, output=tmp_path / "run")
    assert not (tmp_path / "run" / "inputs").exists()


def test_wrong_models_and_tokenizers_are_refused_in_words(tmp_path, base, frames):
    model = AutoModelForSequenceClassification.from_pretrained(base)
    call = {"data": frames["data"], "output": tmp_path / "run"}
    with pytest.raises(ModelError, match="without its tokenizer"):
        demiglace.finetune(model, **call)
    with pytest.raises(ConfigError, match="and no model was"):
        demiglace.finetune(base, tokenizer=AutoTokenizer.from_pretrained(base), **call)
    with pytest.raises(ConfigError, match="expected a tokenizer object"):
        demiglace.finetune(model, tokenizer="bert-base-uncased", **call)


def test_cells_are_written_as_they_mean(tmp_path, capsys):
    from demiglace.data.rows.objects import write_rows

    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B"]))
    rows = datasets.Dataset.from_dict(
        {"label": [0, -1], "tags": [[0, 1], [1]]},
        features=datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"]), "tags": tags}),
    )
    assert dict(read_table(write_rows(rows, tmp_path / "a", "data")).columns) == {
        "label": ["no", None],
        "tags": [["O", "B"], ["B"]],
    }
    frame = pd.DataFrame(
        {"text": ["é", None], "n": [1, 2], "x": [1.5, float("nan")], "when": pd.to_datetime(["2020-01-02", None]),
         "kind": pd.Categorical(["a", "b"]), "image": [object(), object()]}
    )  # fmt: skip
    assert dict(read_table(write_rows(frame, tmp_path / "b", "data")).columns) == {
        "text": ["é", None],
        "n": [1, 2],
        "x": [1.5, None],
        "when": ["2020-01-02T00:00:00", None],
        "kind": ["a", "b"],
        "image": [None, None],
    }
    assert "left out values of the type object in the column 'image'" in capsys.readouterr().err


def test_a_grid_may_be_a_dict(tmp_path, rows, base, teacher):
    grid = {
        "tasks": {"mood": {**rows, "teacher": {"run": str(teacher)}}},
        "students": {"half": {"layers": 2}},
        "methods": {"none": {}, "vanilla-kd": {}},
    }
    shown = demiglace.compare(grid, output=tmp_path / "runs", dry_run=True)
    assert "vanilla-kd" in str(shown)


# callbacks


class Recorder(demiglace.Callback):
    def __init__(self, stop_at: int = 0, stop_epoch: int = 0):
        self.steps: list[demiglace.StepEvent] = []
        self.epochs: list[demiglace.EpochEvent] = []
        self.losses: list[float] = []
        self._stop_at, self._stop_epoch = stop_at, stop_epoch

    def on_step(self, event: demiglace.StepEvent) -> None:
        self.steps.append(event)
        self.losses.append(event.loss)
        if event.step == self._stop_at:
            raise StopIteration("enough")

    def on_epoch(self, event: demiglace.EpochEvent) -> None:
        self.epochs.append(event)
        if event.epoch == self._stop_epoch:
            raise StopIteration("enough")


def test_callbacks_see_every_step_and_epoch_and_change_nothing(tmp_path, rows, base, teacher):
    seen = Recorder()
    result = demiglace.finetune(base, output=tmp_path / "run", callbacks=[seen], **rows, **QUICK)
    assert [e.step for e in seen.steps] == list(range(1, 11)) and seen.steps[0].steps == 10
    logged = records(result.path, "step")
    assert seen.losses == pytest.approx([r["loss"] for r in logged])
    assert [e.learning_rate for e in seen.steps] == [r["lr"] for r in logged]
    assert [dict(e.metrics) for e in seen.epochs] == [r["metrics"] for r in records(result.path, "epoch")]
    assert [(e.epoch, e.epochs, e.step) for e in seen.epochs] == [(1, 2, 5), (2, 2, 10)]
    assert read_manifest(result.path)["best_epoch"] == max(i for i, e in enumerate(seen.epochs) if e.is_best)
    assert all(torch.equal(tensor, weights(teacher)[name]) for name, tensor in weights(result.path).items())
    assert "callbacks" not in json.loads((result / "run.json").read_text())["config"]


@pytest.mark.parametrize("stop", [{"stop_at": 3}, {"stop_at": 5}, {"stop_epoch": 1}, {"stop_at": 10}])
def test_a_callback_that_raises_keeps_a_checkpoint_to_resume_from(stop, tmp_path, rows, base, teacher):
    call = {"output": tmp_path / "run", **rows, **QUICK, "checkpoint_seconds": 3600, "log_steps": 2}
    with pytest.raises(StopIteration, match="enough"):
        demiglace.finetune(base, callbacks=[Recorder(**stop)], **call)
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").is_file()
    seen = Recorder()
    demiglace.finetune(base, callbacks=[seen], **call)
    done = stop.get("stop_at") or 5 * stop["stop_epoch"]
    assert [e.step for e in seen.steps] == list(range(done + 1, 11))
    assert all(torch.equal(tensor, weights(teacher)[name]) for name, tensor in weights(tmp_path / "run").items())


def test_what_is_no_callback_is_refused_before_training(tmp_path, rows, base):
    for wrong in ([print], [Recorder], Recorder()):
        with pytest.raises(ConfigError, match="callbacks"):
            demiglace.finetune(base, output=tmp_path / "run", callbacks=wrong, **rows)
    assert not (tmp_path / "run").exists()
