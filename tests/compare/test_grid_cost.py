"""The estimated cost of a grid before any of its jobs has run."""

from pathlib import Path

import pytest
from compare_kit import compare, replicated

from demiglace.compare import cost as cost_module
from demiglace.compare.cost import grid_cost, with_existing_models
from demiglace.compare.grid import parse_grid
from demiglace.compare.job_config import config_of
from demiglace.compare.job_graph import build_job_graph
from demiglace.costs.estimate import Speed

HOME = Path("nowhere")
RANGES = {"learning_rate": {"low": 1e-5, "high": 5e-4}}


@pytest.fixture(autouse=True)
def speed(monkeypatch):
    """A made-up speed; every call is counted."""
    calls = []

    def here(subject, seconds):
        calls.append(subject.shapes)
        return Speed(forward=2e6, training=1e6)

    monkeypatch.setattr(cost_module, "measure_speed", here)
    return calls


def cost_of(content, done=(), **options):
    return grid_cost(build_job_graph(parse_grid(content), HOME, **options), done)


def test_every_run_counts_and_shared_work_once(content, speed):
    content = content | {"methods": {"none": {}, "vanilla-kd": {}, "pkd": {}}}
    both = cost_of(content)
    assert both.seconds["finetune"] > 0
    assert both.seconds["search"] == 0
    assert len(speed) == 2  # the teacher alone, and the student with it
    one = cost_of(content | {"seeds": [0]})
    assert one.seconds["finetune"] == both.seconds["finetune"]
    # the second seed costs what the first does, but for the capture of the signals
    assert one.seconds["distill"] < both.seconds["distill"] < 2 * one.seconds["distill"]
    assert both.cache_bytes == one.cache_bytes == 36 * (2 + 5 * 32) * 2 + 36 * 2 * 2  # pkd's, and the logits alone
    assert cost_of(content | {"methods": {"none": {}, "vanilla-kd": {}}}).cache_bytes == 36 * 2 * 2


def test_every_replicate_has_a_teacher_and_signals_to_pay_for(content):
    one, two = cost_of(replicated(content, 1)), cost_of(replicated(content, 1, 2))
    assert two.seconds["finetune"] == pytest.approx(2 * one.seconds["finetune"])
    assert two.seconds["distill"] == pytest.approx(2 * one.seconds["distill"])
    assert two.cache_bytes == 2 * one.cache_bytes == 2 * 36 * 2 * 2


def test_what_is_done_costs_nothing(content):
    graph = build_job_graph(parse_grid(content), HOME)
    everything = {job.key for job in graph.jobs}
    assert grid_cost(graph, everything).seconds == {"finetune": 0, "search": 0, "distill": 0}
    last = max(everything - {k for k in everything if "evaluation" in k}, key=lambda k: k.startswith("mood/half/none"))
    assert grid_cost(graph, everything - {last}).seconds["distill"] > 0


def test_a_search_costs_its_trials(content):
    found = [cost_of(content | {"search": {"trials": n, "ranges": RANGES}}, searching=True) for n in (1, 3)]
    assert found[1].seconds["search"] > 2 * found[0].seconds["search"] > 0
    assert found[0].seconds["distill"] == found[1].seconds["distill"]


def test_models_to_come_have_the_shape_of_those_they_are_made_of(content, place):
    graph = build_job_graph(parse_grid(content), HOME)
    config = config_of(graph.job("mood/half/none/seed-0"), HOME)
    found = with_existing_models(config, graph)
    assert (found.teacher, found.student, found.layers) == (str(place / "base"), None, 2)
    ready = content | {"teachers": {"mood": str(place / "base")}, "students": {"own": {"model": str(place / "base")}}}
    graph = build_job_graph(parse_grid(ready), HOME)
    config = config_of(graph.job("mood/own/none/seed-0"), HOME)
    assert with_existing_models(config, graph) == config


def test_models_that_do_not_fit_have_no_time(content, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cost_module, "measure_speed", lambda *_: None)
    found = cost_of(content)
    assert found.seconds is None
    assert found.cache_bytes > 0
    assert compare(content, tmp_path / "runs", dry_run="true") == 0
    assert "Training takes" not in capsys.readouterr().out


def test_a_dry_run_tells_the_cost(content, tmp_path, capsys):
    assert compare(content, tmp_path / "runs", dry_run="true") == 0
    shown = capsys.readouterr().out.splitlines()[-2:]
    assert shown[0] == "The teachers' signals take 0.0 MiB."
    assert shown[1].startswith("Training takes about ")
    assert "finetune " in shown[1]
    assert "distill " in shown[1]
    assert shown[1].endswith(", plus evaluation and export.")
    assert not (tmp_path / "runs").exists()


def test_a_student_that_text_will_cut_costs_what_any_of_its_size_does(content):
    cut = {"layers": 2, "strategy": "greedy", "calibration": ["nowhere.txt"]}
    expected = cost_of(content | {"students": {"cut": {"layers": 2}}})
    assert cost_of(content | {"students": {"cut": cut}}) == expected
