"""Suites, parts of sets, and what a student changes against its teacher."""

import json
from pathlib import Path

import numpy as np
import pytest

import demiglace
from demiglace import evaluate
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.suites import SUITES, named_suite, read_suite
from demiglace.errors import ConfigError, DataError
from demiglace.runs.directory import read_manifest
from factories import save_tiny

NAMES = ("bad", "good")
TEXTS = ["good film", "awful film", "the card is red", "great money", "bad", "lost it"]
LABELS = ["good", "bad", "bad", "good", "bad", "good"]
GROUPS = ["film", "film", "bank", "bank", "film", "bank"]


def write_rows(path: Path) -> Path:
    rows = zip(TEXTS, LABELS, GROUPS, strict=True)
    path.write_text("text,label,about\n" + "".join(f"{t},{y},{g}\n" for t, y, g in rows))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model", num_layers=1, label_names=NAMES)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.csv")


@pytest.mark.parametrize("task", SUITES)
def test_every_set_of_a_suite_is_meant_for_models_of_its_task(task: str) -> None:
    for entry in SUITES[task]:
        for name in entry.split("|"):
            assert task in TASKS[name].sources


def test_a_stand_in_is_taken_where_only_it_is_there(tmp_path: Path) -> None:
    assert "hans" in named_suite("mnli", None)
    assert "hans" in named_suite("mnli", tmp_path)  # neither is there: the error should name the official set
    (tmp_path / "hans_regenerated").mkdir()
    (tmp_path / "hans_regenerated" / "test.jsonl").write_text("{}")
    assert "hans_regenerated" in named_suite("mnli", tmp_path)
    assert named_suite("cola", tmp_path) == {}


def test_results_by_group_add_up(model: Path, rows: Path, tmp_path: Path) -> None:
    run = evaluate(model=str(model), data=[str(rows)], group_column="about", output=tmp_path / "run")
    found = read_manifest(run)["sets"][str(rows)]
    assert {name: group["rows"] for name, group in found["groups"].items()} == {"film": 3, "bank": 3}
    mean = np.mean([group["metrics"]["accuracy"] for group in found["groups"].values()])
    assert mean == pytest.approx(found["metrics"]["accuracy"])
    assert 0 <= found["ece"] <= 1 and 0 <= found["worst_class_f1"] <= found["metrics"]["macro_f1"]


def test_an_unknown_group_column_is_suggested(model: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'about'"):
        evaluate(model=str(model), data=[str(rows)], group_column="abuot", output=tmp_path / "run")


def test_changes_against_the_teacher(model: Path, rows: Path, tmp_path: Path) -> None:
    teacher = save_tiny(tmp_path / "teacher", num_layers=2, label_names=NAMES, seed=5)  # seed 5 says both classes
    run = evaluate(model=str(model), teacher=str(teacher), data=[str(rows)], output=tmp_path / "run")
    other = evaluate(model=str(teacher), data=[str(rows)], output=tmp_path / "other")
    stem = next(run.glob("*.labels.npy")).name.removesuffix(".labels.npy")
    labels, ours = np.load(run / f"{stem}.labels.npy"), np.load(run / f"{stem}.predictions.npy")
    theirs = np.load(other / f"{stem}.predictions.npy")
    found = json.loads((run / f"{stem}.changes.json").read_text())
    assert found["counts"]["lost"] == ((theirs == labels) & (ours != labels)).sum()
    assert sum(found["counts"].values()) == found["rows"] == 6
    assert sum(c["rows"] for c in found["confusions"]) == (ours != theirs).sum() > 0
    for kind in ("lost", "gained"):
        assert len(found["examples"][kind]) == found["counts"][kind]
        for row in found["examples"][kind]:
            right = row["teacher"] if kind == "lost" else row["student"]
            assert row["label"] == right == LABELS[TEXTS.index(row["text"])]


def test_a_suite_of_ones_own(model: Path, rows: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\nlovely,yes\nawful,no\n")
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"plain: {rows}\nother:\n  data: {other}\n  label_map: {{'yes': good, 'no': bad}}\n")
    run = evaluate(model=str(model), suite=[str(suite)], output=tmp_path / "run")
    sets = read_manifest(run)["sets"]
    assert {name: found["rows"] for name, found in sets.items()} == {"plain": 6, "other": 2}
    assert (run / "other.npy").exists()


def test_sets_that_would_share_their_files_are_refused(model: Path, rows: Path, tmp_path: Path) -> None:
    spaced = tmp_path / "my set.csv"
    dashed = tmp_path / "my-set.csv"
    for file in (spaced, dashed):
        file.write_bytes(rows.read_bytes())
    with pytest.raises(ConfigError, match="would be written to the same files"):
        evaluate(model=str(model), data=[str(spaced), str(dashed)], output=tmp_path / "run")
    suites = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for suite, file in zip(suites, (spaced, dashed), strict=True):
        suite.write_text(f"plain: {file}\n")
    with pytest.raises(ConfigError, match="plain is the name of another suite's set too"):
        evaluate(model=str(model), suite=[str(s) for s in suites], output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_names_of_sets_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("a-b: imdb\na_b: yelp_review_full\n")
    assert [*read_suite(tmp_path / "own.yaml")] == ["a-b", "a_b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names no set"),
        ("a: 3", "expected a file, a task, or a mapping"),
        ("a: {dat: x}", "did you mean 'data'"),
        ("a: {label_column: x}", "--data must be given"),
    ],
)
def test_bad_suites_are_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_suite(file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to evaluate on"),
        ({"suite": ["ood"]}, "does not say which task"),
        ({"suite": ["sts2"]}, "did you mean 'sst2'"),
    ],
)
def test_bad_choices_are_refused(options: dict, message: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(model=str(model), output=tmp_path / "run", **options)


def test_rows_are_drawn_alike_for_every_model(model: Path, rows: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", num_layers=2, label_names=NAMES, seed=1)
    runs = [
        evaluate(model=str(m), data=[str(rows)], max_rows_per_set=4, output=tmp_path / f"run-{m.name}")
        for m in (model, other)
    ]
    found = [read_manifest(run)["sets"][str(rows)] for run in runs]
    assert [f["rows"] for f in found] == [4, 4]
    assert found[0]["drops"] == {"not drawn": 2}
    labels = [np.load(next(run.glob("*.labels.npy"))) for run in runs]
    assert (labels[0] == labels[1]).all()


def test_the_suite_of_the_models_own_task(data_dir: Path, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", num_layers=1, label_names=("entailment", "neutral", "contradiction"))
    run = evaluate(
        model=str(model),
        data=["mnli"],
        suite=["ood"],
        suite_rows=60,
        max_rows_per_set=90,
        data_dir=data_dir,
        output=tmp_path / "run",
    )
    sets = read_manifest(run)["sets"]
    assert (sets["mnli"]["rows"], sets["snli"]["rows"]) == (90, 60)
    assert list(sets) == ["mnli", *named_suite("mnli", data_dir)]
    assert set(sets["hans_regenerated"]["groups"]) == {"lexical_overlap", "subsequence", "constituent"}


def test_a_teachers_own_evaluation_is_read_again(model: Path, rows: Path, tmp_path: Path) -> None:
    teacher = save_tiny(tmp_path / "teacher", num_layers=2, label_names=NAMES, seed=5)
    before = evaluate(model=str(teacher), data=[str(rows)], output=tmp_path / "before")
    requested = evaluate(model=str(model), teacher=str(teacher), data=[str(rows)], output=tmp_path / "requested")
    read = evaluate(model=str(model), teacher=str(before), data=[str(rows)], output=tmp_path / "read")
    found = [read_manifest(run) for run in (requested, read)]
    assert found[0]["sets"] == found[1]["sets"]
    assert found[0]["inputs"] == found[1]["inputs"]
    for file in before.glob("*.npy"):  # so that it is seen to be read
        if file.stem.endswith(".csv"):
            np.save(file, -np.load(file))
    demiglace.verify(before, accept=True)
    again = evaluate(model=str(model), teacher=str(before), data=[str(rows)], output=tmp_path / "again")
    assert read_manifest(again)["sets"][str(rows)]["agreement"] != found[0]["sets"][str(rows)]["agreement"]


def test_a_teachers_evaluation_of_other_rows_is_asked_for_the_rest(model: Path, rows: Path, tmp_path: Path) -> None:
    teacher = save_tiny(tmp_path / "teacher", num_layers=2, label_names=NAMES, seed=5)
    before = evaluate(model=str(teacher), data=[str(rows)], max_rows_per_set=3, output=tmp_path / "before")
    read = evaluate(model=str(model), teacher=str(before), data=[str(rows)], output=tmp_path / "read")
    requested = evaluate(model=str(model), teacher=str(teacher), data=[str(rows)], output=tmp_path / "requested")
    assert read_manifest(read)["sets"] == read_manifest(requested)["sets"]
