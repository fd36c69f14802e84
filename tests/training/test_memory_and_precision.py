"""Gradient checkpointing, fp16 and --max-steps: the same training with less memory, in another format, or shorter."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demiglace.config.training import TrainConfig, check_options
from demiglace.data.batching import collate
from demiglace.errors import ConfigError, DivergedError, ModelError
from demiglace.methods.base import TrainingProgress
from demiglace.models import compilation
from demiglace.models.compilation import compile_layers, uncompile_layers
from demiglace.models.layer_stack import layer_stack
from demiglace.models.precision import choose_precision
from demiglace.training.diagnostics import gradient_norms
from demiglace.training.loop import Loop, TrainerState
from demiglace.training.prepare import prepare_model
from training_kit import make_loop, objective_of, random_examples, teacher_and_student

ROWS = 40  # 5 steps an epoch


def trained(
    directory: Path, method: str = "rail-kd-l", arch: str = "bert", precision: str = "fp32", **options: Any
) -> tuple[dict[str, Tensor], TrainerState]:
    """Return the student's weights after a run, and the trainer state."""
    teacher, student = teacher_and_student(arch=arch)
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1  # drawn again in a recomputed layer
    objective, source = objective_of(method, {}, teacher, student)
    objective.precision = precision
    prepare_model(student, TrainConfig(gradient_checkpointing=options.get("gradient_checkpointing", False)))
    state = make_loop(directory, objective, source, random_examples(ROWS), **options).run()
    return student.state_dict(), state


def records(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "log.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == "step"]


# terms on hidden states, and on queries, keys and values, which are captured inside of the layers
@pytest.mark.parametrize(
    ("method", "arch"), [("rail-kd-l", "bert"), ("minilmv2", "llama"), ("rail-kd-l", "gpt2"), ("minilm", "deberta-v2")]
)
def test_gradient_checkpointing_changes_no_weight_beyond_rounding(method: str, arch: str, tmp_path: Path) -> None:
    options = {"epochs": 4, "max_steps": 17}
    plain, _ = trained(tmp_path / "plain", method, arch, **options)
    less, _ = trained(tmp_path / "less", method, arch, gradient_checkpointing=True, **options)
    # on some processors GPT-2's gradients differ in the last bit, and its weights by up to 1e-4 after 17 steps
    assert all(torch.allclose(less[name], weight, atol=1e-3) for name, weight in plain.items())


def test_compiled_layers_train_as_others_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the graphs of torch.compile, and without its compiler, which takes a minute."""
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    teacher, student = teacher_and_student()
    objective, source = objective_of("rail-kd-l", {}, teacher, student)
    plain = copy.deepcopy(objective)
    for model in (teacher, student):
        compile_layers(model)
    batch = collate(random_examples(8), np.arange(8))
    gradients = []
    for each in (objective, plain):
        terms = each.eval().term_values(batch, source.fetch(batch), TrainingProgress(0, 0, 0), 8.0, 8.0)
        norms = gradient_norms(each, terms, 0)[1]
        terms.sum().backward()
        gradients.append({name: p.grad for name, p in each.student.named_parameters()} | norms)
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-3, atol=1e-5, msg=name)
    uncompile_layers(student)
    assert all("forward" not in vars(layer) for layer in layer_stack(student))


def test_gradient_checkpointing_keeps_fewer_activations() -> None:
    def kept(checkpointing: bool) -> int:
        """Count the numbers that a forward pass keeps for its backward pass."""
        _, student = teacher_and_student(layers=3)
        prepare_model(student.train(), TrainConfig(gradient_checkpointing=checkpointing))
        weights, seen = {p.data_ptr() for p in student.parameters()}, {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in weights:
                seen[tensor.data_ptr()] = tensor.numel()
            return tensor

        ids = torch.randint(5, 60, (4, 16))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = student(input_ids=ids, labels=torch.zeros(4, dtype=torch.long)).loss
        loss.backward()
        return sum(seen.values())

    assert kept(True) < 0.5 * kept(False)


def test_a_model_without_gradient_checkpointing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreTrainedModel, "supports_gradient_checkpointing", False)
    _, student = teacher_and_student()
    monkeypatch.setattr(type(student), "supports_gradient_checkpointing", False)
    with pytest.raises(ModelError, match="--gradient-checkpointing was given, and BertForSeq"):
        prepare_model(student, TrainConfig(gradient_checkpointing=True))


def test_max_steps_ends_the_last_epoch_early_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, state = trained(tmp_path / "full", max_steps=8)
    assert (state.step, state.rows, len(state.history)) == (8, 64, 2)
    log = records(tmp_path / "full")
    assert [r["step"] for r in log] == list(range(1, 9)) and log[-1]["lr"] == pytest.approx(1e-3 / 8)
    original = Loop._step

    def interrupted(loop: Loop, *args: Any) -> None:
        if loop.state.step == 6:
            raise KeyboardInterrupt
        original(loop, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Loop, "_step", interrupted)
        trained(tmp_path / "parts", max_steps=8)
    parts, _ = trained(tmp_path / "parts", max_steps=8)
    assert all(torch.equal(parts[name], weight) for name, weight in full.items())
    assert [r["step"] for r in records(tmp_path / "parts")] == list(range(1, 9))


def test_max_steps_below_an_epoch_and_at_its_end(tmp_path: Path) -> None:
    assert trained(tmp_path / "below", max_steps=3)[1].step == 3
    _, state = trained(tmp_path / "end", max_steps=10, epochs=1)
    assert (state.step, len(state.history)) == (10, 2)


def test_fp16_trains_as_fp32_does_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where the commands refuse it: autocast and loss scaling are PyTorch's on both."""
    exact, _ = trained(tmp_path / "exact")
    full, state = trained(tmp_path / "fp16", precision="fp16")
    assert state.skipped_steps == 0 and any(not torch.equal(full[k], exact[k]) for k in full)
    for a, b in zip(records(tmp_path / "exact"), records(tmp_path / "fp16"), strict=True):
        assert (b["loss"], b["gradient_norm"]) == pytest.approx((a["loss"], a["gradient_norm"]), rel=0.05)
    monkeypatch.setattr(Loop, "_is_save_due", lambda loop: loop.state.step == 6)
    again, _ = trained(tmp_path / "again", precision="fp16")
    resumed, _ = trained(tmp_path / "again", precision="fp16")  # from step 6
    assert all(torch.equal(again[k], full[k]) and torch.equal(resumed[k], full[k]) for k in full)


def test_fp16_skips_a_step_whose_gradients_overflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Loop.__init__

    def scaled(loop: Loop, *args: Any, **options: Any) -> None:
        original(loop, *args, **options)
        loop._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, backoff_factor=2.0**-8)  # usually a half

    monkeypatch.setattr(Loop, "__init__", scaled)
    with pytest.raises(DivergedError, match="gradient norm"):
        trained(tmp_path / "never", precision="fp32", learning_rate=1e30)
    _, state = trained(tmp_path / "run", precision="fp16", epochs=6)
    skipped = [r["step"] for r in records(tmp_path / "run") if r["gradient_norm"] is None]
    assert len(skipped) == state.skipped_steps > 6 and skipped == list(range(1, len(skipped) + 1))


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="--precision fp16 was given, which is for GPUs, and PyTorch finds no GPU"):
        choose_precision("fp16", 384, torch.device("cpu"))
    assert choose_precision("fp16", 384, torch.device("cuda")) == "fp16"
    with pytest.raises(ConfigError, match="--sharding full was given with --precision fp16"):
        check_options(TrainConfig(precision="fp16", sharding="full"))
