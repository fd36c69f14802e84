"""`compress`: a student within a budget, what is impossible, resuming, one choice on validation rows."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command_kit import arguments, in_child, strike

from demiglace.cli import main
from demiglace.commands import demo as demo_command
from demiglace.commands import export as export_command
from demiglace.compress import artefacts, estimate, halving, measure_candidates, outputs
from demiglace.config.command_options import CompressConfig
from demiglace.config.export_formats import EXPORTERS
from demiglace.config.options import build
from demiglace.costs.estimate import Speed
from demiglace.export.measure import Measurement
from demiglace.runs.directory import read_manifest
from demiglace.runs.result import Result
from factories import save_sentence_encoder

sys.path.append(str(Path(__file__).parent.parent / "export"))
TRAINING = {"batch_size": 8, "learning_rate": 2e-3, "repeats": 1, "width": "full"}
QUICK = TRAINING | {"epochs": 2, "teacher_epochs": 2, "students": 3, "vocabulary": "full"}
ONE = TRAINING | {"epochs": 1, "students": 1, "vocabulary": "full"}
LIMIT_MB = 0.18  # between the sizes of three and of four layers, for models with a mean-pooled encoder of width 32
Line = Callable[..., list[str]]


class Done(NamedTuple):
    """A complete compression: its directory, and what its manifest and its page held when it was made."""

    path: Path
    manifest: dict[str, Any]
    page: str
    scored: list[tuple[str, str]]  # (file, split) of each time that labelled rows were scored


def measured_by_size(artefact: Any, batches: Any, **_: Any) -> Measurement:
    """A latency that depends on the size alone: 1 ms for each 100 kB."""
    times = {"p50": artefact.size / 1e5, "p95": artefact.size / 1e5}
    return Measurement({str(size): times for size in (1, 32)}, 1.0)


@pytest.fixture(scope="module", autouse=True)
def toy_format() -> Iterator[None]:
    """An export format of one archive of weights, and measurements without a clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPORTERS, "toy", "toy_exporter:ToyExporter")
        patch.setattr(estimate, "measure_speed", lambda *_: Speed(1e9, 1e9))
        for module in (export_command, measure_candidates):
            patch.setattr(module, "measure", measured_by_size)
        yield


def line_of(model: Path, rows: dict[str, str], output: Path, **options: Any) -> list[str]:
    command, *flags = arguments("compress", output=output, **rows, **{"to": "toy", "max_mb": LIMIT_MB} | options)
    return [command, str(model), *flags]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, str]) -> Done:
    """The compression of an encoder without a head, of four layers."""
    home = tmp_path_factory.mktemp("compress")
    encoder, scored = save_sentence_encoder(home / "encoder"), []
    with pytest.MonkeyPatch.context() as patch:
        original = artefacts._score

        def score(file: Any, split: Any, *others: Any) -> Any:
            scored.append((file.name, split.name))
            return original(file, split, *others)

        patch.setattr(artefacts, "_score", score)
        assert main(line_of(encoder, rows, home / "small", **QUICK)) == 0
    page = (home / "small" / "report.html").read_text(encoding="utf-8")
    return Done(home / "small", read_manifest(home / "small"), page, scored)


def test_the_best_file_within_the_budget_is_shipped(done: Done) -> None:
    chosen, files = done.manifest["chosen"], done.manifest["model_files"]
    admitted = [f for f in files if f["cost"]["bytes"] <= LIMIT_MB * 1e6]
    assert chosen["file"] in [f["file"] for f in admitted]
    assert chosen["validation"]["accuracy"] == max(f["validation"]["accuracy"] for f in admitted)
    assert {f["role"] for f in files} == {"teacher", "student", "baseline", "static"}
    assert (done.path / "model" / "model.safetensors").is_file()
    assert [p.name for p in (done.path / "toy").glob("*.npz")] == [Path(chosen["file"]).name]
    assert "library_name" in (done.path / "README.md").read_text(encoding="utf-8")


def test_the_shipped_file_can_be_evaluated(done: Done, rows: dict[str, str], capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(done.path / "toy"), "--data", rows["test"], "--json"]) == 0
    (metrics,) = json.loads(capsys.readouterr().out)["metrics"].values()
    assert metrics["accuracy"] == pytest.approx(done.manifest["chosen"]["test"]["accuracy"])


def test_the_test_rows_are_scored_once_and_after_the_choice(done: Done) -> None:
    splits = [split for _, split in done.scored]
    assert splits == sorted(splits, reverse=True)  # validation first
    tested = [name for name, split in done.scored if split == "test"]
    assert len(tested) == len(set(tested)) < splits.count("validation")
    chosen = done.manifest["chosen"]
    assert {f"{chosen['model']}, {chosen['precision']}", "teacher, fp32"} <= set(tested)
    runs = [read_manifest(file.parent) for file in (done.path / "runs").rglob("manifest.json")]
    assert not any("test" in run.get("metrics", {}) for run in runs)


def test_the_better_half_trains_on(done: Done) -> None:
    first, second = done.manifest["rungs"]
    assert {run["name"] for run in first} == {"1 layer", "2 layers", "3 layers"}
    assert {run["method"] for run in first} == {"rail-balanced"}
    left = {run["name"] for run in second}
    assert len(left) == 2
    assert min(r["quality"] for r in first if r["name"] in left) >= max(
        r["quality"] for r in first if r["name"] not in left
    )
    assert done.manifest["rung_epochs"] == [1, 1]
    seeds = {
        rung: {read_manifest(file.parent)["config"]["seed"] for file in done.path.rglob(f"rung-{rung}/manifest.json")}
        for rung in (1, 2)
    }
    assert seeds == {rung: {halving.rung_seed(0, rung)} for rung in (1, 2)}  # the baseline's are those of its student


def test_the_static_student_reads_the_signals_of_the_others(done: Done) -> None:
    static = read_manifest(done.path / "runs" / "static" / "distillation")
    student = read_manifest(done.path / done.manifest["rungs"][0][0]["run"])
    assert static["seconds"]["capture"] == student["seconds"]["capture"] > 0  # one pass of the teacher


def test_the_page_answers_first(done: Done) -> None:
    chosen = done.manifest["chosen"]
    for text in ("instead of", "Quality against cost", "Candidates", "to ship", "--max-mb 0.18", "3 layers, fp32"):
        assert text in done.page, text
    assert f"{chosen['cost']['bytes'] / 1e3:.0f}" in done.page
    assert "nan" not in done.page


def test_report_writes_the_same_page(done: Done, tmp_path: Path) -> None:
    assert main(["report", str(done.path), "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == done.page


def test_a_repeated_call_does_nothing(done: Done, rows: dict[str, str], capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert main(line_of(done.path.parent / "encoder", rows, done.path, **QUICK)) == 0
    shown = capsys.readouterr()
    assert "is up to date" in shown.err
    assert "instead of" in shown.out


def test_an_impossible_size_is_named_with_the_nearest(
    base: Path, rows: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(line_of(base, rows, tmp_path / "out", max_mb=0.01, max_latency_ms=0.05, **ONE)) == 2
    error = capsys.readouterr().err
    assert "--max-mb 0.01 is impossible: the smallest candidate, static in fp32, takes 0.014" in error
    assert "give at least --max-mb 0.015." in error
    assert "--max-latency-ms 0.05 is impossible on this machine" in error
    assert not (tmp_path / "out" / "runs").exists()


def test_a_loss_that_no_file_stays_within(
    base: Path, rows: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = iter([0.9] + [0.5] * 20)  # the teacher's file, then those of others
    monkeypatch.setattr(artefacts, "_score", lambda *_: {"accuracy": next(worse), "macro_f1": 0.5})
    output = tmp_path / "out"
    assert main(line_of(base, rows, output, max_drop=1, **ONE)) == 2
    error = capsys.readouterr().err
    assert "--max-drop 1 is not met" in error
    assert "40 points below the teacher's 90.0" in error
    assert "is not met" in (output / "report.html").read_text(encoding="utf-8")
    assert not (output / "manifest.json").exists()
    assert main(line_of(base, rows, output, max_drop=45, **ONE)) == 0  # what was trained and scored is used
    assert read_manifest(output)["drop"] == pytest.approx(40)


def test_a_dry_run_lists_candidates_and_trains_nothing(
    base: Path, rows: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*line_of(base, rows, tmp_path / "out", **QUICK | {"vocabulary": "auto"}), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "4 layers (the model)" in shown
    assert "3 layers, trimmed vocabulary" in shown
    assert "Training takes about" in shown
    assert not (tmp_path / "out" / "runs").exists()


def test_a_limit_of_time_ends_the_training(base: Path, rows: dict[str, str], tmp_path: Path) -> None:
    renamed = {}  # files with columns of unusual names
    for name, file in rows.items():
        content = Path(file).read_text(encoding="utf-8").replace("text,label", "story,mood", 1)
        renamed[name] = str(tmp_path / f"{name}.csv")
        Path(renamed[name]).write_text(content, encoding="utf-8")
    two = ONE | {"students": 2, "max_hours": 1e-9, "text_columns": "story", "label_column": "mood"}
    assert main(line_of(base, renamed, tmp_path / "out", **two)) == 0
    manifest = read_manifest(tmp_path / "out")
    assert [[run["name"] for run in rung] for rung in manifest["rungs"]] == [["3 layers"]]
    messages = " ".join(n["message"] for n in manifest["notices"])
    assert "--max-hours 1e-09 is used up: 1 of 2 students" in messages
    assert "is used up: the baseline, 3 layers without the teacher" in messages
    assert {f["role"] for f in manifest["model_files"]} == {"teacher", "student", "static"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_mb": None}, "compress needs a limit"),
        ({"layers": [2, 5]}, "--layers was given 5; the model has 4 layers"),
        ({"precisions": "int3"}, "int3"),
        ({"data": None}, "give --data TASK_OR_FILE"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any],
    message: str,
    base: Path,
    rows: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    assert main(line_of(base, rows | {k: v for k, v in options.items() if k == "data"}, tmp_path / "out", **ONE | {
        k: v for k, v in options.items() if k != "data"
    })) == 2  # fmt: skip
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_it_ends_as_if_nothing_had_been(base: Path, rows: dict[str, str], tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    trim = ONE | {"vocabulary": "trim"}
    assert main(line_of(base, rows, undisturbed, **trim)) == 0
    moments = [
        (measure_candidates.CandidateMeter, "_measure", 2),
        (halving.Trainer, "train", 2),
        (outputs, "ship_export", 1),
    ]
    for owner, name, at in moments:
        code = in_child(line_of(base, rows, killed, **trim), lambda o=owner, n=name, a=at: strike(o, n, a))
        assert code == -9, name
    assert main(line_of(base, rows, killed, **trim)) == 0
    ours, theirs = (read_manifest(path) for path in (killed, undisturbed))
    for manifest, path in ((ours, killed), (theirs, undisturbed)):
        manifest.update(json.loads(json.dumps(manifest).replace(str(path), "OUT")), finished="", checksum="")
    assert ours.pop("files").keys() == theirs.pop("files").keys()
    assert ours == theirs
    weights = [(path / "model" / "model.safetensors").read_bytes() for path in (killed, undisturbed)]
    assert weights[0] == weights[1]
    assert {"3 layers, trimmed vocabulary", "static, trimmed vocabulary"} < {f["model"] for f in ours["model_files"]}
    assert sorted(p.name for p in killed.iterdir()) == sorted(p.name for p in undisturbed.iterdir())


def test_other_limits_use_what_was_trained(done: Done, rows: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    trained = {f: f.stat().st_mtime_ns for f in (done.path / "runs").rglob("rung-1/manifest.json")}
    monkeypatch.setattr(measure_candidates.CandidateMeter, "_measure", None)  # nothing is measured again
    assert main(line_of(done.path.parent / "encoder", rows, done.path, **QUICK | {"max_mb": 0.14})) == 0
    manifest = read_manifest(done.path)
    assert manifest["chosen"]["cost"]["bytes"] <= 140_000
    assert {f: f.stat().st_mtime_ns for f in trained} == trained


def packaged_rows(split: str) -> list[dict[str, str]]:
    """Rows whose class is in their words; three training rows are test rows, too."""
    rows = [{"text": f"{mood} film number {i}", "category": mood} for i in range(60) for mood in ("good", "bad")]
    held = [{"text": f"{mood} book number {i}", "category": mood} for i in range(10) for mood in ("good", "bad")]
    return held if split == "test" else rows + held[:3]


def test_the_demo_compresses_few_labels_and_much_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    encoder, home = save_sentence_encoder(tmp_path / "encoder"), tmp_path / "demo"
    monkeypatch.setattr(demo_command, "_base_model", lambda: str(encoder))
    monkeypatch.setattr(demo_command, "_packaged", packaged_rows)
    recipe = demo_command._RECIPE | TRAINING | {"to": "toy", "max_mb": LIMIT_MB}
    monkeypatch.setattr(demo_command, "_RECIPE", recipe)
    line = ["demo", "-o", str(home), "--labels", "80", "--teacher-epochs", "1", "--student-epochs", "1"]
    assert main(line) == 0
    shown = capsys.readouterr()
    manifest = read_manifest(home / "small")
    assert manifest["rows"] == {"train": 64, "validation": 16, "test": 20}
    assert {"teacher", "student", "baseline", "static"} == {f["role"] for f in manifest["model_files"]}
    for words in ("instead of", str(home / "small" / "report.html"), "demiglace compress MODEL --data train.csv"):
        assert words in shown.out, words
    assert "80 of them have labels" in shown.err
    assert (home / "small" / "report.html").is_file()
    monkeypatch.setattr(halving.Trainer, "train", None)  # nothing is trained again
    assert main(line) == 0
    assert "is up to date" in capsys.readouterr().err


def test_the_demos_options_are_those_of_compress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(demo_command, "_base_model", lambda: "encoder")
    monkeypatch.setattr(demo_command, "compress", lambda **options: given.append(options) or Result(tmp_path))
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    config = build(CompressConfig, given[0])
    assert (config.max_mb, config.students, config.precisions) == (8, 1, ("int8",))


def test_the_demos_rows_do_not_overlap(tmp_path: Path) -> None:
    options = demo_command.write_rows(tmp_path, 1000, seed=0)
    rows = {}
    for file in (options["data"], *options["unlabelled"], options["test"]):
        with Path(file).open(encoding="utf-8", newline="") as handle:
            rows[Path(file).stem] = list(csv.DictReader(handle))
    assert {name: len(r) for name, r in rows.items()} == {"labelled": 1000, "unlabelled": 8997, "test": 3080}
    assert len({r["category"] for r in rows["labelled"]}) == 77
    assert set(rows["unlabelled"][0]) == {"text"}
    texts = {name: {r["text"].strip() for r in found} for name, found in rows.items()}
    assert not texts["test"] & (texts["labelled"] | texts["unlabelled"])
