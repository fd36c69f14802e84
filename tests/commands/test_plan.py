"""`plan`: what it tells, that it needs no weights and writes nothing, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command_kit import QUICK, arguments, lenient, write_rows

import demiglace
from demiglace.cli import main
from demiglace.commands import compress as compress_command
from demiglace.commands.plan import run_of
from demiglace.config.command_options import DistillConfig, FinetuneConfig, PlanConfig, PretrainConfig
from demiglace.config.options import build, options_of, read_yaml
from demiglace.costs import describe, measure_speed
from demiglace.costs import run_spec as subject_module
from demiglace.costs.describe import duration
from demiglace.costs.measure_speed import time_steps
from demiglace.costs.run_spec import run_spec, token_lengths
from demiglace.methods.registry import METHODS
from factories import ARCHITECTURES, save_tiny

RECIPES = Path(__file__).parent.parent.parent / "recipes"
BRIEF = {"calibration_seconds": 0.01}


def plan(**options) -> int:
    return main(arguments("plan", **options))


def subject(teacher: Path, rows: dict, **options):
    config = build(DistillConfig, {"teacher": str(teacher), "layers": 2, "output": "x"} | rows | QUICK | options)
    return run_spec(config, token_lengths(config.source, config.location, config.teacher))


def everything_in(path: Path) -> dict[str, int]:
    return {str(f): f.stat().st_mtime_ns for f in path.rglob("*")}


def test_it_tells_everything_from_a_config_and_a_tokenizer(tmp_path, rows, monkeypatch, capsys):
    teacher = save_tiny(tmp_path / "teacher", num_layers=4)  # of three unnamed labels, where the rows have two
    (teacher / "model.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    before = everything_in(tmp_path)
    assert plan(teacher=teacher, layers=2, method="rail-kd-l", **rows, **QUICK, **BRIEF) == 0
    assert everything_in(tmp_path) == before
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.replace(" FLOPs", "-FLOPs").splitlines())
    names = (
        "teacher",
        "student",
        "rows",
        "steps",
        "teacher-FLOPs",
        "student-FLOPs",
        "cache",
        "memory",
        "speed",
        "time",
    )
    assert tuple(shown) == names
    assert "4 layers of 32" in shown["teacher"]
    assert "2 layers of 32" in shown["student"]
    assert shown["rows"].startswith("36 for training")
    assert shown["steps"] == "5 per epoch, 2 epochs"
    assert shown["teacher-FLOPs"].endswith(" once")
    assert f"({(2 + 5 * 32) * 2} B per row)" in shown["cache"]
    assert "caching the teacher's signals" in shown["time"]


def test_it_is_a_function_too(teacher, rows):
    found = demiglace.plan(teacher=str(teacher), layers=2, method="pkd", flops=1e9, **rows, **QUICK)
    assert (found.teacher.num_layers, found.student.num_layers) == (4, 2)
    assert found.seconds.capture == found.teacher_flops / 1e9
    two = demiglace.plan(teacher=str(teacher), layers=2, method="pkd", flops=1e9, devices=2, **rows, **QUICK)
    assert two.seconds.training == pytest.approx(found.seconds.training / 2)


def test_finetuning_is_planned_too(base, rows, capsys):
    assert plan(model=base, flops="1e9", **rows, **QUICK) == 0
    shown = capsys.readouterr().out
    assert "teacher        not used" in shown
    assert "cache          none\n" in shown
    assert "4 layers of 32" in shown


def test_every_option_of_a_run_is_one_of_the_plan():
    known = {o.name: (o.type, o.default) for o in options_of(PlanConfig)}
    others = ("teacher", "model", "output", "push_to_hub")
    for kind in (DistillConfig, FinetuneConfig, PretrainConfig):
        for o in options_of(kind):
            # the default learning rate of `distill` depends on the student; it changes no cost
            if o.name not in (others if kind is not DistillConfig else (*others, "learning_rate")):
                assert known[o.name] == (o.type, o.default)


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*/*.yaml")), ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_recipes_can_be_planned(file):
    kinds = {"distill": DistillConfig, "finetune": FinetuneConfig}
    if file.stem in kinds:
        content = read_yaml(file)
        assert run_of(build(PlanConfig, content)) == build(kinds[file.stem], content)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_timed(method, teacher, rows):
    of_run = subject(teacher, rows, method=method, method_options=lenient(method))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    speed = time_steps(of_run, seconds=0.01)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(0 < value < float("inf") for value in (speed.forward, speed.training, speed.update))
    assert of_run.estimate(speed).seconds.total > 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_can_be_timed(arch, tmp_path, rows):
    teacher = save_tiny(tmp_path / "teacher", arch, num_labels=2)
    assert time_steps(subject(teacher, rows), seconds=0.01).training > 0


def test_numbers_as_labels_can_be_timed(tmp_path, base):
    rows = write_rows(tmp_path, "regression")
    of_run = subject(base, rows, method="pkd")
    assert of_run.rows.task.name == "regression"
    assert of_run.shapes[1].num_labels == 1
    assert time_steps(of_run, seconds=0.01).training > 0


def test_lengths_of_many_rows_are_drawn_from_some(teacher, rows, monkeypatch):
    whole = subject(teacher, rows).rows.lengths
    monkeypatch.setattr(subject_module, "_MAX_TOKENIZED", 10)
    drawn = subject(teacher, rows).rows.lengths
    assert {k: len(v) for k, v in drawn.items()} == {k: len(v) for k, v in whole.items()}
    assert set(drawn["train"]) <= set(whole["train"])
    assert len(set(whole["train"])) > 1
    assert np.array_equal(drawn["train"], subject(teacher, rows).rows.lengths["train"])


def test_unlabelled_rows_count(tmp_path, teacher, rows):
    extra = tmp_path / "more.csv"
    extra.write_text("text\n" + "\n".join(f"the film {i} is red" for i in range(7)) + "\n")
    plain, more = subject(teacher, rows), subject(teacher, rows, unlabelled=[str(extra)])
    assert len(more.rows.lengths["train"]) == len(plain.rows.lengths["train"]) + 7


def test_models_that_do_not_fit_are_not_tried(teacher, rows, monkeypatch, capsys):
    monkeypatch.setattr(measure_speed, "free_memory", lambda: 1000)
    monkeypatch.setattr(measure_speed, "time_steps", lambda *_: pytest.fail("the models were built"))
    assert plan(teacher=teacher, layers=2, **rows, **QUICK) == 0
    shown = capsys.readouterr()
    assert "time           unknown" in shown.out
    assert "more than is free here" in shown.err


def test_a_cache_that_does_not_fit_is_told(teacher, rows, monkeypatch, capsys):
    monkeypatch.setattr(describe, "free_disk", lambda path: (1000, path))
    assert plan(teacher=teacher, layers=2, flops=1e9, **rows, **QUICK) == 0
    assert "too little: give --cache DIR" in capsys.readouterr().out


def test_a_compression_is_planned_by_its_dry_run(monkeypatch, capsys):
    planned = []
    monkeypatch.setattr(compress_command, "compress", planned.append)
    words = ["--data", "sst2", "--max-mb", "8", "-o", "small"]
    monkeypatch.setattr("demiglace.preflight.check", lambda *_: None)
    assert main(["plan", "compress", "some/model", *words]) == 0
    assert main(["compress", "some/model", *words, "--dry-run"]) == 0
    assert planned[0] == planned[1]
    assert planned[0].dry_run
    assert main(["plan", "compress"]) == 2
    assert "usage: demiglace compress MODEL" in capsys.readouterr().err
    assert main(["plan", "compress", "--help"]) == 0
    assert "--max-latency-ms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": None}, "or --architecture, as pretrain does; given: none of them."),
        ({"model": "x"}, "given: --teacher, --model."),
        ({"teacher": "/nowhere/at/all"}, "there is no model at /nowhere/at/all"),
        ({"layers": None}, "neither was given"),
        ({"layers": 9}, "9 layers were requested; the model has 4"),
        ({"method": "pdk"}, "did you mean 'pkd'?"),
        ({"method": "annealing-kd", "epochs": 1}, "the shortest has 0"),
        ({"flops": 0}, "--flops was given 0"),
        ({"devices": 0}, "expected a whole number, at least 1"),
        ({"method": "alp-kd", "student": "narrow", "layers": None}, "hidden sizes differ (16 in the student"),
    ],
)
def test_what_a_run_would_refuse_is_refused(options, message, tmp_path, teacher, rows, capsys):
    if options.get("student"):
        options = options | {"student": save_tiny(tmp_path / "narrow", num_layers=2, hidden=16, num_labels=2)}
    given = {"teacher": teacher, "layers": 2, "flops": 1e9} | rows | QUICK | options
    assert plan(**given) == 2
    assert message in capsys.readouterr().err


def test_rows_longer_than_the_student_takes_are_refused(tmp_path, teacher, rows, capsys):
    longer = tmp_path / "long.csv"
    longer.write_text(f"text,label\n{'good ' * 300},positive\nbad,negative\n")
    given = {"teacher": teacher, "layers": 2, "max_length": 400} | rows | {"validation": longer}
    assert plan(**given) == 2
    assert "a row has 302 tokens, and the model takes 256 at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 s"), (42.3, "42.3 s"), (150, "2 min"), (7200, "2.0 h"), (90_000, "25.0 h")]
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words
