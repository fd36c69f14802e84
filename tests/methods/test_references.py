"""Total loss of each method on one batch: equal to NumPy float64 written from the equations."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_kit import ROWS, SECOND, START, Facts, kl, softmax, unit

from demiglace.data.batching import collate
from demiglace.methods.registry import METHODS
from demiglace.tasks.regression import REGRESSION
from training_kit import CLASSES, loss_of, objective_of, random_examples, teacher_and_student


def test_every_method_has_a_reference() -> None:
    text = "".join(file.read_text("utf-8") for file in Path(__file__).parent.glob("test_*references.py"))
    assert set(METHODS) - set(re.findall(r'Facts\("([a-z0-9-]+)"', text)) == set()


def test_none() -> None:
    facts = Facts("none", {})
    assert facts.found == pytest.approx(facts.ce(), rel=1e-5)


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 2.0), (0.1, 10.0)])
def test_vanilla_kd(weight: float, temperature: float) -> None:
    facts = Facts("vanilla-kd", {"task_weight": weight, "temperature": temperature})
    assert facts.found == pytest.approx(weight * facts.ce() + (1 - weight) * facts.kd(temperature), rel=1e-4)


def test_pseudo_labels() -> None:
    facts = Facts("pseudo-labels", {"task_weight": 0.3})
    hard = -np.log(softmax(facts.z_s)[np.arange(ROWS), facts.z_t.argmax(-1)]).mean()
    assert facts.found == pytest.approx(0.3 * facts.ce() + 0.7 * hard, rel=1e-4)


@pytest.mark.parametrize(("mapping", "teacher_layers"), [("skip", (2, 4)), ("last", (4, 5))])
def test_pkd(mapping: str, teacher_layers: tuple[int, ...]) -> None:
    facts = Facts("pkd", {"mapping": mapping, "alpha": 0.7, "beta": 3.0, "temperature": 5.0})
    patient = np.mean(
        [
            ((unit(facts.h_s[i][:, 0]) - unit(facts.h_t[j][:, 0])) ** 2).sum(-1).mean()
            for i, j in zip((1, 2), teacher_layers, strict=True)
        ]
    )
    assert facts.found == pytest.approx(0.3 * facts.ce() + 0.7 * facts.kd(5.0) + 3.0 * patient, rel=1e-4)


def test_alp_kd() -> None:
    facts = Facts("alp-kd", {})
    stack = np.stack([facts.h_t[j][:, 0] for j in range(1, 6)], axis=1)
    total = 0.0
    for i in (1, 2):
        own = facts.h_s[i][:, 0]
        context = np.einsum("bj,bjd->bd", softmax(np.einsum("bd,bjd->bj", own, stack)), stack)
        total += ((own - context) ** 2).mean(-1).mean()
    assert facts.found == pytest.approx(0.1 * facts.ce() + 0.7 * facts.kd(20.0) + 0.2 * total / 2, rel=1e-3)


@pytest.mark.parametrize(("reduction", "reduce"), [("mean", np.mean), ("sum", np.sum)])
@pytest.mark.parametrize("start", ["matched", "random"])
def test_rail_kd_layerwise(start: str, reduction: str, reduce: Callable[[list[float]], float]) -> None:
    options = {"projection": "per-layer", "start": start, "reduction": reduction, "size": 16}
    facts = Facts("rail-kd-l", {"temperature": 10.0, "layer_weights": [1.0, 0.5], **options})
    assert facts.weights("student").shape == (2, 32, 16)
    assert facts.weights("teacher").shape == (5, 32, 16)  # one for each layer that may be drawn
    rail = reduce(facts.rail((1.0, 0.5)))
    assert facts.found == pytest.approx((facts.ce() + facts.kd(10.0) + rail) / 3, rel=1e-4)


def test_rail_kd_layerwise_compares_equal_widths_without_projection() -> None:
    facts = Facts("rail-kd-l", {})
    pairs = zip((1, 2), facts.drawn(), strict=True)
    rail = [((unit(facts.mean(facts.h_s[i])) - unit(facts.mean(facts.h_t[j]))) ** 2).sum(-1).mean() for i, j in pairs]
    assert facts.found == pytest.approx((facts.ce() + facts.kd(2.0) + np.mean(rail)) / 3, rel=1e-4)


@pytest.mark.parametrize(("fraction", "share"), [(0.0, 1.0), (0.2, 0.6), (0.5, 0.0), (0.9, 0.0)])
def test_rail_balanced(fraction: float, share: float) -> None:
    """The weight of the layers falls to 0 at half of the steps; states are compared minus their mean."""
    facts = Facts("rail-balanced", {}, replace(START, fraction=fraction))
    states = [(facts.mean(facts.h_s[i]), facts.mean(facts.h_t[j])) for i, j in zip((1, 2), facts.drawn(), strict=True)]
    plain = [((unit(own) - unit(other)) ** 2).sum(-1).mean() for own, other in states]
    assert facts.found == pytest.approx((facts.ce() + facts.kd(2.0) + share * np.mean(plain)) / 3, rel=1e-4)
    batch, source = facts.batch, facts.source
    facts.objective.fit([(batch, source.fetch(batch))], START)
    loss, _ = loss_of(facts.objective, source, batch, replace(START, fraction=fraction), float(ROWS), float(ROWS))
    centered = [((unit(a - a.mean(0)) - unit(b - b.mean(0))) ** 2).sum(-1).mean() for a, b in states]
    assert loss.item() == pytest.approx((facts.ce() + facts.kd(2.0) + share * np.mean(centered)) / 3, rel=1e-4)


def test_last_layer_kd() -> None:
    facts = Facts("last-layer-kd", {"temperature": 4.0})
    last = ((unit(facts.mean(facts.h_s[3])) - unit(facts.mean(facts.h_t[6]))) ** 2).sum(-1).mean()
    assert facts.found == pytest.approx((facts.ce() + facts.kd(4.0) + last) / 3, rel=1e-4)


def test_rail_kd_concatenated() -> None:
    facts = Facts("rail-kd-c", {"size": 8, "task_weight": 0.2, "kd_weight": 0.3, "layer_weight": 0.5})
    own = np.concatenate([facts.mean(facts.h_s[i]) for i in (1, 2)], axis=-1) @ facts.weights("student")[0]
    other = np.concatenate([facts.mean(facts.h_t[j]) for j in facts.drawn()], axis=-1) @ facts.weights("teacher")[0]
    rail = ((unit(own) - unit(other)) ** 2).sum(-1).mean()
    assert facts.found == pytest.approx(0.2 * facts.ce() + 0.3 * facts.kd(2.0) + 0.5 * rail, rel=1e-4)


@pytest.mark.parametrize("pooling", ["tokens", "mean"])
def test_distil(pooling: str) -> None:
    facts = Facts("distil", {"pooling": pooling})
    own, other = facts.h_s[3], facts.h_t[6]
    if pooling == "tokens":
        distance = facts.over_tokens(1 - (unit(own) * unit(other)).sum(-1))
    else:
        distance = (1 - (unit(facts.mean(own)) * unit(facts.mean(other))).sum(-1)).mean()
    assert facts.found == pytest.approx(5 * facts.kd(2.0) + 2 * facts.ce() + distance, rel=1e-4)


@pytest.mark.parametrize(("overlapping", "buckets"), [(False, [(1, 2, 3), (4, 5)]), (True, [(1, 2, 3, 4), (4, 5)])])
def test_ckd(overlapping: bool, buckets: list[tuple[int, ...]]) -> None:
    facts = Facts("ckd", {"overlapping": overlapping, "task_weight": 0.2, "kd_weight": 0.3, "layer_weight": 0.5})
    total = 0.0
    for layer, bucket, linear in zip((1, 2), buckets, facts.term("buckets").maps, strict=True):
        joined = np.concatenate([facts.mean(facts.h_t[j]) for j in bucket], axis=-1)
        combined = joined @ linear.weight[0].detach().double().numpy()
        total += ((facts.mean(facts.h_s[layer]) - combined) ** 2).mean()
    assert facts.found == pytest.approx(0.2 * facts.ce() + 0.3 * facts.kd(2.0) + 0.5 * total / 2, rel=1e-4)


@pytest.mark.parametrize(("epoch", "phi"), [(0, 1 / 7), (2, 2 / 7), (13, 1.0)])
def test_annealing_kd(epoch: int, phi: float) -> None:
    """Two epochs of 14 for each of seven steps of φ."""
    facts = Facts("annealing-kd", {"tau_max": 7}, replace(START, phase_epoch=epoch, phase_epochs=14))
    assert facts.found == pytest.approx(((facts.z_s - phi * facts.z_t) ** 2).mean(-1).mean(), rel=1e-4)
    second = Facts("annealing-kd", {}, SECOND)
    assert second.found == pytest.approx(second.ce(), rel=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_continuation_kd(margin: float) -> None:
    now = replace(START, phase_epoch=4, phase_epochs=10, fraction=0.4)
    facts = Facts("continuation-kd", {"tau_max": 10, "margin": margin}, now)
    phi = 0.5  # the fifth of ten steps
    distance = ((facts.z_s - phi * facts.z_t) ** 2).mean(-1) - margin * phi
    assert facts.found == pytest.approx(0.4 * facts.ce() + 0.6 * np.maximum(0, distance).mean(), rel=1e-4)


def test_universal_kd() -> None:
    facts = Facts("universal-kd", {"gamma": 0.4, "temperature": 2.0})
    term = facts.term("pseudo")

    def classifier_outputs(classifiers: torch.nn.Module, states: list[np.ndarray]) -> np.ndarray:
        weight, bias = (p.detach().double().numpy() for p in (classifiers.weight, classifiers.bias))
        return np.stack([facts.mean(h) @ w + b for h, w, b in zip(states, weight, bias, strict=True)], axis=1)

    own, other = classifier_outputs(term.student, facts.h_s[1:3]), classifier_outputs(term.teacher, facts.h_t[1:6])
    mixed = softmax(own @ other.transpose(0, 2, 1)) @ other
    layers = 4 * kl(softmax(mixed / 2), softmax(own / 2)).mean()
    layers += 4 * kl(softmax(facts.z_t / 2)[:, None], softmax(other / 2)).mean()
    assert facts.found == pytest.approx(0.3 * (facts.ce() + facts.kd(2.0)) + 0.4 * layers, rel=1e-4)


def test_rail_annealing() -> None:
    facts = Facts(
        "rail-annealing", {"kd_weight": 0.3, "layer_weight": 0.7, "tau_max": 4, "size": 8, "projection": "per-layer"}
    )
    # in a phase of one epoch, that epoch is the last, in which φ = 1
    annealed = ((facts.z_s - facts.z_t) ** 2).mean(-1).mean()
    assert facts.found == pytest.approx(0.3 * annealed + 0.7 * np.mean(facts.rail()), rel=1e-4)
    second = Facts("rail-annealing", {}, SECOND)
    assert second.found == pytest.approx(second.ce(), rel=1e-5)


def test_mate_kd() -> None:
    facts = Facts("mate-kd", {"task_weight": 0.2, "kd_weight": 0.3, "perturbed_weight": 0.5, "temperature": 2.0})
    other = 4 * kl(softmax(facts.z_t_other / 2), softmax(facts.z_s_other / 2)).mean()
    assert not np.allclose(facts.z_t_other, facts.z_t)
    assert facts.found == pytest.approx(0.2 * facts.ce() + 0.3 * facts.kd(2.0) + 0.5 * other, rel=1e-4)


def test_combined_kd() -> None:
    now = replace(START, phase_epoch=4, phase_epochs=10)
    facts = Facts("combined-kd", {"kd_weight": 0.3, "perturbed_weight": 0.7, "tau_max": 10}, now)
    own, other = (
        ((s - 0.5 * t) ** 2).mean(-1).mean() for s, t in ((facts.z_s, facts.z_t), (facts.z_s_other, facts.z_t_other))
    )
    assert facts.found == pytest.approx(0.3 * own + 0.7 * other, rel=1e-4)
    second = Facts("combined-kd", {}, SECOND)
    assert second.found == pytest.approx(second.ce(), rel=1e-5)


def test_rail_mate() -> None:
    facts = Facts("rail-mate", {"size": 8, "projection": "per-layer"})
    other = kl(softmax(facts.z_t_other), softmax(facts.z_s_other)).mean()
    assert facts.found == pytest.approx((facts.ce() + facts.kd(1.0) + other + np.mean(facts.rail())) / 4, rel=1e-4)


def test_reverse_kl() -> None:
    facts = Facts("reverse-kl", {"task_weight": 0.3, "temperature": 2.0})
    p, q = facts.probabilities(2.0)
    assert facts.found == pytest.approx(0.3 * facts.ce() + 0.7 * 4 * kl(q, p).mean(), rel=1e-4)


def test_jsd() -> None:
    facts = Facts("jsd", {"task_weight": 0.3, "temperature": 2.0, "beta": 0.2})
    p, q = facts.probabilities(2.0)
    m = 0.2 * p + 0.8 * q
    divergence = 0.2 * kl(p, m) + 0.8 * kl(q, m)
    assert facts.found == pytest.approx(0.3 * facts.ce() + 0.7 * 4 * divergence.mean(), rel=1e-4)


def test_skew_kl() -> None:
    facts = Facts("skew-kl", {"task_weight": 0.3, "temperature": 2.0, "skew": 0.2})
    p, q = facts.probabilities(2.0)
    assert facts.found == pytest.approx(0.3 * facts.ce() + 0.7 * 4 * kl(p, 0.2 * p + 0.8 * q).mean(), rel=1e-4)


def test_skew_reverse_kl() -> None:
    facts = Facts("skew-reverse-kl", {"task_weight": 0.3, "temperature": 2.0, "skew": 0.2})
    p, q = facts.probabilities(2.0)
    assert facts.found == pytest.approx(0.3 * facts.ce() + 0.7 * 4 * kl(q, 0.8 * p + 0.2 * q).mean(), rel=1e-4)


@pytest.mark.parametrize(
    "name", ["vanilla-kd", "pkd", "alp-kd", "rail-kd-l", "rail-kd-c", "jsd", "reverse-kl", "distil"]
)
def test_regression_uses_squared_errors(name: str) -> None:
    teacher, student = teacher_and_student(regression=True)
    examples = random_examples(ROWS, regression=True)
    batch = collate(examples, np.arange(ROWS))
    objective, source = objective_of(name, {}, teacher, student, REGRESSION)
    signals = source.fetch(batch)
    _, terms = objective(batch, signals, START, float(ROWS), float(ROWS))
    values = dict(zip(objective.names, terms.tolist(), strict=True))
    with torch.no_grad():
        z_s = student(**batch.inputs).logits.squeeze(-1).double().numpy()
    assert values["task"] == pytest.approx(((z_s - examples.labels) ** 2).mean(), rel=1e-4)
    assert values["kd"] == pytest.approx(((z_s - signals.logits.squeeze(-1).double().numpy()) ** 2).mean(), rel=1e-4)


def test_number_of_classes_matches_the_kit() -> None:
    assert Facts("none", {}).z_s.shape == (ROWS, CLASSES)
