"""Students that are narrower than the teacher or have other heads: they train, or the error names another method."""

import re
from dataclasses import replace

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from demiglace.data.batching import collate
from demiglace.errors import ModelError
from demiglace.methods.base import Method, TrainingProgress
from demiglace.methods.registry import METHODS, build_method
from demiglace.methods.terms.layer_mapping import Final, UniformMapping
from demiglace.models.shape import ModelShape
from factories import tiny_config, tiny_model
from training_kit import CLASSES, loss_of, objective_of, random_examples

NARROW = {
    "none",
    "vanilla-kd",
    "rail-kd-l",
    "rail-kd-c",
    "tinybert",
    "minilm",
    "minilmv2",
    "pkd",
    "distil",
    "rail-balanced",
}


def student(hidden: int, heads: int) -> PreTrainedModel:
    config = tiny_config("bert", num_layers=3, hidden=hidden)
    config.num_labels, config.num_attention_heads = CLASSES, heads
    return AutoModelForSequenceClassification.from_config(config).eval()


def error_message(name: str, own: PreTrainedModel) -> str | None:
    """Return a method's error for this student, or None if it trains a step in every phase."""
    teacher = tiny_model("bert", num_layers=6, num_labels=CLASSES)
    try:
        objective, source = objective_of(name, {}, teacher, own)
    except ModelError as error:
        return str(error)
    batch = collate(random_examples(4), np.arange(4))
    for phase in range(len(objective.phases)):
        now = TrainingProgress(seed=0, epoch=phase, step=phase, phase=phase, fraction=0.5)
        loss, _ = loss_of(objective, source, batch, now, 4.0, 4.0)
        loss.backward()
        assert loss.item() > 0
    return None


@pytest.mark.parametrize(("hidden", "heads"), [(16, 4), (16, 2), (32, 8)], ids=["width", "both", "heads"])
@pytest.mark.parametrize("name", METHODS)
def test_it_runs_or_the_error_names_a_method_that_does(name: str, hidden: int, heads: int) -> None:
    message = error_message(name, student(hidden, heads))
    if message is None:
        return
    named = [other for other in METHODS if re.search(rf"(?<![\w-]){other}(?![\w-])", message)]
    assert named, message
    assert any(error_message(other, student(hidden, heads)) is None for other in named), message


@pytest.mark.parametrize("name", sorted(NARROW))
def test_methods_that_support_narrow_students(name: str) -> None:
    assert error_message(name, student(16, 4)) is None


@pytest.mark.parametrize("name", ["tinybert", "minilm"])
def test_error_for_other_heads_names_minilmv2(name: str) -> None:
    message = error_message(name, student(32, 8))
    assert message is not None
    assert "8 attention heads and the teacher 4" in message
    assert "minilmv2" in message
    assert error_message("minilmv2", student(32, 8)) is None


def shapes(own: int = 24, other: int = 32, heads: int = 4) -> tuple[ModelShape, ModelShape]:
    shape = ModelShape.of(tiny_model("bert", num_layers=2))
    return replace(shape, attention_size=own), replace(shape, attention_size=other, num_heads=heads)


def relation_method(**options: object) -> Method:
    return build_method("minilmv2", options)


@pytest.mark.parametrize(
    ("own", "other", "heads", "expected"), [(32, 32, 4, 4), (24, 32, 4, 4), (24, 32, 16, 8), (384, 768, 12, 12)]
)
def test_default_relation_heads_divide_both_widths(own: int, other: int, heads: int, expected: int) -> None:
    term = relation_method().terms[0].term
    assert term.head_count(*shapes(own, other, heads)) == expected


def test_relation_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ModelError, match=r"relation_heads=3 .*\(24\).*\(32\).*one of 1, 2, 4, 8\."):
        relation_method(relation_heads=3).requests(*shapes())


def test_an_unknown_teacher_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="teacher_layer=3 was given; the teacher's layers are 1 to 2"):
        relation_method(teacher_layer=3).requests(*shapes())


@pytest.mark.parametrize("name", ["tinybert", "minilm", "minilmv2"])
def test_models_with_unknown_attention_are_refused_before_training(name: str) -> None:
    with pytest.raises(ModelError, match="no attention, such as rail-kd-l"):
        build_method(name, {}).requests(*shapes(own=0))


def test_matched_layers() -> None:
    own, other = (replace(shapes()[0], num_layers=n) for n in (6, 12))
    assert UniformMapping().layers(own, other).teacher == (2, 4, 6, 8, 10, 12)
    assert Final().layers(own, other).teacher == (12,)
    assert Final(10).layers(own, other).student == (6,)
    with pytest.raises(ModelError, match="12 and a teacher of 6 layers"):
        UniformMapping().layers(other, own)
