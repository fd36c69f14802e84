"""Multi-label classification: read from every form of file, trained, distilled, evaluated, exported and reported."""

import csv
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from transformers import pipeline

import demiglace
from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.rows.evaluation_sets import load_set
from demiglace.data.rows.schema import Dataset, LabelSpace
from demiglace.distillation.classifier import with_labels_of
from demiglace.errors import DataError, ModelError
from demiglace.evaluation.bootstrap_metrics import share_of_map
from demiglace.evaluation.label_order import better_order
from demiglace.evaluation.scores import compute
from demiglace.evaluation.significance import influence
from demiglace.export.measure import Measurement
from demiglace.losses.divergences import forward_kl
from demiglace.models.labels import label_space_of, set_labels
from demiglace.report.runs.classes import class_table, confusion_table, read_classes
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import file_name
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.multi_label import MULTI_LABEL
from demiglace.training.datasets import read_rows, with_problem_of
from factories import save_tiny, tiny_config

NAMES = ("blue", "good", "red")
QUICK: dict[str, Any] = {"batch_size": 8, "lr": 3e-3, "log_steps": 1}
_OTHERS = ("the", "film", "card", "money", "this", "lost", "and", "it")


def examples(count: int, seed: int) -> list[tuple[str, list[str]]]:
    """Return texts, and which of the words `NAMES` they hold."""
    generator, rows, seen = np.random.default_rng(seed), [], set()
    while len(rows) < count:
        has = [name for name in NAMES if generator.random() < 0.4]
        text = " ".join(generator.permutation([*has, *generator.choice(_OTHERS, 4, replace=False)]))
        if text not in seen:
            seen.add(text)
            rows.append((text, has))
    return rows


def write_jsonl(path: Path, rows: list[tuple[str, list[str]]]) -> Path:
    path.write_text("\n".join(json.dumps({"text": t, "labels": labels}) for t, labels in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of train, validation and test rows."""
    folder, every = tmp_path_factory.mktemp("rows"), examples(96, 0)
    for name, part in {"train": every[:64], "validation": every[64:80], "test": every[80:]}.items():
        write_jsonl(folder / f"{name}.jsonl", part)
    return folder


@pytest.fixture(scope="module")
def trained(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    base = save_tiny(folder / "base", num_layers=2)
    return demiglace.finetune(model=str(base), data=str(rows), output=folder / "run", epochs=6, **QUICK)


def read(path: Path, **options: Any) -> Dataset:
    return load_dataset(DataConfig(data=str(path), **options), DataLocation())


def test_lists_in_json_are_read_without_an_option_and_in_words(rows: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = read(rows)
    assert dataset.labels == LabelSpace(MULTI_LABEL, NAMES)
    assert "the labels are lists: multi-label classification" in capfd.readouterr().err
    expected = [[name in labels for name in NAMES] for _, labels in examples(96, 0)[:64]]
    assert dataset.splits["train"].labels.tolist() == np.array(expected, float).tolist()


@pytest.mark.parametrize("separator", ["|", ";", ", ", "json"])
def test_a_cell_of_csv_holds_several_labels(separator: str, rows: Path, tmp_path: Path) -> None:
    every = examples(96, 0)[:64]
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "labels"])
        for text, labels in every:
            cell = json.dumps(labels) if separator == "json" else separator.join(labels) or "[]"
            writer.writerow([text, cell])
    found, expected = read(tmp_path / "rows.csv", problem="multi-label"), read(rows)
    assert found.labels.names == NAMES
    both = [*found.splits["train"].labels.tolist(), *found.splits["validation"].labels.tolist()]
    assert sorted(both) == sorted(expected.splits["train"].labels.tolist())


@pytest.mark.parametrize("option", [{"problem": "multi-label"}, {"label_column": "blue, good,red"}])
def test_columns_of_0_and_1_are_labels(option: dict[str, str], rows: Path, tmp_path: Path) -> None:
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "text", *NAMES])
        for i, (text, labels) in enumerate(examples(96, 0)[:64]):
            writer.writerow([i, text, *(int(name in labels) for name in NAMES)])
    found, expected = read(tmp_path / "rows.csv", **option), read(rows)
    assert found.labels == expected.labels
    both = [*found.splits["train"].labels.tolist(), *found.splits["validation"].labels.tolist()]
    assert sorted(both) == sorted(expected.splits["train"].labels.tolist())
    tested = load_set(str(tmp_path / "rows.csv"), expected.labels, DataLocation())
    np.testing.assert_array_equal(tested.split.labels, expected.splits["train"].labels)


def test_a_column_of_a_label_holds_0_or_1(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,joy,love\na film,1,0\na card,2,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows.csv:3: joy is '2'; a column of a label holds 0 or 1"):
        read(tmp_path / "rows.csv", label_column="joy,love")
    with pytest.raises(DataError, match="unknown column 'hate'"):
        read(tmp_path / "rows.csv", label_column="joy,hate")


def test_cells_are_lists_for_a_model_of_such_rows(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = [f"{text},{'+'.join(labels).replace('+', ';') or '[]'}" for text, labels in examples(30, 5)]
    file.write_text("\n".join(["text,labels", *lines]), encoding="utf-8")
    source = DataConfig(data=str(file))
    assert with_problem_of(source, str(trained)).problem == "multi-label"
    assert read_rows(source, DataLocation(), str(trained)).labels.names == NAMES
    assert with_problem_of(source, str(tmp_path / "no-model")) is source


def test_an_odd_list_among_classes_is_refused_with_its_line(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"row {i}", "label": "ab"[i % 2]}) for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, '{"text": "x", "label": ["a", "b"]}']), encoding="utf-8")
    with pytest.raises(DataError, match=r"rows.jsonl:7: the label is \['a', 'b'\]; for classification, one text"):
        read(tmp_path / "rows.jsonl")


def test_a_label_that_training_rows_lack_is_a_fault_of_its_row(rows: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "test.jsonl", [("a card", ["red", "green", "grey"]), ("a film", ["good"])])
    with pytest.raises(DataError, match=r"(?s)unknown label: 1.*test.jsonl:1  'green', 'grey'"):
        read(rows, test=str(file))


def test_every_label_is_in_both_parts_of_a_split(tmp_path: Path) -> None:
    every = examples(200, 1)
    for i in (3, 50, 120, 180):  # a rare label
        every[i][1].append("rare")
    dataset = read(write_jsonl(tmp_path / "rows.jsonl", every), validation_fraction=0.3)
    for split in dataset.splits.values():
        assert split.labels.any(axis=0).all()


def test_goemotions_has_its_28_labels(data_dir: Path) -> None:
    dataset = load_dataset(DataConfig(data="goemotions"), DataLocation(data_dir))
    assert [len(split) for split in dataset.splits.values()] == [20_000, 2_000, 3_627]
    assert dataset.labels.task is MULTI_LABEL and dataset.labels.size == 28
    for split in dataset.splits.values():
        assert split.labels.any(axis=0).all() and split.labels.any(axis=1).all()
    assert dataset.splits["train"].labels[:, dataset.labels.names.index("grief")].sum() == 27
    found = load_set("goemotions:test", dataset.labels, DataLocation(data_dir))
    np.testing.assert_array_equal(found.split.labels, dataset.splits["test"].labels)


def test_the_threshold_has_the_highest_micro_f1_of_all() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random((16, 3)) < 0.3).astype(np.float32)
    logits = (labels - 2 + generator.normal(0, 1, labels.shape)).astype(np.float32)
    fitted = MULTI_LABEL.fitted(labels, logits)
    best = max(sk.f1_score(labels, logits > cut, average="micro") for cut in np.sort(logits.ravel())[:-1])
    assert compute(["micro_f1"], labels, logits, fitted)["micro_f1"] == pytest.approx(best)
    assert compute(["micro_f1"], labels, logits, MULTI_LABEL)["micro_f1"] < best
    assert MULTI_LABEL.with_decision_rule(fitted.decision_rule()).threshold == fitted.threshold
    assert MULTI_LABEL.fitted(np.zeros_like(labels), logits) is MULTI_LABEL


def test_the_divergence_is_that_of_each_label_and_the_loss_that_of_transformers() -> None:
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    found = MULTI_LABEL.divergence(student, teacher, lambda s, t: forward_kl(s, t, 2.0))
    p, q = (teacher / 2).sigmoid(), (student / 2).sigmoid()
    each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert found == pytest.approx(4 * each.mean(-1), abs=1e-5)
    labels = torch.tensor([[0.0, 1, 0]] * 4)
    expected = torch.nn.BCEWithLogitsLoss()(student, labels)
    assert MULTI_LABEL.loss(student, labels).mean() == pytest.approx(float(expected))
    pseudo = MULTI_LABEL.with_decision_rule({"threshold": 0.9}).pseudo_label_loss(student, teacher)
    assert pseudo == pytest.approx(MULTI_LABEL.loss(student, (teacher.sigmoid() > 0.9).float()))


def test_influences_are_those_of_leaving_out_each_row() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random((30, 3)) < 0.3).astype(np.float32)
    logits = labels + generator.normal(0, 1, labels.shape)
    whole = compute(list(MULTI_LABEL.metrics), labels, logits, MULTI_LABEL)
    kept = [np.delete(np.arange(30), i) for i in range(30)]
    without = [compute(list(MULTI_LABEL.metrics), labels[k], logits[k], MULTI_LABEL) for k in kept]
    for name, value in whole.items():
        compared = logits if MULTI_LABEL.metrics[name].of == "logits" else MULTI_LABEL.decode(logits)
        expected = [29 * (value - w[name]) for w in without]
        assert influence(name, labels, compared) == pytest.approx(expected, abs=1e-9)
    assert not share_of_map(np.zeros((4, 2)), np.zeros((4, 2))).any()


def test_another_order_of_unnamed_outputs_is_found() -> None:
    labels = (np.random.default_rng(0).random((200, 3)) < 0.3).astype(np.float32)
    order = better_order(labels, labels[:, [2, 0, 1]], 3)
    assert order is not None and order.tolist() == [1, 2, 0]
    assert better_order(labels, labels, 3) is None


def test_the_config_of_the_hub_tells_the_kind(tmp_path: Path) -> None:
    config = tiny_config("bert")
    set_labels(config, NAMES, MULTI_LABEL)
    config.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert content["problem_type"] == "multi_label_classification"
    assert "demiglace_task" not in content
    assert label_space_of(str(tmp_path)).task.name == "multi-label"


def test_training_keeps_the_threshold_that_evaluation_uses(trained: Path, rows: Path, tmp_path: Path) -> None:
    manifest = read_manifest(trained)
    threshold = manifest["decision_rule"]["threshold"]
    assert threshold != 0.5
    assert (manifest["problem"], manifest["labels"]) == ("multi-label", list(NAMES))
    assert label_space_of(str(trained)).task.decision_rule() == {"threshold": threshold}
    for split in ("validation", "test"):
        file = str(rows / f"{split}.jsonl")
        run = demiglace.evaluate(model=str(trained), data=(file,), output=tmp_path / split)
        (found,) = read_manifest(run)["sets"].values()
        assert found["metrics"] == pytest.approx(manifest["metrics"][split], abs=1e-6)
        logits, predictions = (np.load(run / f"{file_name(file)}{ending}.npy") for ending in ("", ".predictions"))
        np.testing.assert_array_equal(predictions, 1 / (1 + np.exp(-logits.astype(float))) > threshold)
    assert manifest["metrics"]["test"]["map"] > 0.9


def test_its_card_prints_the_labels_above_the_threshold(trained: Path) -> None:
    card = (trained / "model" / "README.md").read_text("utf-8")
    assert "pipeline_tag: text-classification" in card
    code = card.split("```python\n")[1].split("```")[0].replace('"."', repr(str(trained / "model")))
    printed: list[list[str]] = []
    exec(code, {"print": printed.append})
    (scores,) = pipeline("text-classification", model=str(trained / "model"), top_k=None)(["a text"])
    threshold = read_manifest(trained)["decision_rule"]["threshold"]
    assert len(scores) == 3 and not np.isclose(sum(s["score"] for s in scores), 1)
    assert printed == [sorted(s["label"] for s in scores if s["score"] > threshold)]


@pytest.mark.parametrize("method", ["vanilla-kd", "pseudo-labels", "rail-balanced", "universal-kd"])
def test_it_is_distilled(method: str, trained: Path, rows: Path, tmp_path: Path) -> None:
    unlabelled = tmp_path / "more.jsonl"
    unlabelled.write_text("\n".join(json.dumps({"text": f"{t} no"}) for t, _ in examples(8, 2)), encoding="utf-8")
    options = {"data": str(rows), "unlabelled": (str(unlabelled),), "epochs": 2, **QUICK}
    student = demiglace.distill(
        teacher=str(trained), layers=1, method=method, output=tmp_path / "student", label_map={}, **options
    )
    manifest = read_manifest(student)
    assert manifest["problem"] == "multi-label" and manifest["rows"]["unlabelled"] == 8
    file = str(rows / "test.jsonl")
    run = demiglace.evaluate(model=str(student), teacher=str(trained), data=(file,), output=tmp_path / "evaluation")
    (found,) = read_manifest(run)["sets"].values()
    stem = file_name(file)
    predictions, labels = (np.load(run / f"{stem}.{kind}.npy") for kind in ("predictions", "labels"))
    assert found["metrics"]["micro_f1"] == pytest.approx(sk.f1_score(labels, predictions, average="micro"))
    assert 0 <= found["agreement"] <= 1


def test_it_is_exported_with_its_threshold(
    trained: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    stage = importlib.import_module("demiglace.commands.export")
    times = {"p50": 1.0, "p95": 2.0}
    monkeypatch.setattr(stage, "measure", lambda *_, **__: Measurement({"1": times, "32": times}, 1.0))
    run = demiglace.export(model=str(trained), output=tmp_path / "onnx", rows=16)
    (file,) = [a for a in read_manifest(run)["artefacts"] if a["role"] == "export"]
    assert file["label_agreement"] == 1.0
    evaluated = demiglace.evaluate(model=str(run), data=(str(rows / "test.jsonl"),), output=tmp_path / "evaluation")
    (found,) = read_manifest(evaluated)["sets"].values()
    manifest = read_manifest(trained)
    assert found["metrics"] == pytest.approx(manifest["metrics"]["test"], abs=1e-4)
    card = (run / "README.md").read_text("utf-8")
    assert (
        readout_at(manifest["decision_rule"]["threshold"]) in card
        and 'names = list(config["id2label"].values())' in card
    )


def readout_at(threshold: float) -> str:
    return f"print([name for name, z in zip(names, logits[0]) if z > {np.log(threshold / (1 - threshold)):.6g}])"


def test_its_report_has_precision_and_recall_by_label(tmp_path: Path) -> None:
    labels = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 0]], dtype=np.float32)
    np.save(tmp_path / "set.labels.npy", labels)
    np.save(tmp_path / "set.predictions.npy", np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1], [1, 0, 0]], dtype=np.float32))
    found = read_classes(tmp_path / "set", NAMES)
    assert found is not None and confusion_table(found) is None
    assert [[cell.text for cell in row] for row in class_table(found).rows] == [
        ["blue", "3", "66.7", "66.7", "66.7"],
        ["good", "0", "–", "–", "–"],
        ["red", "2", "100.0", "100.0", "100.0"],
    ]


def test_labels_in_capitals_and_another_order_are_matched(trained: Path, tmp_path: Path) -> None:
    every = [(text, [label.upper() for label in labels]) for text, labels in examples(20, 3)]
    found = load_set(str(write_jsonl(tmp_path / "test.jsonl", every)), label_space_of(str(trained)), DataLocation())
    assert found.classes.names == NAMES and found.class_map is None
    expected = [[name.upper() in labels for name in NAMES] for _, labels in every]
    np.testing.assert_array_equal(found.split.labels, expected)


def test_a_label_map_names_single_labels(trained: Path, tmp_path: Path) -> None:
    space = label_space_of(str(trained))
    every = [(text, ["rouge" if x == "red" else x for x in labels]) for text, labels in examples(20, 3)]
    file = str(write_jsonl(tmp_path / "test.jsonl", every))
    with pytest.raises(DataError, match="unknown label"):
        load_set(file, space, DataLocation())
    found = load_set(file, space, DataLocation(), label_map={"rouge": "red"})
    np.testing.assert_array_equal(found.split.labels[:, 2], ["rouge" in labels for _, labels in every])
    with pytest.raises(DataError, match="merges labels or leaves some out"):
        load_set(file, space, DataLocation(), label_map={"rouge": None})


def test_labels_that_no_row_has_are_kept_from_the_teacher(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    every = [(text, [x for x in labels if x != "good"]) for text, labels in examples(30, 6)]
    dataset = read(write_jsonl(tmp_path / "rows.jsonl", every))
    found = with_labels_of(LabelSpace(MULTI_LABEL.with_decision_rule({"threshold": 0.3}), NAMES), dataset)
    assert found.labels.names == ("blue", "red", "good")
    assert found.labels.task.decision_rule() == {"threshold": 0.3}
    assert not found.splits["train"].labels[:, 2].any()
    np.testing.assert_array_equal(found.splits["train"].labels[:, :2], dataset.splits["train"].labels)
    assert "no row has 1 of the teacher's labels: good." in capfd.readouterr().err
    other = LabelSpace(MULTI_LABEL, ("blue", "green", "grey"))
    assert with_labels_of(other, dataset).labels.names == ("blue", "red")


def test_teachers_of_the_other_kind_are_refused(trained: Path, rows: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes.jsonl"
    lines = [{"text": text, "label": NAMES[i % 3]} for i, (text, _) in enumerate(examples(24, 4))]
    classes.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    options = {"layers": 1, "method": "vanilla-kd", "output": tmp_path / "student"}
    with pytest.raises(DataError, match=r"every row has one label.*multi_label_classification.*--problem multi-label"):
        demiglace.distill(teacher=str(trained), data=str(classes), **options)
    with pytest.raises(ModelError, match=r"teacher's labels are .*multi-label.*rows' are .*classification"):
        demiglace.distill(teacher=str(trained), data=str(classes), problem="classification", **options)
    single = save_tiny(tmp_path / "single", num_layers=2, label_names=NAMES)
    with pytest.raises(ModelError, match=r"teacher's labels are .*classification.*rows' are .*multi-label"):
        demiglace.distill(teacher=str(single), data=str(rows), **options)
    assert label_space_of(str(single)).task is CLASSIFICATION
