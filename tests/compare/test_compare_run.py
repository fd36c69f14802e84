"""Complete comparisons: run, extended, interrupted, with failures, and sharded."""

import csv
import importlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_kit import ended, in_child, start, strike
from compare_kit import QUICK, compare, grid_of, line_of, made, replicated, results, weights_of

import demiglace
from demiglace.cli import main
from demiglace.commands import distill as distill_stage
from demiglace.compare import jobs
from demiglace.compare import run as compare_run
from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.dataset import load_dataset
from demiglace.errors import ConfigError
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import read_json
from demiglace.training import loop, run
from factories import save_tiny

ONE_RUN = {"methods": {"none": {}}, "baselines": False, "seeds": [0]}  # in the place of those of the grid
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="session")
def whole(place, tmp_path_factory):
    """An undisturbed run of the small grid."""
    home = tmp_path_factory.mktemp("whole") / "runs"
    assert compare(grid_of(place), home) == 0
    return home


def test_records_tell_of_every_run(whole):
    records = read_json(whole / "results.json")["records"]
    assert [(r["role"], r["method"], r["seed"]) for r in records] == [
        ("teacher", "teacher", 0),
        *(("student", m, s) for s in (0, 1) for m in ("none", "vanilla-kd")),
    ]
    for record in records:
        assert record["status"] == "done" and record["error"] is None
        assert read_manifest(whole / record["run"])["parameters"] == record["parameters"]
        sets = read_manifest(whole / record["evaluation"])["sets"]
        assert record["sets"] == sets and record["in_domain"] in sets and record["metric"] == "accuracy"
        assert ("agreement" in sets[record["in_domain"]]) == (record["role"] == "student")
    assert read_manifest(whole)["stage"] == "compare"
    assert read_json(whole / "summary.json")


def test_results_tell_of_the_command(whole, content, tmp_path):
    assert read_json(whole / "results.json")["config"] == read_manifest(whole)["config"]
    one = content | {"methods": {"none": {}}, "seeds": [0], "defaults": QUICK | {"metric": "f2"}}
    assert compare(one, tmp_path / "runs", no_baselines="true", data_dir=tmp_path) == 2  # no run comes to its end
    config = read_json(tmp_path / "runs" / "results.json")["config"]
    assert config == {"grid": one, "search": "none", "no_baselines": True, "data_dir": str(tmp_path)}
    assert not (tmp_path / "runs" / "manifest.json").exists()


def test_a_complete_grid_is_up_to_date(whole, content, capsys, monkeypatch):
    before = made(whole)
    monkeypatch.setattr(compare_run, "run_grid", lambda *_: pytest.fail("it ran again"))
    line = ["compare", str(whole.with_suffix(".yaml")), "-o", str(whole)]
    assert demiglace.compare(grid=line[1], output=line[3]).path == whole
    assert "is up to date" in capsys.readouterr().err
    assert made(whole) == before


def test_a_damaged_prediction_of_a_finished_run_does_not_enter_the_summary(whole, content, capsys):
    record = next(r for r in read_json(whole / "results.json")["records"] if r["role"] == "student")
    file = next((whole / record["evaluation"]).glob("*.predictions.npy"))
    kept, manifest = file.read_bytes(), (whole / "manifest.json").read_bytes()
    try:
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        (whole / "manifest.json").unlink()  # as if the comparison had been stopped before its summary
        assert compare(content, whole) == 2
        assert f"{file} has other content" in capsys.readouterr().err
    finally:
        file.write_bytes(kept)
        (whole / "manifest.json").write_bytes(manifest)


def test_more_seeds_and_methods_extend_it(content, tmp_path):
    home = tmp_path / "runs"
    assert compare(content | {"seeds": [0]}, home) == 0
    before = made(home)
    methods = {**content["methods"], "rail": {"method": "rail-kd-l"}}
    assert compare(content | {"methods": methods}, home) == 0
    after = made(home)
    assert {k: v for k, v in after.items() if k in before} == before
    assert len(results(home)) == 6
    assert read_manifest(home)["config"]["grid"]["seeds"] == [0, 1]


def test_other_options_for_runs_that_stand_are_refused(whole, content, capsys):
    before = made(whole)
    assert compare(content | {"defaults": content["defaults"] | {"epochs": 2}}, whole) == 2
    assert "epochs: 1 there, 2 now" in capsys.readouterr().err
    assert made(whole) == before and (whole / "manifest.json").exists()


def test_other_rows_under_the_same_name_are_noticed(content, tmp_path, capsys):
    rows = tmp_path / "test.csv"
    rows.write_bytes(Path(content["tasks"]["mood"]["test"]).read_bytes())
    own = content | ONE_RUN | {"tasks": {"mood": {**content["tasks"]["mood"], "test": str(rows)}}}
    assert compare(own, tmp_path / "runs") == 0
    rows.write_text(rows.read_text() + "a good film,positive\n")
    assert compare(own, tmp_path / "runs") == 2
    assert "data mood changed after runs had read it" in capsys.readouterr().err


def test_a_directory_of_something_else_is_refused(content, tmp_path, whole, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "thesis.txt").write_text("mine")
    assert compare(content, tmp_path / "runs") == 2
    assert compare(content | ONE_RUN, tmp_path / "runs" / "other") == 0
    assert "no demiglace run" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(content, tmp_path, capsys):
    assert compare(content, tmp_path / "runs", dry_run="true") == 0
    shown = capsys.readouterr().out
    assert "mood/half/vanilla-kd/seed-1.evaluation" in shown and "4 student runs" in shown
    assert not (tmp_path / "runs").exists()


# failures


def failing(monkeypatch: pytest.MonkeyPatch, part: str, error: Exception) -> None:
    original = distill_stage.distill

    def distill(config: Any) -> Any:
        if part in str(config.output):
            raise error
        return original(config)

    monkeypatch.setattr(distill_stage, "distill", distill)


@pytest.mark.parametrize(("error", "code"), [(ConfigError("no such thing"), 2), (ZeroDivisionError("oh"), 1)])
def test_a_failed_run_takes_no_other_down(error, code, content, tmp_path, monkeypatch, capsys):
    home, grid = tmp_path / "runs", content | {"seeds": [0]}
    with monkeypatch.context() as patch:
        failing(patch, "none/seed-0", error)
        assert compare(grid, home) == code
    printed = capsys.readouterr().err
    assert "1 run failed, 1 skipped" in printed and f"mood/half/none/seed-0: {jobs._one_line(error)}" in printed
    assert (home / "failed/mood/half/none/seed-0.txt").read_text().strip().endswith(str(error))
    assert [r["status"] for r in results(home)] == ["failed", "done"]
    assert str(error) in results(home)[0]["error"]
    assert not (home / "manifest.json").exists()
    before = made(home)
    assert compare(grid, home) == 0
    assert before.items() <= made(home).items()
    assert [r["status"] for r in results(home)] == ["done"] * 2
    assert not (home / "failed/mood/half/none/seed-0.txt").exists()


def test_an_interrupt_ends_it(content, tmp_path, monkeypatch):
    home, grid = tmp_path / "runs", content | {"seeds": [0]}
    with monkeypatch.context() as patch:
        failing(patch, "vanilla-kd/seed-0", KeyboardInterrupt())
        assert compare(grid, home) == 130
    assert not (home / "results.json").exists()
    assert compare(grid, home) == 0


# kill -9

MOMENTS = {
    "within a student's training": (loop, "save_checkpoint", 9, True),
    "before a student's model": (run, "write_model", 4, False),
    "between two jobs": (compare_run.Schedule, "end", 5, True),
    "before the results": (compare_run, "write_results", 1, False),
    "after the results": (compare_run, "write_results", 1, True),
}


@needs_fork
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_comparison_goes_on(moment, content, tmp_path, whole):
    owner, name, at, after = MOMENTS[moment]
    home = tmp_path / "runs"
    line = line_of(content, home)
    assert in_child(line, lambda: strike(owner, name, at, after=after)) == -signal.SIGKILL
    before = made(home)
    assert compare(content, home) == 0
    assert before.items() <= made(home).items()
    assert weights_of(home) == weights_of(whole)
    assert [r["sets"] for r in results(home)] == [r["sets"] for r in results(whole)]


# shards


def test_shards_one_after_another(content, tmp_path, whole, capsys):
    home = tmp_path / "runs"
    for number, missing in ((1, 2), (2, 1), (3, 0)):  # of four runs, the first shard has two
        assert not (home / "manifest.json").exists()
        assert compare(content, home, shard=f"{number}/3") == 0
        assert ("still missing, for other shards" in capsys.readouterr().err) == (number < 3)
        assert [r["status"] for r in results(home)].count("missing") == missing
        assert read_json(home / "summary.json")["cells"]
    assert weights_of(home) == weights_of(whole)
    assert len(results(home)) == 4 and (home / "manifest.json").exists()


@pytest.mark.parametrize("last", [1, 2])
def test_a_failed_run_of_a_shard_is_told_whichever_ends_last(last, content, tmp_path, monkeypatch, capsys):
    home = tmp_path / "runs"
    failing(monkeypatch, "vanilla-kd/seed-0", ConfigError("no such thing"))
    codes = {n: compare(content, home, shard=f"{n}/2") for n in (3 - last, last)}
    assert codes == {1: 0, 2: 2}  # the second shard has that run
    assert [r["status"] for r in results(home)] == ["done", "failed", "done", "done"]
    assert results(home)[1]["error"] == "no such thing"
    assert len(read_json(home / "summary.json")["missing"]) == 1 and not (home / "manifest.json").exists()
    printed = "2 jobs of other shards failed or were skipped" in capsys.readouterr().err
    assert printed == (last == 1)


@needs_fork
def test_shards_side_by_side(content, tmp_path, whole):
    home = tmp_path / "runs"
    children = [start(line_of(content, home, shard=f"{n}/2"), lambda: None) for n in (1, 2)]
    assert [ended(child) for child in children] == [0, 0]
    assert weights_of(home) == weights_of(whole)
    assert [r["status"] for r in results(home)] == ["done"] * 4


@pytest.mark.parametrize("text", ["3", "0/3", "4/3", "a/b"])
def test_wrong_shards(text, content, tmp_path, capsys):
    assert compare(content, tmp_path / "runs", shard=text) == 2
    assert "expected NUMBER/COUNT" in capsys.readouterr().err


# replicates


def test_replicates_draw_their_rows_teachers_and_students(content, tmp_path, capsys):
    home = tmp_path / "runs"
    grid = replicated(content, 1, 2, defaults=QUICK | {"max_rows": 20, "holdout_from_train": True})
    assert compare(grid, home) == 0
    assert "share most or all of their training rows" not in capsys.readouterr().err
    teachers = [r for r in read_json(home / "results.json")["records"] if r["role"] == "teacher"]
    assert [(t["run"], t["seed"], t["unit"]) for t in teachers] == [
        ("mood/teacher/replicate-1", 1, "replicate"),
        ("mood/teacher/replicate-2", 2, "replicate"),
    ]
    rows = [read_manifest(home / t["run"])["inputs"]["data"] for t in teachers]
    assert rows[0] != rows[1]
    assert teachers[0]["rows"] == {"train": 18, "validation": 2}
    for record in results(home):
        assert record["run"].endswith(f"replicate-{record['seed']}") and record["unit"] == "replicate"
        assert read_manifest(home / record["run"])["inputs"]["data"] == rows[record["seed"] - 1]
    shared = [home / f"mood/half/start/replicate-{n}/model.safetensors" for n in (1, 2)]
    assert shared[0].read_bytes() != shared[1].read_bytes()
    summary = read_json(home / "summary.json")
    test = content["tasks"]["mood"]["test"]
    scores = [t["sets"][test]["metrics"]["accuracy"] for t in teachers]
    assert summary["unit"] == "replicate" and summary["teachers"]["mood"]["run"] == "mood/teacher"
    assert summary["teachers"]["mood"]["sets"][test]["metrics"]["accuracy"] == pytest.approx(sum(scores) / 2)
    assert [c["seeds"] for c in summary["cells"]] == [[1, 2]] * 2
    assert main(["report", str(home), "-o", str(tmp_path / "report.html")]) == 0


def test_replicates_of_all_rows_are_said_to_share_them(content, tmp_path, capsys):
    assert compare(replicated(content, 1, 2), tmp_path / "runs", dry_run="true") == 0
    shown = capsys.readouterr()
    assert "mood: without `max_rows` its replicates share most or all of" in shown.err
    assert "finetune  " in shown.out and "mood/teacher/replicate-2" in shown.out


# rows for tuning


def test_a_tuned_grid_chooses_its_epochs_on_rows_that_are_not_reported(content, tmp_path):
    files = {k: v for k, v in content["tasks"]["mood"].items() if k != "test"}
    grid = content | ONE_RUN
    printed = {}
    for tune in (True, False):
        home = tmp_path / str(tune)
        assert compare(grid | {"tasks": {"mood": files | {"holdout_from_train": tune}}}, home) == 0
        printed[tune] = read_json(home / "results.json")["records"]
        assert [r["epoch_chosen_on_reported_rows"] for r in printed[tune]] == [not tune] * 2
    assert all(r["in_domain"] == files["validation"] and r["sets"][r["in_domain"]]["rows"] == 12 for r in printed[True])
    # the teacher and the student hold out the same rows of the 36
    assert {tuple(r["rows"].items()) for r in printed[True]} == {(("train", 32), ("validation", 4))}
    assert {tuple(r["rows"].items()) for r in printed[False]} == {(("train", 36), ("validation", 12))}


@pytest.mark.parametrize("given", [{}, {"max_rows": 20}, {"validation": None, "test": None}])
def test_tuning_sees_nothing_that_is_reported(content, given):
    files = content["tasks"]["mood"] | given
    reported = load_dataset(DataConfig(**files), DataLocation())
    tuned = load_dataset(DataConfig(**files, holdout_from_train=True), DataLocation())
    kept = {*tuned.splits["train"].texts, *tuned.splits["validation"].texts}
    assert tuned.splits.keys() == {"train", "validation"}
    assert kept == {*reported.splits["train"].texts}
    assert not kept & {*reported.splits["validation"].texts}
    assert tuned.fingerprint != reported.fingerprint


@pytest.mark.parametrize("label_map", [{}, {"negative": "LABEL_1", "positive": "LABEL_0"}])
def test_a_ready_teacher_whose_classes_have_no_names(label_map, content, tmp_path, monkeypatch):
    evaluate = importlib.import_module("demiglace.commands.evaluate")
    predicted = []
    original = evaluate._predict
    monkeypatch.setattr(evaluate, "_predict", lambda *given: predicted.append(given[3]) or original(*given))
    teacher = save_tiny(tmp_path / "hub", num_labels=2)
    tasks = {"mood": content["tasks"]["mood"] | {"label_map": label_map}}
    grid = content | {"tasks": tasks, "teacher": {"run": str(teacher)}, "seeds": [0]}
    assert compare(grid, tmp_path / "home") == 0
    student = results(tmp_path / "home")[0]
    assert student["status"] == "done" and "agreement" in next(iter(student["sets"].values()))
    assert predicted == [""] * 3  # the teacher's logits are those of its own evaluation
    home = tmp_path / "home" / "mood"
    config = read_json(home / "half" / "none" / "seed-0" / "model" / "config.json")
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    labels = np.load(next((home / "teacher.evaluation").glob("*.labels.npy")))
    rows = Path(content["tasks"]["mood"]["test"]).read_text("utf-8").splitlines()
    names = [row["label"] for row in csv.DictReader(rows)]
    own = {"negative": 0, "positive": 1} if not label_map else {"negative": 1, "positive": 0}
    assert labels.tolist() == [own[name] for name in names]


def test_a_static_student_is_a_row_of_a_comparison(content, tmp_path):
    students = {"half": {"layers": 1}, "bag": {"model": "static", "embedding_size": 8}}
    assert compare(content | {"students": students, "seeds": [0]}, tmp_path / "runs") == 0
    found = {(r["student"], r["method"]): r for r in results(tmp_path / "runs")}
    assert set(found) == {(s, m) for s in students for m in ("none", "vanilla-kd")}
    bag = found["bag", "vanilla-kd"]
    assert (bag["status"], bag["layers"], bag["parameters"]) == ("done", 0, 826)
    page = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "runs"), "--output", str(page)]) == 0
    assert "bag" in page.read_text(encoding="utf-8")
