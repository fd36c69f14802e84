"""The training loop: optimization, early stopping, saved epochs, and damaged files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from demiglace.config.training import TrainConfig, check_options
from demiglace.errors import ConfigError, DivergedError, RunError
from demiglace.training.accelerator import make_accelerator
from demiglace.training.checkpoint import load_checkpoint, save_checkpoint
from demiglace.training.loop import Loop, ModelSelection
from training_kit import make_loop, objective_of, random_examples, teacher_and_student

ROWS = 40


def trained(
    directory: Path, selection: ModelSelection | None = None, **options: object
) -> tuple[torch.nn.Module, object]:
    """Return an objective trained with RAIL-KD_l, and the trainer state."""
    teacher, student = teacher_and_student()
    objective, source = objective_of("rail-kd-l", {}, teacher, student)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loop = make_loop(directory, objective, source, random_examples(ROWS), selection, **options)
    return objective, loop.run()


def records(directory: Path, kind: str) -> list[dict]:
    lines = (directory / "log.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


def scores(values: list[float]) -> ModelSelection:
    """Return a selection whose metric has these values, epoch by epoch."""
    left = list(values)
    return ModelSelection(lambda model: {"score": left.pop(0)}, "score", higher_is_better=True)


def test_microbatches_do_not_change_the_result(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole", batch_tokens=10_000)
    parts, _ = trained(tmp_path / "parts", batch_tokens=24)
    for key, weight in whole.state_dict().items():  # AdamW makes much of small differences where a gradient is near 0
        torch.testing.assert_close(parts.state_dict()[key], weight, rtol=1e-2, atol=2e-4)


def test_log_has_every_step_and_epoch_and_mapping(tmp_path: Path) -> None:
    trained(tmp_path, log_steps=2)
    assert [r["step"] for r in records(tmp_path, "step")] == [2, 4, 5, 7, 9, 10]
    assert [r["epoch"] for r in records(tmp_path, "epoch")] == [0, 1]
    mappings = records(tmp_path, "mapping")
    assert [(m["epoch"], m["step"], m["term"]) for m in mappings] == [(0, 0, "layers"), (1, 5, "layers")]
    assert all([s for s, _ in m["pairs"]] == [1, 2] for m in mappings)
    step = records(tmp_path, "step")[0]
    assert set(step["terms"]) == {"task", "kd", "layers"}
    assert step["loss"] == pytest.approx(sum(step["terms"].values()) / 3, rel=1e-4)
    assert step["diagnostics"]["layers.feature_variance"] > 0


def test_keeps_the_best_epoch(tmp_path: Path) -> None:
    objective, state = trained(tmp_path, scores([0.2, 0.9, 0.5]), epochs=3)
    assert (state.best_epoch, state.best_value) == (1, 0.9)
    best, position = load_checkpoint(tmp_path / "checkpoints" / "best-1.safetensors")
    assert position == {"epoch": 1, "value": 0.9}
    last = objective.student.state_dict()
    assert any(not torch.equal(best[k], last[k]) for k in best)


def test_short_epochs_write_no_checkpoint(tmp_path: Path) -> None:
    trained(tmp_path, scores([0.2, 0.5, 0.9, 0.3]), epochs=4, checkpoint_seconds=1e9)
    assert [f.name for f in (tmp_path / "checkpoints").iterdir()] == ["best-2.safetensors"]
    _, state = trained(tmp_path, scores([0.2, 0.5, 0.9, 0.3]), epochs=4, checkpoint_seconds=0)  # from the start
    assert (state.best_epoch, len(state.history)) == (2, 4)
    assert {f.name for f in (tmp_path / "checkpoints").iterdir()} == {"best-2.safetensors", "last.safetensors"}


def test_the_best_epoch_of_the_last_checkpoint_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loop, "_is_save_due", lambda loop: loop.state.step == 5)  # the end of the first epoch
    with pytest.raises(IndexError):
        trained(tmp_path, scores([0.2, 0.9]), epochs=3)
    home = tmp_path / "checkpoints"
    assert {f.name for f in home.iterdir()} == {"best-0.safetensors", "best-1.safetensors", "last.safetensors"}
    kept, _ = load_checkpoint(home / "best-0.safetensors")
    _, state = trained(tmp_path, scores([0.1, 0.1]), epochs=3)  # as where a GPU does not repeat itself to the last bit
    assert state.best_epoch == 0
    assert all(torch.equal(t, kept[k]) for k, t in load_checkpoint(home / "best-0.safetensors")[0].items())


class Weights:
    """A selection whose metric has these values, which records the student's weights of each epoch."""

    def __init__(self, values: list[float]):
        self.values, self.kept = list(values), list[dict[str, torch.Tensor]]()

    def selection(self) -> ModelSelection:
        return ModelSelection(self.evaluate, "score", higher_is_better=True)

    def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
        self.kept.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"score": self.values[len(self.kept) - 1]}


@pytest.mark.parametrize(("starts_from", "epoch"), [("best", 1), ("last", 2)])
def test_a_later_phase_loads_an_epoch_of_the_previous_one_and_resets_the_optimizer(
    starts_from: str, epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Annealing-KD has 3 of 4 epochs in its first phase; the second is the best."""
    teacher, student = teacher_and_student()
    objective, source = objective_of("annealing-kd", {}, teacher, student)
    weights, begun = Weights([0.2, 0.9, 0.5, 0.1]), []
    loop = make_loop(
        tmp_path, objective, source, random_examples(ROWS), weights.selection(), epochs=4, starts_from=starts_from
    )
    original = Loop._step

    def noted(self: Loop, *args: Any) -> None:
        if self.state.step == 15:
            begun.append(({k: v.clone() for k, v in student.state_dict().items()}, len(self._optimizer.state)))
        original(self, *args)

    monkeypatch.setattr(Loop, "_step", noted)
    state = loop.run()
    (start, moments), expected = begun[0], weights.kept[epoch]
    assert all(torch.equal(start[k], expected[k]) for k in expected)
    assert moments == 0
    assert (state.best_epoch, state.best_value) == (3, 0.1)  # of the last phase
    [record] = records(tmp_path, "phase")
    assert (record["epoch"], record["starts_from_epoch"]) == (3, epoch)


def test_each_phase_has_its_own_best_epoch(tmp_path: Path) -> None:
    teacher, student = teacher_and_student()
    method = tmp_path / "method.yaml"
    method.write_text("terms: [{term: kd}]\nphases: [1, 1, 1]\nstarts_from: best")
    objective, source = objective_of(str(method), {}, teacher, student)
    weights = Weights([0.9, 0.8, 0.4, 0.3, 0.1, 0.2])
    loop = make_loop(
        tmp_path, objective, source, random_examples(ROWS), weights.selection(), epochs=6, starts_from="best"
    )
    assert loop.run().best_epoch == 5
    assert [r["starts_from_epoch"] for r in records(tmp_path, "phase")] == [0, 2]


def test_lower_can_be_better(tmp_path: Path) -> None:
    values = [0.5, 0.2, 0.9]
    selection = ModelSelection(lambda model: {"error": values.pop(0)}, "error", higher_is_better=False)
    _, state = trained(tmp_path, selection, epochs=3)
    assert (state.best_epoch, state.best_value) == (1, 0.2)


def test_stops_early_without_improvement(tmp_path: Path) -> None:
    _, state = trained(tmp_path, scores([0.5, 0.4, 0.3, 0.9]), epochs=4, patience=2)
    assert len(state.history) == 3
    assert state.stopped


def test_divergence_names_step_and_rows_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    teacher, student = teacher_and_student()
    objective, source = objective_of("vanilla-kd", {}, teacher, student)
    loop = make_loop(tmp_path, objective, source, random_examples(ROWS), epochs=2)
    original = objective.forward

    def poisoned(*args: object) -> tuple:
        loss, terms = original(*args)
        return (loss * float("nan"), terms) if loop.state.step == 6 else (loss, terms)  # the seventh step

    objective.forward = poisoned
    with pytest.raises(DivergedError, match=r"step 7 has loss nan .*rows\.csv:\d+.*lower --learning-rate"):
        loop.run()
    tensors, position = load_checkpoint(tmp_path / "checkpoints" / "last.safetensors")
    assert position["step"] == 6  # six steps were done when the seventh failed
    assert all(torch.isfinite(t).all() for t in tensors.values())


def test_no_device_synchronization_within_a_log_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Branching on a tensor, or .item(), in every step would stall a GPU."""
    counts = {"step": 0}
    original = torch.Tensor.item

    def counted(tensor: torch.Tensor) -> object:
        counts["step"] += 1
        return original(tensor)

    monkeypatch.setattr(torch.Tensor, "item", counted)
    trained(tmp_path, log_steps=1000, epochs=1, checkpoint_seconds=1e9)
    assert counts["step"] <= 5  # once at the epoch's end, and not once a step and parameter


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_checkpoint_is_an_error(tmp_path: Path, damage: str) -> None:
    trained(tmp_path, epochs=1)
    file = tmp_path / "checkpoints" / "last.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"last\.safetensors is damaged .*remove .*checkpoints and repeat"):
        trained(tmp_path, epochs=1)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.safetensors"
    save_checkpoint(file, {"a": torch.ones(3)}, {"step": 1})

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("demiglace.training.checkpoint.save_file", full)
    with pytest.raises(RunError, match=r"No space left on device.*free disk space"):
        save_checkpoint(file, {"a": torch.zeros(3)}, {"step": 2})
    tensors, position = load_checkpoint(file)
    assert position == {"step": 1}
    assert tensors["a"].tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == [file]


def test_unknown_tracker_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        make_accelerator(TrainConfig(report_to=("tensorbord",)), tmp_path, {})


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, epochs=1)
    teacher, student = teacher_and_student(layers=2)
    objective, source = objective_of("rail-kd-l", {}, teacher, student)
    with pytest.raises((RunError, RuntimeError)):
        make_loop(tmp_path, objective, source, random_examples(ROWS), epochs=1).run()


@pytest.mark.parametrize("best", [True, False])
def test_the_last_epoch_is_kept_without_a_selection(best: bool, tmp_path: Path) -> None:
    falling = iter([0.9, 0.5, 0.4])
    teacher, student = teacher_and_student()
    objective, source = objective_of("vanilla-kd", {}, teacher, student)
    selection = ModelSelection(lambda _: {"accuracy": next(falling)}, "accuracy")
    loop = make_loop(tmp_path, objective, source, random_examples(16), selection, epochs=3, load_best_model_at_end=best)
    state = loop.run()
    assert state.best_epoch == (0 if best else 2)
    kept, now = loop.best_weights(), loop.student().state_dict()
    assert all(torch.equal(kept[name], value) for name, value in now.items()) != best


def test_patience_needs_a_best_epoch() -> None:
    with pytest.raises(ConfigError, match="--patience 2 waits for a better epoch"):
        check_options(TrainConfig(patience=2, load_best_model_at_end=False))
