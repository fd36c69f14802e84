"""The figures of docs/scale.md equal those of the functions behind `demiglace plan`."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from transformers import RobertaConfig

from demiglace.config.training import TrainConfig
from demiglace.costs.estimate import CostInputs, Estimate, Speed, estimate
from demiglace.methods.registry import build_method
from demiglace.models.from_config import shape_of_config
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import truncate_config

DOC = (Path(__file__).parent.parent / "docs" / "scale.md").read_text("utf-8")
ROWS, VALIDATION = 392_702, 9_815


def lengths(rows: int) -> np.ndarray:
    """Tokens of MNLI's rows as the document says: log-normal, cut at 128, without chance."""
    return np.exp(3.611 + 0.447 * norm.ppf((np.arange(rows) + 0.5) / rows)).round().clip(8, 128).astype(np.int64)


def shapes() -> tuple[ModelShape, ModelShape]:
    """RoBERTa-large for three classes, and six layers of it."""
    config = RobertaConfig(
        vocab_size=50_265,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=3,
    )
    return shape_of_config(config), shape_of_config(truncate_config(config, (0, 4, 8, 12, 16, 20)))


def planned(speed: float = 1.0, devices: int = 1) -> Estimate:
    setup = CostInputs(
        build_method("rail-kd-l", {}),
        TrainConfig(epochs=3),
        precision="bf16",
        pass_tokens=65_536,
        devices=devices,
    )
    rows = {"train": lengths(ROWS), "validation": lengths(VALIDATION)}
    return estimate(*shapes(), rows, setup, Speed(speed, speed))


def rows_of(document: str) -> dict[str, list[str]]:
    """The cells of every table row by its first one."""
    lines = re.findall(r"^\| (.*) \|$", document, re.MULTILINE)
    return {cells[0]: cells[1:] for cells in (line.split(" | ") for line in lines)}


def test_figures_of_the_run():
    found, (teacher, student) = planned(), shapes()
    memory = found.memory
    online = found.teacher_flops + found.student_flops
    kept = memory.weights + memory.gradients + memory.moments
    expected = {
        "parameters of the teacher": f"{teacher.parameters:,}",
        "parameters of the student": f"{student.parameters:,} ({student.parameters / teacher.parameters:.1%})",
        "tokens per row": f"{found.tokens / ROWS:.1f}, with padding {found.padded_tokens / ROWS:.1f}",
        "teacher, once": f"{found.teacher_flops:.3g} FLOPs",
        "student, per epoch": f"{found.student_flops:.3g} FLOPs",
        "teacher and student online, per epoch": f"{online:.3g} FLOPs",
        "signal cache": f"{found.cache_bytes / 1e9:.1f} GB ({found.cache_bytes / ROWS:,.0f} B per row)",
        "memory of weights, gradients, moments": f"{kept / 1e9:.2f} GB",
        "activations of the largest forward pass": f"{memory.activations / 1e9:.2f} GB",
        "memory while the cache is filled": f"{memory.capture / 1e9:.2f} GB and one batch",
        "steps": f"{found.steps:,} per epoch",
    }
    shown = rows_of(DOC)
    plain = {name: value.replace("%", " %").replace("e+", "e") for name, value in expected.items()}
    assert {name: shown[name][0] for name in plain} == plain
    assert f"3 epochs are {3 * online:.3g} FLOPs".replace("e+", "e") in DOC
    assert f"{found.teacher_flops + 3 * found.student_flops:.3g}, so the cache".replace("e+", "e") in DOC


@pytest.mark.parametrize(
    ("device", "speed"),
    [
        ("H100, 40 % of its peak", 0.4 * 989e12),
        ("H100, 10 % of its peak", 0.1 * 989e12),
        ("one CPU core", 1.2e11),
    ],
)
def test_figures_of_the_time(device, speed):
    one, eight = (planned(speed, devices).seconds for devices in (1, 8))
    parts = [one.capture, one.training]
    shown = rows_of(DOC)[device]
    assert shown[0] == f"{speed:.3g}".replace("e+", "e")
    assert shown[1:3] == [f"{p:.0f} s" if p < 7200 else f"{p / 3600:.1f} h" for p in parts]
    assert shown[3:] == [hours(one.total), hours(eight.total)]


def hours(seconds: float) -> str:
    """With one figure where there is less than an hour, else one place."""
    return f"{seconds / 3600:.1g} h" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def test_the_lengths_are_those_that_the_document_names():
    logs = np.log(lengths(ROWS))
    assert "(3.611 and 0.447)" in DOC
    assert logs.mean() == pytest.approx(3.611, abs=0.005)
    assert logs.std() == pytest.approx(0.447, abs=0.01)
    assert lengths(ROWS).max() == 128
