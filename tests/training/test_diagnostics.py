"""Diagnostics: they are correct, give the right warnings, and do not change the run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from demiglace.data.batching import collate
from demiglace.errors import ModelError
from demiglace.methods.base import TrainingProgress
from demiglace.models.layer_stack import layer_stack
from demiglace.signals.capture import capture
from demiglace.signals.request import SignalRequest, hidden_request
from demiglace.tasks.regression import REGRESSION
from demiglace.training import diagnostics
from demiglace.training.diagnostics import gradient_norms, imbalance_warning, loss_shares
from demiglace.training.loop import Loop
from training_kit import make_loop, objective_of, random_examples, teacher_and_student

ROWS = 40
START = TrainingProgress(seed=0, epoch=0, step=0)


def loop_of(directory: Path, method: str = "rail-kd-l", options: dict | None = None, rows=None, **settings) -> Loop:
    teacher, student = teacher_and_student()
    objective, source = objective_of(method, options or {}, teacher, student)
    return make_loop(directory, objective, source, rows or random_examples(ROWS), **settings)


def records(directory: Path, kind: str) -> list[dict]:
    lines = (directory / "log.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


# shares and norms


def test_shares_are_of_the_weighted_terms():
    objective, _ = objective_of("rail-kd-l", {"task_weight": 0.5, "kd_weight": 0.3, "layer_weight": 0.2}, *pair())
    assert loss_shares(objective, [2.0, 10.0, 5.0]) == pytest.approx({"task": 0.2, "kd": 0.6, "layers": 0.2})
    assert loss_shares(objective, [0.0, 0.0, 0.0]) == {"task": 0, "kd": 0, "layers": 0}


def pair():
    return teacher_and_student()


def signals_of(objective, source, rows=8):
    batch = collate(random_examples(ROWS), np.arange(rows))
    return batch, source.fetch(batch)


def test_norms_equal_those_of_the_last_layers_gradients():
    objective, source = objective_of("vanilla-kd", {"task_weight": 0.25}, *pair())
    batch, signals = signals_of(objective, source)
    layer, norms = gradient_norms(objective, objective.term_values(batch, signals, START, 8.0, 8.0), 0)
    assert all(p.grad is None for p in objective.parameters())
    expected = {}
    for i, (name, weight) in enumerate({"task": 0.25, "kd": 0.75}.items()):
        objective.zero_grad()
        (weight * objective.term_values(batch, signals, START, 8.0, 8.0)[i]).backward()
        last = layer_stack(objective.student)[-1]
        expected[name] = torch.cat([p.grad.flatten() for p in last.parameters()]).norm().item()
    assert layer == 3
    assert norms == pytest.approx(expected, rel=1e-5)


def test_the_layer_is_the_last_one_that_all_terms_reach():
    objective, source = objective_of("vanilla-kd", {}, *pair())
    batch, _ = signals_of(objective, source)
    own = capture(objective.student, batch, hidden_request("mean", [2]) | SignalRequest(logits=True))
    terms = torch.stack([own.logits.square().sum(), own.states["mean", 2].square().sum()])
    layer, norms = gradient_norms(objective, terms, 0)
    assert layer == 2
    assert min(norms.values()) > 0
    embeddings = capture(objective.student, batch, hidden_request("mean", [0]) | SignalRequest(logits=True))
    terms = torch.stack([embeddings.logits.square().sum(), embeddings.states["mean", 0].square().sum()])
    layer, norms = gradient_norms(objective, terms, 0)
    assert (layer, norms["kd"]) == (3, 0.0)  # what reaches no layer decides nothing
    assert norms["task"] > 0


def test_terms_of_another_phase_have_no_norm():
    objective, source = objective_of("annealing-kd", {}, *pair())
    batch, signals = signals_of(objective, source)
    for phase, name in enumerate(("annealed", "task")):
        now = TrainingProgress(seed=0, epoch=0, step=0, phase=phase)
        values = objective.term_values(batch, signals, now, 8.0, 8.0)
        assert list(gradient_norms(objective, values, phase)[1]) == [name]


# in a run


@pytest.mark.parametrize("method", ["rail-kd-l", "distil", "none"])
def test_weights_are_bit_equal_without(method, tmp_path, monkeypatch):
    monkeypatch.setattr(diagnostics, "_STEPS_BETWEEN", 2)
    found = {}
    for mode in ("on", "off"):
        loop = loop_of(tmp_path / mode, method, diagnostics=mode)
        for module in loop._unwrapped.student.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.2
        loop.run()
        found[mode] = loop._unwrapped.state_dict()
    assert len(records(tmp_path / "on", "gradients")) == 6
    assert records(tmp_path / "off", "gradients") == []
    assert all(torch.equal(value, found["off"][key]) for key, value in found["on"].items())
    ours, theirs = (records(tmp_path / mode, "step") for mode in ("on", "off"))
    assert ours == theirs
    assert all(sum(r["shares"].values()) == pytest.approx(1) for r in ours)


def test_gradient_norms_are_measured_periodically(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnostics, "_STEPS_BETWEEN", 4)
    loop_of(tmp_path, epochs=3, log_steps=3, learning_rate=1e-5).run()  # windows end at 3, 5, 8, 10, 13, 15
    looks = records(tmp_path, "gradients")
    assert [r["step"] for r in looks] == [3, 5, 8, 13]
    assert all(set(r["terms"]) == {"task", "kd", "layers"} for r in looks)
    assert all(min(r["terms"].values()) > 0 for r in looks)
    assert {r["layer"] for r in looks} == {2}  # the last layer takes no part in RAIL's term


def test_a_resumed_run_has_the_same_diagnostics(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnostics, "_STEPS_BETWEEN", 2)
    loop_of(tmp_path / "whole").run()
    cut_off = loop_of(tmp_path / "parts")
    cut_off._resume()
    cut_off._epoch(0)
    loop_of(tmp_path / "parts").run()
    whole, parts = (records(tmp_path / name, "gradients") for name in ("whole", "parts"))
    assert whole == parts
    assert [r["step"] for r in whole] == [1, 2, 4, 6, 8, 10]


def test_models_without_a_layer_stack_are_measured_as_one_layer(tmp_path, monkeypatch):
    def unknown(model):
        raise ModelError("no stack")

    monkeypatch.setattr(diagnostics, "layer_stack", unknown)
    loop_of(tmp_path, "vanilla-kd", epochs=1).run()
    assert [(r["layer"], set(r["terms"])) for r in records(tmp_path, "gradients")] == [(1, {"task", "kd"})]


# messages


def messages(capsys) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith(("first steps", "warning"))]


def test_first_steps_name_every_term_and_the_temperature(tmp_path, capsys):
    loop_of(tmp_path, options={"temperature": 4.0}, log_steps=5).run()
    line = messages(capsys)[0]
    assert "task " in line
    assert "layers " in line
    assert "%, τ = 4, times τ² = 16)" in line
    shares = [float(part) for part in re.findall(r"\((\d+\.\d)%", line)]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_every_phase_has_its_first_steps(tmp_path, capsys):
    loop_of(tmp_path, "annealing-kd", log_steps=5, epochs=4).run()
    first, second = messages(capsys)
    assert ": annealed " in first
    assert ": task " in second
    assert "(100.0%)" in second


def test_regression_terms_show_no_temperature(tmp_path, capsys):
    teacher, student = teacher_and_student(regression=True)
    objective, source = objective_of("vanilla-kd", {}, teacher, student, REGRESSION)
    make_loop(tmp_path, objective, source, random_examples(ROWS, regression=True), log_steps=5).run()
    (line,) = messages(capsys)
    assert "τ" not in line


def test_a_term_of_zero_gives_a_warning(tmp_path, capsys):
    loop_of(tmp_path, rows=random_examples(ROWS, unlabelled=ROWS), log_steps=5).run()
    assert "warning: task is 0 in the first steps and has no gradient, so it trains nothing." in messages(capsys)


def test_a_weight_rising_from_zero_gives_no_warning(tmp_path, capsys):
    loop_of(tmp_path, "continuation-kd", log_steps=1).run()
    (line,) = messages(capsys)
    assert "task" in line


def test_a_dominating_term_gives_a_warning(tmp_path, capsys):
    loop_of(tmp_path, options={"layer_weight": 1e5}, log_steps=5).run()
    _, warning = messages(capsys)
    assert warning.startswith("warning: the gradient of layers is ")
    assert warning.endswith("change their weights.")


def test_a_small_loss_with_a_gradient_is_no_warning(tmp_path, capsys):
    """Shares of the loss mislead: the KL of a truncated student is near 0, and its gradient need not be."""
    loop_of(tmp_path, "vanilla-kd", log_steps=5, learning_rate=1e-6).run()
    (line,) = messages(capsys)
    assert records(tmp_path, "step")[0]["shares"]["kd"] < 0.01
    assert line.startswith("first steps: ")


@pytest.mark.parametrize(
    ("parts", "warned"),
    [({"a": 29.0, "b": 1.0}, False), ({"a": 31.0, "b": 1.0}, True), ({"a": 1.0, "b": 0.0}, False), ({}, False)],
)
def test_ratio_of_norms_that_gives_a_warning(parts, warned):
    assert (imbalance_warning(parts) is not None) == warned


def test_collapse_gives_one_warning(tmp_path, capsys):
    loop = loop_of(tmp_path, options={"projection": "per-layer", "trained": "neither"}, log_steps=1)
    with torch.no_grad():
        loop._unwrapped.terms[2].projections.student.weight.fill_(1.0)  # every feature on one line
    loop.run()
    warnings = [line for line in messages(capsys) if "nearly equal" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: layers.feature_variance is ")


def test_one_row_gives_no_collapse_warning(tmp_path, capsys):
    loop_of(tmp_path, batch_tokens=1, log_steps=1).run()
    assert not [line for line in messages(capsys) if "nearly equal" in line]


def test_features_without_agreement_give_a_warning(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(diagnostics, "_AGREEMENT_STEPS", 3)
    options = {"projection": "per-layer", "start": "random", "trained": "neither"}
    loop_of(tmp_path / "unrelated", options=options, log_steps=1).run()
    assert [line for line in messages(capsys) if "layers.centered_cosine is" in line]
    loop_of(tmp_path / "matched", options=options | {"start": "matched"}, log_steps=1).run()
    assert not [line for line in messages(capsys) if "layers.centered_cosine is" in line]


def test_a_single_term_is_not_printed(tmp_path, capsys):
    loop_of(tmp_path, "none", log_steps=5).run()
    assert messages(capsys) == []
    assert records(tmp_path, "step")[0]["shares"] == {"task": 1.0}


def test_diagnostics_can_be_disabled(tmp_path, capsys):
    loop_of(tmp_path, options={"layer_weight": 1e5}, diagnostics="off").run()
    assert messages(capsys) == []
    assert records(tmp_path, "gradients") == []


def test_a_model_with_only_a_trained_head_is_measured(tmp_path):
    teacher, student = teacher_and_student()
    objective, source = objective_of("vanilla-kd", {}, teacher, student)
    for name, parameter in objective.student.named_parameters():
        parameter.requires_grad_("classifier" in name)
    make_loop(tmp_path, objective, source, random_examples(ROWS), log_steps=2).run()
    assert all(min(r["terms"].values()) > 0 for r in records(tmp_path, "gradients"))


def test_features_of_an_inactive_term_are_not_checked(tmp_path):
    loop_of(tmp_path, "rail-balanced", log_steps=1, epochs=2).run()
    steps = records(tmp_path, "step")
    assert "layers.centered_cosine" in steps[0]["diagnostics"]
    assert steps[-1]["diagnostics"] == {}
