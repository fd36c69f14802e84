"""Pooling `auto`: rows of decoders with attention sinks stay distinct, while plain means are nearly equal."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from demiglace.data.batching import collate
from demiglace.methods.base import TrainingProgress
from demiglace.methods.from_yaml import describe_method
from demiglace.methods.poolings import resolve_pooling
from demiglace.methods.registry import build_method
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import truncate_model
from demiglace.signals.capture import capture
from demiglace.signals.request import hidden_request
from factories import plant_sink, tiny_model
from training_kit import loss_of, objective_of, random_examples

WITH_POOLING = ("rail-kd-l", "rail-kd-c", "ckd", "universal-kd", "rail-mate", "rail-annealing")


def variance(pooling: str) -> float:
    """Return the variance over rows of unit-length pooled states of layer 2 of a GPT-2 with a planted sink."""
    batch = replace(collate(random_examples(24), np.arange(24)), token_type_ids=None)
    with torch.no_grad():
        signals = capture(plant_sink(tiny_model("gpt2")), batch, hidden_request(pooling, [2]))
    states = F.normalize(signals.hidden(pooling, [2])[:, 0], dim=-1)
    return float(states.var(0, unbiased=False).sum())


def test_a_sink_makes_plain_means_equal_but_not_normalized_ones() -> None:
    assert variance("mean") < 1e-3
    assert variance("normalized-mean") > 0.05
    assert variance("first") < 1e-3 < 0.05 < variance("last")


@pytest.mark.parametrize("method", ["rail-kd-l", "rail-kd-c"])
def test_default_pooling_keeps_rows_of_a_decoder_distinct(method: str) -> None:
    def diagnostics(options: dict[str, object]) -> float:
        teacher = plant_sink(tiny_model("gpt2", num_layers=6))
        objective, source = objective_of(method, options, teacher, truncate_model(teacher, (0, 2, 4)))
        batch = replace(collate(random_examples(16), np.arange(16)), token_type_ids=None)
        loss_of(objective, source, batch, TrainingProgress(0, 0, 0), 16.0, 16.0)
        return float(objective.diagnostics()["layers.feature_variance"])

    assert diagnostics({"pooling": "mean"}) < 1e-3
    assert diagnostics({}) > 0.05


@pytest.mark.parametrize(
    ("arch", "expected"), [("bert", "mean"), ("gpt2", "normalized-mean"), ("llama", "normalized-mean")]
)
@pytest.mark.parametrize("method", WITH_POOLING)
def test_auto_depends_on_the_models(method: str, arch: str, expected: str) -> None:
    shape = ModelShape.of(tiny_model(arch))
    requests = build_method(method, {}).requests(replace(shape, num_layers=2), shape)
    assert requests.student.poolings == requests.teacher.poolings == (expected,)


def test_one_causal_model_of_two_is_enough() -> None:
    encoder, decoder = ModelShape.of(tiny_model("bert")), ModelShape.of(tiny_model("gpt2"))
    assert resolve_pooling("auto", encoder, decoder) == resolve_pooling("auto", decoder, encoder) == "normalized-mean"
    assert resolve_pooling("last", decoder, decoder) == "last"


def test_yaml_keeps_auto() -> None:
    layers = describe_method(build_method("rail-kd-l", {}))["terms"][2]
    assert layers["pooling"] == "auto"
