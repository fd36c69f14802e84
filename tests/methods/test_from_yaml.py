"""User-defined methods in YAML, and named methods in the same format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_battery import CASES

from demiglace.data.batching import collate
from demiglace.errors import ConfigError
from demiglace.methods.base import Method, TrainingProgress
from demiglace.methods.from_yaml import compose, describe_method, read_method
from demiglace.methods.registry import METHODS, build_method
from demiglace.models.shape import ModelShape
from demiglace.signals.online import OnlineTeacher
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.training.objective import Objective
from training_kit import random_examples, teacher_and_student


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_method_round_trips_through_yaml(name: str, options: dict[str, Any]) -> None:
    method = build_method(name, options)
    written = yaml.safe_dump(describe_method(method), sort_keys=False)
    assert compose(yaml.safe_load(written)) == method


def loss_of(method: Method) -> float:
    teacher, student = teacher_and_student()
    shape = ModelShape.of(teacher)
    objective = Objective(student, method, shape, CLASSIFICATION, "fp32")
    source = OnlineTeacher(teacher, objective.requests.teacher, "fp32")
    batch = collate(random_examples(6), np.arange(6))
    return objective(batch, source.fetch(batch), TrainingProgress(0, 0, 0), 6.0, 6.0)[0].item()


def test_a_user_defined_method(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        """
terms:
- {term: task, weight: 0.25}
- {term: kd, weight: 0.5, temperature: 2, divergence: jsd, beta: 0.1}
- {term: layers, weight: 2, mapping: {kind: list, student_layers: [1, 3], teacher_layers: [6, 2]}, pooling: tokens,
   distance: cosine}
- {term: layers, mapping: reverse, pooling: mean, distance: mse, projection: {kind: shared, size: 8}}
"""
    )
    method = read_method(str(file))
    assert [w.weight for w in method.terms] == [0.25, 0.5, 2.0, 1.0]
    assert np.isfinite(loss_of(method))


def test_weights_are_applied() -> None:
    terms = [{"term": "task"}, {"term": "kd"}]
    both, task, kd = (
        loss_of(compose({"terms": [row | {"weight": w} for row, w in zip(terms, weights, strict=True)]}))
        for weights in ((0.25, 2), (1, 0), (0, 1))
    )
    assert both == pytest.approx(0.25 * task + 2 * kd)


LAYERS = {"term": "layers", "mapping": "skip", "pooling": "mean", "distance": "mse"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "terms was given None"),
        ({"terms": []}, "at least one term"),
        ({"term": [LAYERS]}, "unknown key 'term'; did you mean 'terms'"),
        ({"terms": ["task"]}, "expected {term: NAME"),
        ({"terms": [{"term": "tsak"}]}, "did you mean 'task'"),
        ({"terms": [{"term": "kd", "temprature": 2}]}, "did you mean 'temperature'"),
        ({"terms": [{"term": "kd", "temperature": "hot"}]}, "temperature was given 'hot'; expected a number"),
        ({"terms": [LAYERS | {"mapping": "skp"}]}, "did you mean 'skip'"),
        ({"terms": [LAYERS | {"mapping": {"kind": "random", "samplng": "step"}}]}, "did you mean 'sampling'"),
        ({"terms": [LAYERS | {"mapping": {"kind": "random", "sampling": "daily"}}]}, "sampling was given 'daily'"),
        ({"terms": [{"term": "layers", "mapping": "skip", "pooling": "mean"}]}, "distance must be given"),
        ({"terms": [LAYERS | {"projection": 3}]}, "projection was given 3; expected a mapping"),
        ({"terms": [LAYERS | {"phase": 1}]}, "phase 1 was given; there are 1"),
        ({"terms": [LAYERS | {"input": "perturbed"}]}, "no augmentation"),
        ({"terms": [LAYERS], "phases": [0.5, 0]}, "each above 0"),
        ({"terms": [LAYERS], "phases": [0.5, float("nan")]}, "each above 0"),
        ({"terms": [{"term": ["kd"]}]}, "unknown term"),
        ({"terms": [LAYERS | {"weight": -0.5}]}, "weight was given -0.5; expected a number, at least 0"),
        ({"terms": [LAYERS | {"weight": float("inf")}]}, "weight was given inf; expected a number, at least 0"),
        ({"terms": [LAYERS | {"course": "up"}]}, "course was given 'up'"),
        ({"terms": [{"term": "annealed", "steps": 0}]}, "steps was given 0; expected a whole number, at least 1"),
        ({"terms": [{"term": "kd", "temperature": 0}]}, "temperature was given 0.0; expected a number, above 0"),
        ({"terms": [{"term": "kd", "divergence": "jsd", "beta": 1}]}, "beta was given 1.0; expected"),
        ({"terms": [{"term": "pseudo", "temperature": -1}]}, "temperature was given -1.0; expected"),
        ({"terms": [LAYERS | {"mapping": {"kind": "random", "count": 0}}]}, "count was given 0; expected"),
        ({"terms": [LAYERS | {"projection": {"kind": "shared", "size": 0}}]}, "size was given 0; expected"),
        (
            {"terms": [LAYERS], "augmentation": {"kind": "adversarial-masking", "student_steps": 0}},
            "student_steps was given 0; expected",
        ),
    ],
)
def test_unknown_names_are_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(content)


ATTENTION = {"term": "attention", "relations": ["query-key"], "distance": "kl"}


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (LAYERS | {"mapping": "all"}, "mapping=all makes no pairs of layers; add attention=true"),
        *(
            (LAYERS | {"mapping": "all", "attention": True, "projection": {"kind": kind}}, f"projection={kind}, which")
            for kind in ("per-layer", "concatenated")
        ),
        (ATTENTION | {"mapping": "all"}, "mapping=all was given for the term on attention"),
        (LAYERS | {"projection": {"kind": "concatenated"}, "layer_weights": [1, 0.5]}, "layer_weights was given"),
        ({"term": "kd", "divergence": "jsd", "beta": 0}, "beta=0 was given"),
    ],
)
def test_incompatible_options_are_refused(term: dict[str, Any], message: str) -> None:
    method = compose({"terms": [term]})
    teacher, student = map(ModelShape.of, teacher_and_student())
    with pytest.raises(ConfigError, match=message):
        method.requests(student, teacher)


@pytest.mark.parametrize("projection", ["none", "shared"])
def test_attention_over_all_layers(projection: str) -> None:
    term = LAYERS | {"mapping": "all", "attention": True, "projection": {"kind": projection}}
    assert np.isfinite(loss_of(compose({"terms": [term]})))


def test_method_names_are_unique() -> None:
    assert len({row.name for row in METHODS.values()}) == len(METHODS)
