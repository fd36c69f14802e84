"""`distill` and `evaluate` with a teacher whose classes have other names, or are in another order, than the rows'."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_kit import QUICK, arguments, weights, write_csv
from safetensors.torch import load_file, save_file

import demiglace
from demiglace.cli import main
from demiglace.errors import ConfigError, DataError, ModelError
from demiglace.runs.directory import read_manifest
from demiglace.training import run as fit
from factories import save_tiny

NAMES = ("awful", "plain", "superb")
GENERIC = ("LABEL_0", "LABEL_1", "LABEL_2")
ORDER = (2, 0, 1)
START = {"layers": 1, "method": "vanilla-kd", "cache_dtype": "float32", **QUICK, "epochs": 1}


def turned(source: Path, target: Path, names: Sequence[str], order: Sequence[int] | None = None) -> Path:
    """A copy of a BERT classifier with other class names, whose output k is the source's order[k]."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text())
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    (target / "config.json").write_text(json.dumps(config))
    if order is not None:
        tensors = load_file(source / "model.safetensors")
        for name in ("classifier.weight", "classifier.bias"):
            tensors[name] = tensors[name][list(order)].clone()
        save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


def three_classes(folder: Path, labels: Sequence[str] = NAMES, *, pairs: bool = False) -> dict[str, str]:
    """Files of rows whose first word is their class."""
    words, fill = ("bad", "the", "good"), ("film", "card", "money", "red", "blue", "green")
    draw, options = np.random.default_rng(0), {}
    for split in ("data", "validation"):
        found = []
        for i in range(60):
            text = {"text": f"{words[i % 3]} " + " ".join(draw.permutation(fill)) + f" {split}"}
            texts = {"sentence1": text["text"], "sentence2": words[i % 3]} if pairs else text
            found.append({**texts, "label": labels[i % 3]})
        options[split] = str(write_csv(folder / f"{split}.csv", found))
    return options


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows of three classes and a teacher that was fine-tuned on them."""
    folder = tmp_path_factory.mktemp("trio")
    base = save_tiny(folder / "base", num_layers=2, label_names=NAMES)
    options = {"epochs": 6, "batch_size": 8, "learning_rate": 1e-2, "checkpoint_seconds": 0}
    rows = three_classes(folder / "rows")
    assert main(arguments("finetune", model=base, output=folder / "teacher", **rows, **options)) == 0
    assert read_manifest(folder / "teacher")["metrics"]["validation"]["accuracy"] > 0.9
    return folder


@pytest.fixture
def call(trio: Path, tmp_path: Path) -> dict[str, Any]:
    rows = {name: str(trio / "rows" / f"{name}.csv") for name in ("data", "validation")}
    return {"teacher": str(trio / "teacher"), "output": tmp_path / "run", **rows, **START}


@pytest.fixture(scope="module")
def expected(trio: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The student's weights with the teacher in the order of the rows, from the cache."""
    rows = {name: str(trio / "rows" / f"{name}.csv") for name in ("data", "validation")}
    run = tmp_path_factory.mktemp("expected") / "run"
    demiglace.distill(teacher=str(trio / "teacher"), output=run, **rows, **START)
    return weights(run)


@pytest.fixture(scope="module")
def expected_online(trio: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The same without a cache; other batches of the teacher round otherwise."""
    rows = {name: str(trio / "rows" / f"{name}.csv") for name in ("data", "validation")}
    run = tmp_path_factory.mktemp("expected") / "online"
    demiglace.distill(teacher=str(trio / "teacher"), output=run, cache="off", **rows, **START)
    return weights(run)


def check_student(run: Path, expected: dict[str, torch.Tensor], labels: Sequence[str] = NAMES) -> None:
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["id2label"] == {str(i): name for i, name in enumerate(labels)}
    assert config["label2id"] == {name: i for i, name in enumerate(labels)}
    found = weights(run)
    for name in (name for name in expected if not name.endswith("key.bias")):  # see `command_kit.close`
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("cache", ["auto", "off"])
@pytest.mark.parametrize(
    ("names", "order", "options", "line"),
    [
        ([NAMES[i] for i in ORDER], ORDER, {}, "in another order: superb, awful, plain"),
        ([NAMES[i].upper() for i in ORDER], ORDER, {}, "without regard to case: awful = AWFUL"),
        (GENERIC, None, {}, "have no names; they are taken in the order of the labels: awful = LABEL_0"),
        (
            GENERIC,
            ORDER,
            {"label_map": {"awful": "LABEL_1", "plain": "LABEL_2", "superb": "LABEL_0"}},
            "matched by --label-map: awful = LABEL_1",
        ),
        (("x", *(NAMES[i] for i in ORDER[1:])), ORDER, {"label_map": {"superb": "x"}}, "superb = x"),
    ],
)
def test_the_teachers_names_and_order_make_no_difference(
    cache, names, order, options, line, trio, call, expected, expected_online, tmp_path, capsys
):
    other = turned(trio / "teacher" / "model", tmp_path / "other", names, order)
    run = demiglace.distill(**call | {"teacher": str(other), "cache": cache} | options)
    check_student(run, expected if cache == "auto" else expected_online)
    assert line in capsys.readouterr().err


def test_a_student_of_its_own_follows_the_rows_order_too(trio, call, expected, tmp_path):
    other = turned(trio / "teacher" / "model", tmp_path / "other", [NAMES[i] for i in ORDER], ORDER)
    student = demiglace.truncate(model=other, layers=1, output=tmp_path / "cut")
    run = demiglace.distill(**call | {"teacher": str(other), "student": student, "layers": None})
    check_student(run, expected)


def test_one_cache_holds_both_orders(trio, call, expected, tmp_path):
    other = turned(trio / "teacher" / "model", tmp_path / "other", GENERIC)
    common = {"teacher": str(other), "cache": str(tmp_path / "cache")}
    turned_map = {"awful": "LABEL_1", "plain": "LABEL_2", "superb": "LABEL_0"}
    demiglace.distill(**call | common | {"label_map": turned_map, "output": tmp_path / "wrong"})
    check_student(demiglace.distill(**call | common), expected)
    assert len(list((tmp_path / "cache").glob("*/logits.npy"))) == 2


def test_an_assumed_order_that_the_rows_contradict_is_refused_with_the_right_one(trio, call, tmp_path):
    other = turned(trio / "teacher" / "model", tmp_path / "other", GENERIC, ORDER)
    options = "give --label-map.awful LABEL_1 --label-map.plain LABEL_2 --label-map.superb LABEL_0"
    for diagnostics in ("on", "off"):
        with pytest.raises(ModelError, match=options):
            demiglace.distill(**call | {"teacher": str(other), "diagnostics": diagnostics})
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "signals").exists()


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (("0", "1", "2"), "matched by number, as the ids of the model's classes: 0 = LABEL_0"),
        (("1", "2", "3"), "in the order of the labels: 1 = LABEL_0"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), None),
    ],
)
def test_numbers_of_a_teacher_without_names(labels, line, trio, call, expected, tmp_path, capsys):
    other = turned(trio / "teacher" / "model", tmp_path / "other", GENERIC)
    rows = three_classes(tmp_path / "rows", labels)
    run = demiglace.distill(**call | {"teacher": str(other)} | rows)
    check_student(run, expected, labels)
    assert line is None or line in capsys.readouterr().err
    found = demiglace.evaluate(model=run, data=[rows["validation"]], output=tmp_path / "evaluation")
    accuracy = read_manifest(found)["sets"][rows["validation"]]["metrics"]["accuracy"]
    assert accuracy == read_manifest(run)["metrics"]["validation"]["accuracy"]


def test_pairs_of_texts(trio, call, tmp_path, capsys):
    rows = three_classes(tmp_path / "rows", pairs=True)
    other = turned(trio / "base", tmp_path / "other", [NAMES[i].title() for i in ORDER], ORDER)
    results = [
        demiglace.distill(**call | {"teacher": str(teacher), "output": tmp_path / name} | rows)
        for name, teacher in (("plain", trio / "base"), ("turned", other))
    ]
    check_student(results[1], weights(results[0]))


def test_classes_that_differ_in_case_alone_stay_apart(call, tmp_path):
    names = ("POLISH", "Polish", "polish")
    rows = three_classes(tmp_path / "rows", names)
    teacher = save_tiny(tmp_path / "teacher", num_layers=2, label_names=names)
    run = demiglace.distill(**call | {"teacher": str(teacher)} | rows)
    found = demiglace.evaluate(model=run, data=[rows["validation"]], output=tmp_path / "evaluation")
    assert np.bincount(np.load(next(found.glob("*.labels.npy")))).tolist() == [20, 20, 20]
    accuracy = read_manifest(found)["sets"][rows["validation"]]["metrics"]["accuracy"]
    assert accuracy == read_manifest(run)["metrics"]["validation"]["accuracy"]
    other = save_tiny(tmp_path / "other", num_layers=2, label_names=("Polish", "polish", "pole"))
    with pytest.raises(ModelError, match=r"teacher's labels are Polish, polish, pole, the rows' are POLISH, Polish"):
        demiglace.distill(**call | {"teacher": str(other), "output": tmp_path / "no"} | rows)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"label_map": {"awfull": "awful"}}, DataError, "unknown label of the rows 'awfull'; did you mean 'awful'"),
        ({"label_map": {"awful": ["awful", "plain"]}}, DataError, "expected one of the teacher's labels"),
        ({"data": None, "corpus": ["x.txt"], "label_map": {"a": "b"}}, ConfigError, "--label-map is for rows"),
    ],
)
def test_label_maps_that_cannot_be(options, kind, message, call):
    with pytest.raises(kind, match=message):
        demiglace.distill(**{k: v for k, v in (call | options).items() if v is not None})


def test_a_killed_run_resumes_in_the_same_order(trio, call, expected, tmp_path, monkeypatch):
    other = turned(trio / "teacher" / "model", tmp_path / "other", [NAMES[i] for i in ORDER], ORDER)
    call |= {"teacher": str(other), "checkpoint_seconds": 0}
    with monkeypatch.context() as patch:
        patch.setattr(fit, "_finalize_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            demiglace.distill(**call)
    assert (tmp_path / "run" / "checkpoints").exists()
    check_student(demiglace.distill(**call), expected)


# evaluate


def agreement(run: Path) -> float:
    return next(iter(read_manifest(run)["sets"].values()))["agreement"]


def test_agreement_does_not_depend_on_the_teachers_order(trio, call, tmp_path, capsys):
    model, rows = str(trio / "teacher"), [call["validation"]]
    teachers = {
        "order": turned(trio / "teacher" / "model", tmp_path / "order", [NAMES[i] for i in ORDER], ORDER),
        "case": turned(trio / "teacher" / "model", tmp_path / "case", [NAMES[i].upper() for i in ORDER], ORDER),
        "none": turned(trio / "teacher" / "model", tmp_path / "none", GENERIC),
    }
    for name, teacher in teachers.items():
        run = demiglace.evaluate(model=model, teacher=teacher, data=rows, output=tmp_path / f"{name}.evaluation")
        assert agreement(run) == 1.0
    done = demiglace.evaluate(model=str(teachers["order"]), data=rows, output=tmp_path / "done")
    run = demiglace.evaluate(model=model, teacher=done, data=rows, output=tmp_path / "with-run")
    assert agreement(run) == 1.0
    assert "warning" not in capsys.readouterr().err


def test_agreement_with_a_label_map_for_the_teacher(trio, call, tmp_path, capsys):
    teacher = turned(trio / "teacher" / "model", tmp_path / "teacher", GENERIC, ORDER)
    given = {"model": str(trio / "teacher"), "teacher": str(teacher), "data": [call["validation"]]}
    wrong = demiglace.evaluate(**given, output=tmp_path / "wrong")
    assert agreement(wrong) < 0.5
    assert "contradict the assumed order" in capsys.readouterr().err
    label_map = {"awful": "LABEL_1", "plain": "LABEL_2", "superb": "LABEL_0"}
    assert agreement(demiglace.evaluate(**given, label_map=label_map, output=tmp_path / "right")) == 1.0


def test_a_model_without_names_is_evaluated_in_the_order_of_the_labels(trio, call, tmp_path, capsys):
    def accuracy(order, output):
        model = turned(trio / "teacher" / "model", tmp_path / f"{output}.model", GENERIC, order)
        run = demiglace.evaluate(model=model, data=[call["validation"]], output=tmp_path / output)
        return read_manifest(run)["sets"][call["validation"]]["metrics"]["accuracy"]

    assert accuracy(None, "right") > 0.9
    said = capsys.readouterr().err
    assert "awful = LABEL_0" in said and "warning" not in said
    assert accuracy(ORDER, "wrong") < 0.5
    assert "give --label-map.awful LABEL_1" in " ".join(capsys.readouterr().err.split())


def test_an_incomplete_file_does_not_tell_the_order(trio, tmp_path):
    model = turned(trio / "teacher" / "model", tmp_path / "model", GENERIC)
    for labels in (("awful", "plain"), ("1", "2")):
        rows = write_csv(tmp_path / "rows.csv", [{"text": f"good film {i}", "label": labels[i % 2]} for i in range(4)])
        with pytest.raises(DataError, match="--label-map"):
            demiglace.evaluate(model=model, data=[str(rows)], output=tmp_path / "run")
