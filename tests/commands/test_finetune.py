"""`finetune` end to end: every kind of rows, what a run directory holds, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_kit import QUICK, RESULTS, arguments, records, weights, write_csv, write_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import demiglace
from demiglace.cli import main
from demiglace.commands import finetune as finetune_command
from demiglace.config.training import TrainConfig
from demiglace.errors import DivergedError
from demiglace.models.loading import set_dropout
from demiglace.runs.directory import read_manifest
from demiglace.training import run as fit
from demiglace.training.datasets import TaskData
from factories import save_tiny, tiny_config

PROBLEMS = {
    "classes": ("classification", ["negative", "positive"], "accuracy"),
    "pairs": ("classification", ["different", "same"], "accuracy"),
    "integers": ("classification", ["0", "1"], "accuracy"),
    "regression": ("regression", [], "pearson"),
}


def run(output: Path, model: Path, **options: Any) -> int:
    """The exit code of `demiglace finetune`."""
    return main(arguments("finetune", model=model, output=output, **options))


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_run_is_complete_and_its_model_loads(kind: str, tmp_path: Path, base: Path) -> None:
    problem, labels, metric = PROBLEMS[kind]
    assert run(tmp_path / "run", base, **write_rows(tmp_path / "rows", kind), **QUICK) == 0
    manifest = read_manifest(tmp_path / "run")
    assert manifest.keys() >= RESULTS
    assert (manifest["problem"], manifest["labels"], manifest["method"]) == (problem, labels, "none")
    assert manifest["rows"] == {"train": 36, "validation": 12, "test": 12}
    assert (manifest["pairs"], manifest["hub"]) == (kind == "pairs", None)
    assert manifest["layers"] == 4
    assert next(iter(manifest["metrics"]["test"])) == metric
    for which in ("model", "last"):
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / which)
        assert model.num_parameters() == manifest["parameters"]
        assert model.config.num_labels == max(1, len(labels))
        if labels:
            assert [model.config.id2label[i] for i in range(len(labels))] == labels
    assert len(AutoTokenizer.from_pretrained(tmp_path / "run" / "model")("the good film")["input_ids"]) == 5
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {"manifest.json", "run.json", "log.jsonl", "model", "last", ".lock"}


def test_dropout_that_is_the_models_own_chooses_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager attention suits a CPU in bf16 where nothing drops out, and there alone."""
    monkeypatch.setattr(fit, "processes", lambda: SimpleNamespace(device=torch.device("cpu")))
    for dropout, own, kernel in ((0.0, 0.1, "eager"), (None, 0.1, "sdpa"), (None, 0.0, "eager")):
        config = tiny_config("bert")
        set_dropout(config, own)
        training = TrainConfig(precision="bf16", dropout=dropout)
        assert fit.resolve_precision_and_attention(training, config) == ("bf16", kernel)


def test_the_log_tells_every_step_and_epoch(teacher: Path) -> None:
    steps, epochs = records(teacher, "step"), records(teacher, "epoch")
    assert [s["step"] for s in steps] == list(range(1, 11))
    assert {"epoch", "lr", "loss", "terms", "gradient_norm"} <= steps[0].keys()
    assert steps[0]["terms"].keys() == {"task"}
    assert [(e["epoch"], e["step"]) for e in epochs] == [(0, 5), (1, 10)]
    assert epochs[-1]["metrics"].keys() == {"accuracy", "macro_f1"}
    assert records(teacher, "mapping") == []


def test_it_learns(tmp_path: Path, base: Path) -> None:
    rows = write_rows(tmp_path / "rows", train=160, held_out=40)
    assert run(tmp_path / "run", base, **rows, **QUICK | {"epochs": 6, "learning_rate": 5e-3}) == 0
    assert read_manifest(tmp_path / "run")["metrics"]["test"]["accuracy"] >= 0.85
    losses = [s["loss"] for s in records(tmp_path / "run", "step")]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_the_same_command_again_is_up_to_date(
    teacher: Path, base: Path, rows: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in teacher.rglob("*") if p.name != ".lock"}
    assert run(teacher, base, **rows, **QUICK | {"log_steps": 7, "checkpoint_seconds": 5}) == 0
    assert f"{teacher} is up to date." in capfd.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in teacher.rglob("*") if p.name != ".lock"} == before


def test_a_card_that_a_kill_kept_from_being_written_is_written_by_the_next_call(
    teacher: Path, base: Path, rows: dict[str, str]
) -> None:
    card = teacher / "model" / "README.md"
    text = card.read_text("utf-8")
    card.unlink()
    assert run(teacher, base, **rows, **QUICK) == 0
    assert card.read_text("utf-8") == text


def test_another_option_on_the_same_directory_is_refused(
    teacher: Path, base: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(teacher, base, **rows, **QUICK | {"learning_rate": 3e-3}) == 2
    error = capsys.readouterr().err
    assert f"{teacher} holds another run" in error
    assert "learning_rate: 0.002 there, 0.003 now" in error
    assert "epochs" not in error


def test_foreign_files_are_left_alone(
    tmp_path: Path, base: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("all my work")
    assert run(tmp_path, base, **rows, **QUICK) == 2
    assert "holds files that are no demiglace run" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_python_call_is_the_command(tmp_path: Path, teacher: Path, base: Path, rows: dict[str, str]) -> None:
    assert demiglace.finetune(model=str(base), output=tmp_path / "run", **rows, **QUICK).path == tmp_path / "run"
    ours, theirs = weights(tmp_path / "run"), weights(teacher)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def scripted(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> None:
    """Let the validation accuracies of the epochs be these; later evaluations are true ones."""
    left, original = list(accuracies), TaskData.metrics
    measure = lambda *given: {"accuracy": left.pop(0), "macro_f1": 0.0} if left else original(*given)  # noqa: E731
    monkeypatch.setattr(TaskData, "metrics", measure)


def test_model_is_the_best_epoch_and_last_the_last(
    tmp_path: Path, base: Path, rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.5, 0.9, 0.7])
    saved, original = [], fit.Loop._end_epoch

    def end(loop: Any, epoch: int, metrics: Any) -> None:
        saved.append({k: v.clone() for k, v in loop._unwrapped.student.state_dict().items()})
        original(loop, epoch, metrics)

    monkeypatch.setattr(fit.Loop, "_end_epoch", end)
    assert run(tmp_path / "run", base, **rows, **QUICK | {"epochs": 3}) == 0
    assert read_manifest(tmp_path / "run")["best_epoch"] == 1
    for which, epoch in (("model", 1), ("last", 2)):
        found = weights(tmp_path / "run", which)
        assert all(torch.equal(found[name], saved[epoch][name]) for name in found)
    assert any(not torch.equal(saved[1][name], saved[2][name]) for name in saved[1])


def test_patience_ends_the_run(
    tmp_path: Path, base: Path, rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.6, 0.5, 0.5, 0.9])
    assert run(tmp_path / "run", base, **rows, **QUICK | {"epochs": 4, "patience": 2}) == 0
    assert len(records(tmp_path / "run", "epoch")) == 3
    assert read_manifest(tmp_path / "run")["best_epoch"] == 0


def test_trackers_get_their_files(tmp_path: Path, base: Path, rows: dict[str, str]) -> None:
    pytest.importorskip("tensorboard")
    assert run(tmp_path / "run", base, **rows, **QUICK, report_to="tensorboard") == 0
    events = [p for p in (tmp_path / "run").rglob("events.out.tfevents*") if p.stat().st_size > 200]
    assert events


def test_bad_rows_are_shown_with_their_lines_or_dropped_and_counted(
    tmp_path: Path, base: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(rows["data"]).open() as handle:
        head = [dict(zip(("text", "label"), line.strip().split(","), strict=True)) for line in handle][1:]
    file = write_csv(tmp_path / "bad.csv", [*head, {"text": "", "label": "positive"}, {"text": "red", "label": ""}])
    given = rows | {"data": str(file)}
    assert run(tmp_path / "run", base, **given, **QUICK) == 2
    error = capsys.readouterr().err
    assert f"{file}:38" in error
    assert f"{file}:39" in error
    assert not (tmp_path / "run").exists()
    assert run(tmp_path / "run", base, **given, **QUICK, on_bad_rows="drop") == 0
    assert sum(read_manifest(tmp_path / "run")["drops"].values()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acuracy"}, "unknown metric of data.csv: 'acuracy'; did you mean 'accuracy'"),
        ({"metric": "pearson"}, "Known: accuracy, macro_f1"),
        ({"report_to": "tensorbord"}, "unknown tracker 'tensorbord'; did you mean 'tensorboard'"),
        ({"data": "sst22"}, "sst2"),
        ({"model": "nowhere/at-all"}, "nowhere/at-all"),
        ({"learning_rat": 1}, "did you mean '--learning-rate'"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    base: Path,
    rows: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(arguments("finetune", **{"model": base, "output": tmp_path / "run"} | rows | QUICK | options)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_was_refused_late_does_not_bar_the_mended_command(
    tmp_path: Path, base: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    long = [
        {"text": "red " * 300 + word, "label": label} for word, label in (("good", "positive"), ("bad", "negative"))
    ]
    given = rows | {"data": str(write_csv(tmp_path / "long.csv", long * 2)), "on_bad_rows": "drop"}
    assert run(tmp_path / "run", base, **given, **QUICK, max_length=400) == 2
    assert "--max-length 256" in capsys.readouterr().err
    assert run(tmp_path / "run", base, **given, **QUICK, max_length=256) == 0


def test_long_rows_are_cut_counted_and_resumed_at_the_same_length(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"{i} " + "red " * (40 + 12 * i), "label": "ab"[i % 2]} for i in range(30)]  # 43 to 391 tokens
    given: dict[str, Any] = {"data": str(write_csv(tmp_path / "rows.csv", rows)), **QUICK}
    monkeypatch.setattr(fit, "train", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(finetune_command, "train", fit.train)
    assert run(tmp_path / "run", base, **given) == 130
    monkeypatch.undo()
    assert run(tmp_path / "run", base, **given) == 0
    said = capsys.readouterr().err
    assert said.count("max-length: 256 tokens; 99% of the training rows have at most") == 2
    assert "and the model takes 256." in said
    assert "warning: rows longer than --max-length 256 are cut:" in said
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["max_length"], manifest["config"]["max_length"]) == (256, None)
    assert manifest["inputs"]["max_length"] == "256"
    lengths = [2 + len(str(i)) + 40 + 12 * i for i in range(30)]
    cut = [length - 256 for length in lengths if length > 256]
    assert sum(found["rows"] for found in manifest["cut"].values()) == len(cut)
    assert sum(found["tokens"] for found in manifest["cut"].values()) == sum(cut)
    (notice,) = [n for n in manifest["notices"] if n["kind"] == "max-length"]
    assert (notice["rows"], notice["tokens"]) == (len(cut), sum(cut))
    evaluated = demiglace.evaluate(str(tmp_path / "run"), data=given["data"], output=tmp_path / "scores").manifest
    assert evaluated["max_length"] == 256
    short = [{"text": f"red {i}", "label": "ab"[i % 2]} for i in range(30)]
    given["data"] = str(write_csv(tmp_path / "short.csv", short))
    assert run(tmp_path / "other", base, **given) == 0
    assert read_manifest(tmp_path / "other")["max_length"] == 32
    assert "cut" not in read_manifest(tmp_path / "other")


def test_a_nan_in_the_model_is_found_before_training(
    tmp_path: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(save_tiny(tmp_path / "whole", num_labels=2))
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[3, 5] = torch.nan
    model.save_pretrained(tmp_path / "broken")
    for file in (tmp_path / "whole").glob("token*"):
        (tmp_path / "broken" / file.name).write_bytes(file.read_bytes())
    assert run(tmp_path / "run", tmp_path / "broken", **rows, **QUICK) == 2
    error = capsys.readouterr().err
    assert "NaN or infinite values in 1 of its weights (bert.encoder.layer.1.output.dense.weight)" in error
    assert not (tmp_path / "run" / "log.jsonl").exists()


@pytest.mark.parametrize("lr", [1e18, 1e30])
def test_a_mad_learning_rate_stops_and_leaves_the_last_good_state(
    lr: float, tmp_path: Path, base: Path, rows: dict[str, str]
) -> None:
    given = rows | QUICK | {"learning_rate": lr, "warmup_ratio": 0.0, "max_grad_norm": 1e9}
    with pytest.raises(DivergedError, match=r"step \d+.*data\.csv:\d+.*lower --learning-rate \(now 1e\+"):
        demiglace.finetune(model=str(base), output=tmp_path / "run", **given)
    assert not (tmp_path / "run" / "manifest.json").exists()
    with pytest.raises(DivergedError):  # and again, from the same state
        demiglace.finetune(model=str(base), output=tmp_path / "run", **given)
