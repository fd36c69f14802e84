"""The total loss of each method on one batch, against NumPy float64 written from the equations alone."""

import numpy as np
import pytest
import torch

from demiglace.data.batches import collate
from demiglace.methods.base import Progress
from training_kit import CLASSES, objective_of, random_examples, teacher_and_student

ROWS = 6
START = Progress(seed=0, epoch=0, step=0)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unit(h: np.ndarray) -> np.ndarray:
    return h / np.linalg.norm(h, axis=-1, keepdims=True)


class Facts:
    """Logits, labels and hidden states of both models on one batch, from transformers' own outputs."""

    def __init__(self, name: str, options: dict):
        teacher, student = teacher_and_student()
        examples = random_examples(ROWS)
        batch = collate(examples, np.arange(ROWS))
        self.objective, source = objective_of(name, options, teacher, student)
        loss, _ = self.objective(batch, source.fetch(batch), START, float(ROWS), float(ROWS))
        self.found = loss.item()
        self.labels = examples.labels
        self.mask = batch.attention_mask.numpy().astype(np.float64)
        with torch.no_grad():
            s = student(**batch.inputs, output_hidden_states=True)
            t = teacher(**batch.inputs, output_hidden_states=True)
        self.z_s, self.z_t = s.logits.double().numpy(), t.logits.double().numpy()
        self.h_s = [h.double().numpy() for h in s.hidden_states]
        self.h_t = [h.double().numpy() for h in t.hidden_states]

    def ce(self) -> float:
        return float(-np.log(softmax(self.z_s)[np.arange(ROWS), self.labels]).mean())

    def kd(self, temperature: float) -> float:
        p, q = softmax(self.z_t / temperature), softmax(self.z_s / temperature)
        return float(temperature**2 * (p * np.log(p / q)).sum(-1).mean())

    def mean(self, h: np.ndarray) -> np.ndarray:
        return (h * self.mask[:, :, None]).sum(1) / self.mask.sum(1, keepdims=True)

    def weights(self, side: str) -> np.ndarray:
        (layers,) = [t for n, t in zip(self.objective.names, self.objective.terms, strict=True) if n == "layers"]
        return getattr(layers.projections, side).weight.detach().double().numpy()

    def drawn(self) -> tuple[int, ...]:
        return tuple(t for _, t in self.objective.pairs(START)["layers"])


def test_none() -> None:
    facts = Facts("none", {})
    assert facts.found == pytest.approx(facts.ce(), rel=1e-5)


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 2.0), (0.1, 10.0)])
def test_vanilla_kd(weight: float, temperature: float) -> None:
    facts = Facts("vanilla-kd", {"task_weight": weight, "temperature": temperature})
    assert facts.found == pytest.approx(weight * facts.ce() + (1 - weight) * facts.kd(temperature), rel=1e-4)


@pytest.mark.parametrize(("mapping", "teacher_layers"), [("skip", (2, 4)), ("last", (4, 5))])
def test_pkd(mapping: str, teacher_layers: tuple[int, ...]) -> None:
    facts = Facts("pkd", {"mapping": mapping, "alpha": 0.7, "beta": 3.0, "temperature": 5.0})
    patient = sum(
        ((unit(facts.h_s[i][:, 0]) - unit(facts.h_t[j][:, 0])) ** 2).sum(-1).mean()
        for i, j in zip((1, 2), teacher_layers, strict=True)
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
    assert facts.found == pytest.approx(0.1 * facts.ce() + 0.7 * facts.kd(20.0) + 0.2 * total, rel=1e-3)


def test_rail_kd_layerwise() -> None:
    facts = Facts("rail-kd-l", {"temperature": 10.0, "size": 16, "layer_weights": [1.0, 0.5]})
    w_s, w_t = facts.weights("student"), facts.weights("teacher")
    assert w_s.shape == (2, 32, 16)
    rail = sum(
        alpha
        * ((unit(facts.mean(facts.h_s[i]) @ w_s[k]) - unit(facts.mean(facts.h_t[j]) @ w_t[k])) ** 2).sum(-1).mean()
        for k, (alpha, i, j) in enumerate(zip((1.0, 0.5), (1, 2), facts.drawn(), strict=True))
    )
    assert facts.found == pytest.approx((facts.ce() + facts.kd(10.0) + rail) / 3, rel=1e-4)


def test_rail_kd_concatenated() -> None:
    facts = Facts("rail-kd-c", {"size": 8, "task_weight": 0.2, "kd_weight": 0.3, "layer_weight": 0.5})
    own = np.concatenate([facts.mean(facts.h_s[i]) for i in (1, 2)], axis=-1) @ facts.weights("student")[0]
    other = np.concatenate([facts.mean(facts.h_t[j]) for j in facts.drawn()], axis=-1) @ facts.weights("teacher")[0]
    rail = ((unit(own) - unit(other)) ** 2).sum(-1).mean()
    assert facts.found == pytest.approx(0.2 * facts.ce() + 0.3 * facts.kd(2.0) + 0.5 * rail, rel=1e-4)


@pytest.mark.parametrize("name", ["vanilla-kd", "pkd", "alp-kd", "rail-kd-l", "rail-kd-c"])
def test_regression_takes_squared_errors(name: str) -> None:
    teacher, student = teacher_and_student(regression=True)
    examples = random_examples(ROWS, regression=True)
    batch = collate(examples, np.arange(ROWS))
    objective, source = objective_of(name, {}, teacher, student, "regression")
    signals = source.fetch(batch)
    _, terms = objective(batch, signals, START, float(ROWS), float(ROWS))
    values = dict(zip(objective.names, terms.tolist(), strict=True))
    with torch.no_grad():
        z_s = student(**batch.inputs).logits.squeeze(-1).double().numpy()
    assert values["task"] == pytest.approx(((z_s - examples.labels) ** 2).mean(), rel=1e-4)
    assert values["kd"] == pytest.approx(((z_s - signals.logits.squeeze(-1).double().numpy()) ** 2).mean(), rel=1e-4)


def test_there_are_as_many_classes_as_the_kit_says() -> None:
    assert Facts("none", {}).z_s.shape == (ROWS, CLASSES)
