import json
import shutil
from pathlib import Path

import pytest
from comparison_kit import write_comparison
from report_runs import ROWS, write_demo, write_run, write_training

from demiglace.errors import RunError
from demiglace.report.runs.charts import charts_of
from demiglace.report.runs.load import collect, summary_rows
from demiglace.report.runs.schema import Model
from demiglace.report.runs.verdict import verdict
from demiglace.results.run_log import read_log
from demiglace.runs.directory import open_run


def models_of(*paths: Path) -> dict[str, Model]:
    return {m.name: m for e in collect(paths).experiments for m in e.models}


def test_a_directory_of_runs_gives_every_model_its_part(tmp_path: Path) -> None:
    models = models_of(write_demo(tmp_path / "demo"))
    assert {n: m.role for n, m in models.items()} == {
        "teacher": "teacher",
        "distilled": "distilled",
        "baseline": "baseline",
    }
    assert list(models) == ["teacher", "distilled", "baseline"]  # in the table's order
    assert models["distilled"].teacher == "teacher"


def test_a_model_gets_what_evaluate_and_export_measured_on_it(tmp_path: Path) -> None:
    models = models_of(write_demo(tmp_path / "demo"))
    assert models["distilled"].agreement == 0.952
    assert models["baseline"].agreement == 0.936
    assert models["teacher"].agreement is None
    assert models["distilled"].latency is not None and models["distilled"].latency.p50 == 4.7
    assert models["teacher"].latency is not None and models["teacher"].latency.p50 == 14.5
    assert models["baseline"].latency is None
    assert models["distilled"].capture_seconds == 12.4 and models["teacher"].capture_seconds is None


def test_runs_that_were_moved_together_still_belong_together(tmp_path: Path) -> None:
    write_demo(tmp_path / "old" / "demo")
    shutil.move(tmp_path / "old", tmp_path / "new")
    models = models_of(tmp_path / "new" / "demo")
    assert models["distilled"].teacher == "teacher" and models["baseline"].role == "baseline"


def test_paths_typed_in_another_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_demo(Path("demo"))
    monkeypatch.chdir(tmp_path / "demo")
    assert models_of(Path())["distilled"].teacher == "teacher"


def test_a_path_that_fits_two_runs_is_neither_of_them(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_training(tmp_path / place / "x" / "teacher", "finetune", {"model": "m"}, 0.9, layers=6)
    options = {"teacher": "elsewhere/x/teacher", "layers": 3}
    student = write_training(tmp_path / "student", "distill", options, 0.9)
    models = models_of(tmp_path / "a" / "x", tmp_path / "b" / "x", student)
    assert models["student"].teacher == "elsewhere/x/teacher"  # neither of the two
    assert {"a/x/teacher", "b/x/teacher", "student", "elsewhere/x/teacher"} == set(models)


@pytest.mark.parametrize("reference", ["", "/", "..", "\0", "x" * 10_000, "teacher\n"])
def test_a_teacher_that_is_no_run_is_external(tmp_path: Path, reference: str) -> None:
    student = write_training(tmp_path / "student", "distill", {"teacher": reference or " ", "layers": 3}, 0.9)
    models = models_of(student)
    assert models["student"].teacher != "student"
    assert [m.role for m in models.values()] == (["teacher", "distilled"] if reference else ["distilled"])


def test_a_distillation_without_a_teacher_is_a_baseline(tmp_path: Path) -> None:
    teacher = write_training(tmp_path / "t", "finetune", {"model": "m"}, 0.9, layers=6)
    run = write_training(tmp_path / "s", "distill", {"teacher": str(teacher), "layers": 3, "method": "none"}, 0.9)
    model = models_of(teacher, run)["s"]
    assert model.role == "baseline" and model.method == "no teacher"


def test_a_baseline_is_known_by_a_truncated_model_that_was_not_given(tmp_path: Path) -> None:
    cut = write_run(tmp_path / "cut", "truncate", {"model": "m", "layers": 3})
    baseline = write_training(tmp_path / "baseline", "finetune", {"model": str(cut)}, 0.9)
    assert models_of(baseline)["baseline"].role == "baseline"


def test_a_run_given_twice_counts_once(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    assert len(collect([demo, demo / "teacher"]).records) == len(collect([demo]).records)


def test_unfinished_runs_in_a_directory_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    demo = write_demo(tmp_path / "demo")
    (demo / "baseline" / "manifest.json").unlink()
    assert "baseline" not in models_of(demo)
    assert "baseline: the run is not finished" in capsys.readouterr().err.replace("\n", " ")


def test_a_comparison_in_a_directory_is_left_out_and_its_own_page_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_training(tmp_path / "runs" / "one", "finetune", {"model": "m"}, 0.9)
    write_comparison(tmp_path / "runs" / "grid", tasks=("sst2",), seeds=1, rows=20, steps=2)
    assert [m.name for e in collect([tmp_path / "runs"]).experiments for m in e.models] == ["one"]
    assert f"demiglace report {tmp_path / 'runs' / 'grid'}" in capsys.readouterr().err.replace("\n", "")


def test_a_demo_still_going_on_shows_its_finished_runs(tmp_path: Path) -> None:
    open_run(tmp_path / "demo", "demo", {"seed": 0}, {})
    write_demo(tmp_path / "demo")
    assert len(models_of(tmp_path / "demo")) == 3


@pytest.mark.parametrize("make", ["absent", "empty", "unfinished", "damaged", "list", "newer"])
def test_what_is_no_complete_run_is_an_error(tmp_path: Path, make: str) -> None:
    path = tmp_path / "run"
    if make == "empty":
        path.mkdir()
    elif make == "unfinished":
        open_run(path, "distill", {}, {})
    elif make != "absent":
        write_training(path, "finetune", {"model": "m"}, 0.9)
        content = {"damaged": '{"format": 1, "conf', "list": "[]", "newer": '{"format": 2, "config": {}}'}[make]
        (path / "manifest.json").write_text(content)
    said = {"unfinished": "unfinished", "damaged": "damaged", "list": "damaged", "newer": "of format 2"}
    with pytest.raises(RunError, match=said.get(make, "is no run directory")):
        collect([path])


def test_scores_that_are_no_numbers_are_missing(tmp_path: Path) -> None:
    results = {"metrics": {"test": {"accuracy": float("nan"), "f1": None, "macro_f1": 0.5}}, "parameters": "many"}
    run = write_training(tmp_path / "run", "finetune", {"model": "m"}, None, **results)
    model = models_of(run)["run"]
    assert model.scores == {"test": {"macro_f1": 0.5}} and model.parameters is None


def test_validation_scores_are_compared_where_one_model_has_no_test_scores(tmp_path: Path) -> None:
    a = write_training(tmp_path / "a", "finetune", {"model": "m"}, 0.9)
    b = write_training(tmp_path / "b", "finetune", {"model": "m"}, None, metrics={"validation": {"accuracy": 0.8}})
    experiment = collect([a, b]).experiments[0]
    assert experiment.split == "validation"
    assert [experiment.score(m) for m in experiment.models] == [0.89, 0.8]


def test_tasks_are_kept_apart(tmp_path: Path) -> None:
    a = write_training(tmp_path / "a", "finetune", {"model": "m"}, 0.9, task="sst2")
    b = write_training(tmp_path / "b", "finetune", {"model": "m"}, 0.8, task="rte")
    assert [e.task for e in collect([a, b]).experiments] == ["sst2", "rte"]


def test_summary_rows_hold_the_table_in_words(tmp_path: Path) -> None:
    ((task, columns, rows),) = summary_rows(collect([write_demo(tmp_path / "demo")]))
    assert task == "banking77"
    table = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert table["distilled"]["Accuracy"] == "91.8"
    assert table["baseline"]["Agreement with teacher"] == "93.6"
    assert table["baseline"]["Latency p50"] == "–"


def test_the_rows_of_every_split_are_read(tmp_path: Path) -> None:
    run = write_training(tmp_path / "run", "finetune", {"model": "m"}, 0.9, drops={"empty text": 3})
    assert models_of(run)["run"].rows == ROWS and models_of(run)["run"].drops == {"empty text": 3}


def test_a_log_with_repeated_and_torn_lines_is_read(tmp_path: Path) -> None:
    entries = [
        {"kind": "step", "step": 20, "loss": 2.0, "terms": {"labels": 1.0}},
        {"kind": "step", "step": 40, "loss": 9.0, "terms": {}},
        {"kind": "step", "step": 40, "loss": 1.0, "terms": {}},  # after a resume
        {"kind": "epoch", "epoch": 0, "metrics": {"accuracy": 0.5}},
        {"kind": "mapping", "epoch": 0, "step": 0, "term": "layers", "pairs": [[1, 2], [2, 4]]},
    ]
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(e) + "\n" for e in entries) + '[1]\n{"kind": "step", "st')
    log = read_log(file)
    assert log.losses == {"loss": ((20, 2.0), (40, 1.0)), "labels": ((20, 1.0),)}
    assert log.epochs == {0: {"accuracy": 0.5}}
    assert log.draws[0].pairs == ((1, 2), (2, 4))
    assert log.unreadable == 2


def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    assert not read_log(tmp_path / "log.jsonl").losses


def test_an_external_teacher_is_the_teacher(tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "my-model"
    options = {"teacher": str(outside), "layers": 3, "method": "rail-kd-l"}
    student = write_training(tmp_path / "runs" / "student", "distill", options, 0.9, method="rail-kd-l")
    models = models_of(student)
    assert [(m.name, m.role, m.method) for m in models.values()] == [
        ("my-model", "teacher", "external model"),
        ("student", "distilled", "rail-kd-l"),
    ]
    assert models["student"].teacher == "my-model" and models["my-model"].scores == {}
    sets = {"banking77": {"metrics": {"accuracy": 0.95, "macro_f1": 0.94}, "rows": ROWS["test"]}}
    measured = write_run(tmp_path / "runs" / "e", "evaluate", {"model": str(outside), "data": ["banking77"]}, sets=sets)
    page = collect([student, measured])
    assert page.experiments[0].split == "test" and page.experiments[0].score(page.experiments[0].models[0]) == 0.95
    headline = verdict(page.experiments[0], page).headline.replace("\u00a0", " ")
    assert headline == "The 3-layer student keeps 94.7 % of the teacher’s accuracy (90.0 against 95.0)."


def test_a_baseline_does_not_make_its_model_a_teacher(tmp_path: Path) -> None:
    options = {"teacher": "org/base", "layers": 3, "method": "none"}
    assert [*models_of(write_training(tmp_path / "s", "distill", options, 0.9, method="none"))] == ["s"]


def test_an_exported_file_has_its_own_scores(tmp_path: Path) -> None:
    demo = write_demo(tmp_path / "demo")
    assert all(not a.scores for a in collect([demo]).artefacts)
    manifest = json.loads((demo / "export" / "manifest.json").read_text())
    manifest["artefacts"][-1]["metrics"] = {"accuracy": 0.905}
    (demo / "export" / "manifest.json").write_text(json.dumps(manifest))
    page = collect([demo])
    assert [a.name for a in page.artefacts if a.scores] == ["ONNX int8"]
    latency = next(c for c in charts_of(page.experiments[0], page.artefacts) if c.title == "Accuracy against latency")
    assert [p.title for s in latency.series if s.small for p in s.points] == [
        "ONNX int8 · distilled: 90.5, 1.60\u00a0ms"
    ]
    assert "exported files, with their own scores" in latency.note
    sets = {"banking77": {"metrics": {"accuracy": 0.917}, "rows": 3080}}
    options = {"model": str(demo / "export/onnx/model.onnx"), "data": ["banking77"]}
    manifest["artefacts"][2]["file"] = options["model"]
    (demo / "export" / "manifest.json").write_text(json.dumps(manifest))
    write_run(demo / "evaluate-file", "evaluate", options, sets=sets)
    assert {a.name: a.scores for a in collect([demo]).artefacts if a.scores}["ONNX fp32"] == {"accuracy": 0.917}
