"""Projections: related states start close, there is one map for each layer, and a resumed run keeps the fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from demiglace.data.batching import collate
from demiglace.errors import ConfigError
from demiglace.losses.hidden import normalized_squared
from demiglace.methods.base import TrainingProgress
from demiglace.methods.from_yaml import compose
from demiglace.methods.registry import build_method
from demiglace.methods.terms.projection import Kind, Projection, Projections
from demiglace.models.shape import ModelShape
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.training.objective import Objective
from factories import tiny_config, tiny_model
from training_kit import CLASSES, make_loop, objective_of, random_examples, teacher_and_student

WIDTH = 48
START = TrainingProgress(seed=0, epoch=0, step=0)


def states(rows: int = 40, layers: int = 3, width: int = WIDTH) -> torch.Tensor:
    """Return states that share a large mean, as those of real models do."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, layers, width, generator=generator) + 3 * torch.randn(1, 1, width, generator=generator)


def built(kind: Kind = "per-layer", student: int = WIDTH, **options: object) -> Projections:
    torch.manual_seed(0)
    return Projection(kind, size=16, **options).build(3, 5, student, WIDTH)


def centered_cosine(own: torch.Tensor, other: torch.Tensor) -> float:
    return F.cosine_similarity(own - own.mean(0), other - other.mean(0), dim=-1).mean().item()


@pytest.mark.parametrize("kind", ["per-layer", "shared", "concatenated"])
@pytest.mark.parametrize("teacher", [True, False])
def test_equal_layers_start_at_distance_0(kind: Kind, teacher: bool) -> None:
    """With two independent random maps the distance is about 2, as for unrelated states."""
    same = states()
    near = normalized_squared(*built(kind, teacher=teacher)(same, same, (0, 2, 4)))
    assert near.max() < 1e-6
    far = normalized_squared(*built(kind, teacher=teacher, start="random")(same, same, (0, 2, 4)))
    assert far.mean() > 1


@pytest.mark.parametrize("kind", ["per-layer", "shared", "concatenated"])
@pytest.mark.parametrize("teacher", [True, False])
def test_different_widths_start_close_after_the_fit(kind: Kind, teacher: bool) -> None:
    wide = states(400)
    narrow = wide @ torch.linalg.qr(torch.randn(WIDTH, 24))[0]  # a narrower model that keeps half of the directions
    maps = built(kind, student=24, teacher=teacher)
    assert maps.needs_fit
    for part in torch.arange(400).split(150):  # in parts as in a run
        maps.observe(narrow[part], wide[part], (0, 2, 4))
    maps.fit()
    own, other = maps(narrow, wide, (0, 2, 4))
    assert centered_cosine(own, other) > 0.6
    assert normalized_squared(own, other).mean() < 0.5
    random = built(kind, student=24, teacher=teacher, start="random")
    assert not random.needs_fit
    assert abs(centered_cosine(*random(narrow, wide, (0, 2, 4)))) < 0.3


def test_teacher_maps_belong_to_teacher_layers() -> None:
    """Another sample of layers must not use a layer's map for another layer."""
    maps, teacher = built(), states()
    with torch.no_grad():
        maps.teacher.weight.copy_(torch.arange(5.0)[:, None, None].expand_as(maps.teacher.weight))
    for drawn in ((0, 1, 2), (1, 3, 4)):
        _, mapped = maps(teacher, teacher, drawn)
        expected = [layer * teacher[:, place].sum(-1) for place, layer in enumerate(drawn)]
        assert torch.allclose(mapped[..., 0], torch.stack(expected, dim=1), atol=1e-3)


@pytest.mark.parametrize(("student", "kind"), [(WIDTH, "none"), (24, "per-layer")])
def test_auto_projects_different_widths(student: int, kind: Kind) -> None:
    assert Projection("auto").resolved(student, WIDTH).kind == kind


def narrow_student() -> PreTrainedModel:
    config = tiny_config("bert", num_layers=3, hidden=16)
    config.num_labels = CLASSES
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize("method", ["rail-kd-l", "rail-kd-c", "tinybert", "rail-balanced"])
def test_a_narrow_student_is_fitted_once_and_resumes_with_the_fit(method: str, tmp_path: Path) -> None:
    def loop(directory: Path):
        teacher = tiny_model("bert", num_layers=6, num_labels=CLASSES)
        objective, source = objective_of(method, {}, teacher, narrow_student())
        return make_loop(directory, objective, source, random_examples(24), epochs=4, learning_rate=1e-3)

    whole = loop(tmp_path / "whole")
    unfitted, _ = objective_of(method, {}, tiny_model("bert", num_layers=6, num_labels=CLASSES), narrow_student())
    begun = {k: v.clone() for k, v in whole._unwrapped.state_dict().items()}
    fitted = [k for k, v in unfitted.state_dict().items() if not torch.equal(v, begun[k])]
    assert fitted
    assert all(k.startswith("terms.") for k in fitted)
    whole.run()
    cut_off = loop(tmp_path / "parts")
    cut_off._resume()
    cut_off._epoch(0)
    resumed = loop(tmp_path / "parts")
    resumed.run()
    expected = whole._unwrapped.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed._unwrapped.state_dict().items())


def test_ckd_starts_from_the_mean_of_a_bucket() -> None:
    teacher, student = teacher_and_student()
    objective, _ = objective_of("ckd", {}, teacher, student)
    same = torch.randn(4, 1, 32)
    for maps in objective.terms[2].maps:
        count = maps.weight.shape[1] // 32
        assert torch.allclose(maps(same.repeat(1, 1, count), [0]), same, atol=1e-6)


@pytest.mark.parametrize("method", ["pkd", "alp-kd", "rail-kd-l", "ckd", "universal-kd"])
def test_the_layers_gradient_does_not_grow_with_their_number(method: str) -> None:
    """With a sum it is proportional to the number of layer pairs, and dominates the labels for deep students."""
    found = {}
    for reduction in ("mean", "sum"):
        teacher, student = teacher_and_student(layers=6)
        options = {"final_layer": True, "reduction": reduction}
        objective, source = objective_of(method, options, teacher, student)
        batch = collate(random_examples(8), np.arange(8))
        with torch.no_grad():  # away from a student that is its teacher
            torch.manual_seed(0)
            for parameter in objective.student.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
        values = objective.term_values(batch, source.fetch(batch), START, 8.0, 8.0)
        found[reduction] = values[2].item()
    assert found["sum"] == pytest.approx(6 * found["mean"], rel=0.3)


@pytest.mark.parametrize("given", [{"size": 16}, {"trained": "neither"}, {"start": "random"}])
def test_projection_options_are_never_ignored(given: dict) -> None:
    """`auto` has no projections for equal widths, unless the user sets one of their options."""
    objective, _ = objective_of("rail-kd-l", given, *teacher_and_student())
    assert objective.terms[2].projections.student.weight.shape[0] == 2
    with pytest.raises(ConfigError, match=f"{next(iter(given))} was given with projection=none"):
        build_method("rail-kd-l", given | {"projection": "none"})


def test_centered_states_are_fitted_without_their_means() -> None:
    """The shared mean would dominate the regression, but the loss does not depend on it."""
    wide = states(400, layers=1) + 30
    narrow = wide @ torch.linalg.qr(torch.randn(WIDTH, 24))[0]
    found = {}
    for centered in (True, False):
        torch.manual_seed(0)
        maps = Projection("per-layer", size=16).build(1, 1, 24, WIDTH)
        maps.observe(narrow, wide, (0,))
        maps.fit(centered)
        found[centered] = centered_cosine(*maps(narrow, wide, (0,)))
    assert found[True] > found[False] + 0.02


def test_a_fitted_term_on_perturbed_text_is_refused() -> None:
    layers = {"term": "layers", "mapping": "skip", "pooling": "mean", "distance": "mse", "centered": True}
    method = compose({"terms": [layers | {"input": "perturbed"}], "augmentation": "adversarial-masking"})
    teacher, student = teacher_and_student()
    with pytest.raises(ConfigError, match="layers is on perturbed text and starts from training rows"):
        Objective(student, method, ModelShape.of(teacher), CLASSIFICATION, "fp32")
