"""Properties that every method must have. A new method only needs a row in SETTINGS."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from demiglace.config.options import build, flatten
from demiglace.data.batching import collate
from demiglace.data.tokenize import TokenizedSplit
from demiglace.methods.base import TrainingProgress
from demiglace.methods.registry import METHODS, find_method, method_options
from demiglace.models.shape import ModelShape
from demiglace.signals.hidden_state_cache import CacheKey, SignalCache, fill_cache
from demiglace.signals.online import SignalSource
from demiglace.signals.request import SignalRequest
from demiglace.signals.shard_store import prepare_cache
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.regression import REGRESSION
from demiglace.training import loop
from demiglace.training.loop import ModelSelection
from demiglace.training.objective import Objective
from demiglace.training.schedule import phase_ends
from training_kit import loss_of, make_loop, objective_of, random_examples, teacher_and_student

# method -> option settings for which all tests run; the first is the default
SETTINGS: dict[str, list[dict]] = {
    "none": [{}],
    "vanilla-kd": [{}, {"temperature": 10.0, "task_weight": 0.2}],
    "pseudo-labels": [{}, {"task_weight": 0.0}],
    "pkd": [{}, {"mapping": "last", "final_layer": True, "reduction": "sum"}],
    "alp-kd": [{}, {"final_layer": True}],
    "rail-kd-l": [
        {},
        {"projection": "per-layer", "reduction": "sum"},
        {"projection": "per-layer", "start": "random"},
        {"sampling": "step", "projection": "shared", "trained": "student"},
        {"sampling": "block", "projection": "none", "final_layer": True, "squared": False},
        {"sampling": "once", "project_teacher": False, "layer_weights": [1.0, 0.5], "pooling": "first"},
        {"count": 1, "pooling": "tokens"},
    ],
    "rail-balanced": [{}, {"layers_until": 1.0, "final_layer": True, "pooling": "first", "sampling": "step"}],
    "last-layer-kd": [{}, {"pooling": "tokens"}],
    "rail-kd-c": [{}, {"size": 16, "trained": "neither", "final_layer": True}],
    "distil": [{}, {"pooling": "mean", "kd_weight": 1.0}],
    "ckd": [{}, {"overlapping": True, "final_layer": True, "pooling": "first"}],
    "annealing-kd": [{}, {"tau_max": 3, "annealing_share": 0.8}],
    "mate-kd": [{}, {"mask_share": 1.0, "generator_lr": 1e-2, "generator_steps": 1, "student_steps": 2}],
    "combined-kd": [{}, {"train_generator": False, "tau_max": 3}],
    "rail-mate": [{}, {"projection": "concatenated", "generator_lr": 1e-2, "student_steps": 12}],
    "universal-kd": [{}, {"gamma": 0.8, "final_layer": True, "temperature": 2.0}],
    "rail-annealing": [{}, {"projection": "concatenated", "sampling": "block"}],
    "continuation-kd": [{}, {"margin": 0.0, "tau_max": 2}],
    "jsd": [{}, {"beta": 0.1}],
    "reverse-kl": [{}, {"temperature": 2.0}],
    "skew-kl": [{}, {"skew": 0.5}],
    "skew-reverse-kl": [{}, {"skew": 0.0}],
    "tinybert": [{}, {"attention_on": "probabilities", "task_weight": 0.5, "temperature": 2.0}, {"attention_on": "kl"}],
    "minilm": [{}, {"attention_weight": 0.5, "value_weight": 2.0}],
    "minilmv2": [{}, {"relation_heads": 16, "teacher_layer": 5}],
}
SURE = {"continuation-kd": 5}  # whose labels come last and slowly: 50 steps do not lead from one to the other
CASES = [pytest.param(name, o, id=f"{name}-{i}") for name, rows in SETTINGS.items() for i, o in enumerate(rows)]
battery = pytest.mark.parametrize(("name", "options"), CASES)


def test_every_method_is_in_the_battery() -> None:
    assert set(SETTINGS) == set(METHODS)


def starts(objective: Objective) -> list[TrainingProgress]:
    """Return the first step of each phase of the method, one epoch each."""
    return [TrainingProgress(seed=0, epoch=phase, step=phase, phase=phase) for phase in range(len(objective.phases))]


def phase_loss(
    objective: Objective, source: SignalSource, examples: TokenizedSplit, parts: list[np.ndarray], now: TrainingProgress
) -> float:
    """Return the loss of one step over all examples in these microbatches; accumulate its gradients."""
    counts = float(len(examples)), float(max(1, examples.labelled.sum()))
    total = 0.0
    for rows in parts:
        batch = collate(examples, rows)
        loss, _ = loss_of(objective, source, batch, now, *counts)
        loss.backward()
        total += loss.item()
    return total


def gradients(objective: Objective, source: SignalSource, examples: TokenizedSplit, parts: list[np.ndarray]) -> tuple:
    """Return loss and gradients of a step in each phase, summed over the phases."""
    objective.zero_grad()
    total = sum(phase_loss(objective, source, examples, parts, now) for now in starts(objective))
    return total, {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}


@battery
@pytest.mark.parametrize("regression", [False, True])
def test_overfits_eight_rows(
    name: str, options: dict, regression: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = teacher_and_student(regression)
    set_dropout(student, 0.0)
    with torch.no_grad():  # a confident teacher, so that the lowest loss is near 0
        teacher.classifier.weight.mul_(5 if regression else SURE.get(name, 30))
    examples = random_examples(8, regression=regression)
    task = REGRESSION if regression else CLASSIFICATION
    objective, source = objective_of(name, options, teacher, student, task)
    # the teacher's predictions as labels, so that its signals and the labels agree
    labels = answers(teacher, examples, regression)
    examples = replace(examples, labels=labels)
    epochs = (50 if name in SURE else 25) * len(objective.phases)
    ends = phase_ends(epochs, objective.phases)
    finals = [
        replace(s, epoch=e - 1, phase_epoch=e - 1, phase_epochs=e, fraction=1.0)
        for s, e in zip(starts(objective), ends, strict=True)
    ]
    before = [phase_loss(objective, source, examples, [np.arange(8)], now) for now in finals]
    after, seen = [], iter(range(1, epochs + 1))

    def at_the_end_of_a_phase(model: torch.nn.Module) -> dict[str, float]:
        if next(seen) in ends:
            after.append(phase_loss(objective, source, examples, [np.arange(8)], finals[len(after)]))
            objective.zero_grad()
        return {}

    objective.zero_grad()
    settings = {"epochs": epochs, "learning_rate": 6e-3, "warmup_ratio": 0.0}
    # checkpoints, log lines and progress bars would take most of the time
    settings |= {"checkpoint_seconds": 1e9, "log_steps": epochs}
    monkeypatch.setattr(loop, "save_checkpoint", lambda *_: None)
    monkeypatch.setenv("DEMIGLACE_PROGRESS", "0")
    make_loop(tmp_path, objective, source, examples, ModelSelection(at_the_end_of_a_phase), **settings).run()
    assert len(after) == len(before)
    assert all(a < 0.5 * b for a, b in zip(after, before, strict=True)), (before, after)
    if not regression:
        batch = collate(examples, np.arange(8))
        objective.eval()
        assert (objective.student(**batch.inputs).logits.argmax(-1).numpy() == labels).all()


def answers(teacher: torch.nn.Module, examples: TokenizedSplit, regression: bool) -> np.ndarray:
    with torch.no_grad():
        logits = teacher(**collate(examples, np.arange(len(examples))).inputs).logits
    return logits.squeeze(-1).numpy() if regression else logits.argmax(-1).numpy()


def set_dropout(model: torch.nn.Module, probability: float) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability


@battery
def test_requests_all_signals_that_it_uses_and_teacher_gets_no_gradient(name: str, options: dict) -> None:
    teacher, student = teacher_and_student()
    objective, source = objective_of(name, options, teacher, student)
    batch = collate(random_examples(8), np.arange(8))
    captured = SignalRequest()
    for now in starts(objective):
        signals = source.fetch(batch, now.phase)  # the online teacher tells just what was declared
        captured |= SignalRequest(signals.logits is not None, frozenset(signals.states), frozenset(signals.attention))
        loss, _ = loss_of(objective, source, batch, now, 8.0, 8.0)
        objective.zero_grad()
        loss.backward()
        assert all(p.grad is None for p in teacher.parameters())
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    assert captured == objective.requests.teacher


@battery
def test_online_equals_cached(name: str, options: dict, tmp_path: Path) -> None:
    teacher, student = teacher_and_student()
    objective, online = objective_of(name, options, teacher, student)
    if objective.requests.teacher.is_empty:
        pytest.skip("uses no signals of the teacher")
    if not objective.requests.teacher.is_cacheable:
        pytest.skip("needs the signals of every token, which are never cached")
    examples = random_examples(20)
    losses = {}
    for dtype in ("float32", "float16"):
        key = CacheKey.of("t", ModelShape.of(teacher), examples, objective.requests.teacher, dtype, "fp32")
        prepare_cache(tmp_path / dtype, key)
        fill_cache(tmp_path / dtype, key, teacher, examples)
        losses[dtype], _ = gradients(objective, SignalCache(tmp_path / dtype, key), examples, [np.arange(20)])
    expected, _ = gradients(objective, online, examples, [np.arange(20)])
    assert losses["float32"] == pytest.approx(expected, rel=1e-5)
    assert losses["float16"] == pytest.approx(expected, rel=2e-3)


@battery
def test_one_batch_equals_accumulated_microbatches(name: str, options: dict) -> None:
    teacher, student = teacher_and_student()
    objective, source = objective_of(name, options, teacher, student)
    examples = random_examples(8, unlabelled=3)
    uninterrupted, whole_gradients = gradients(objective, source, examples, [np.arange(8)])
    parts, parts_gradients = gradients(objective, source, examples, [np.array([i]) for i in range(8)])
    assert parts == pytest.approx(uninterrupted, rel=1e-4)  # τ² = 400 makes rounding larger too
    assert parts_gradients.keys() == whole_gradients.keys()
    for key, gradient in whole_gradients.items():
        torch.testing.assert_close(parts_gradients[key], gradient, rtol=1e-3, atol=1e-5)


@battery
def test_rows_without_labels_use_only_the_teachers_terms(name: str, options: dict) -> None:
    teacher, student = teacher_and_student()
    with torch.no_grad():  # embeddings are the same in both, which leaves a term on them nothing to do
        student.get_input_embeddings().weight.mul_(1.1)
    objective, source = objective_of(name, options, teacher, student)
    examples = random_examples(6, unlabelled=6)
    batch = collate(examples, np.arange(6))
    total = torch.zeros(len(objective.names))
    for now in starts(objective):
        total += loss_of(objective, source, batch, now, 6.0, 1.0)[1]
    values = dict(zip(objective.names, total.tolist(), strict=True))
    assert values.pop("task", 0.0) == 0.0
    assert all(v > 0 for v in values.values())


@battery
def test_resumed_equals_uninterrupted(name: str, options: dict, tmp_path: Path) -> None:
    def train(directory: Path, stop_at: int | None = None, seconds: float = 0.0) -> dict[str, torch.Tensor]:
        teacher, student = teacher_and_student()
        set_dropout(student, 0.1)
        objective, source = objective_of(name, options, teacher, student)
        loop = make_loop(directory, objective, source, random_examples(40), checkpoint_seconds=seconds)
        if stop_at is not None:
            loop._check_finite = stopper(loop, stop_at)
            with pytest.raises(KeyboardInterrupt):
                loop.run()
        else:
            loop.run()
        return {k: v.clone() for k, v in objective.state_dict().items()}

    uninterrupted = train(tmp_path / "whole", seconds=1e9)
    train(tmp_path / "cut", stop_at=3)  # of 10 steps; where there are two phases the second begins after 5
    train(tmp_path / "cut", stop_at=8)
    resumed = train(tmp_path / "cut")
    assert all(torch.equal(uninterrupted[k], resumed[k]) for k in uninterrupted)


def stopper(loop: object, step: int):
    original = loop._check_finite

    def stop(*args: object) -> None:
        original(*args)
        if loop.state.step == step:
            raise KeyboardInterrupt

    return stop


@battery
def test_options_round_trip(name: str, options: dict) -> None:
    built = method_options(name, options)
    assert build(find_method(name).options, flatten(built)) == built
    assert built.method() == method_options(name, flatten(built)).method()


@battery
def test_filler_rows_have_no_effect(name: str, options: dict) -> None:
    teacher, student = teacher_and_student()
    objective, source = objective_of(name, options, teacher, student)
    batch = collate(random_examples(4), np.arange(4), weight=0.0)
    for now in starts(objective):
        loss, _ = loss_of(objective, source, batch, now, 4.0, 4.0)
        assert loss.item() == 0.0
