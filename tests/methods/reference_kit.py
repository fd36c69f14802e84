"""Signals of both models for one batch in NumPy float64, for references written from the equations."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from demiglace.data.batching import Batch, collate
from demiglace.methods.base import TrainingProgress
from demiglace.models.layer_stack import layer_stack
from training_kit import ADVERSARIES, loss_of, objective_of, random_examples, teacher_and_student

ROWS, HEADS = 6, 4
START = TrainingProgress(seed=0, epoch=0, step=0)
SECOND = replace(START, epoch=1, step=1, phase=1)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unit(h: np.ndarray) -> np.ndarray:
    return h / np.linalg.norm(h, axis=-1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(-1)


class Model:
    """Logits z, hidden states h[layer] and attention inputs of one model, from the outputs of transformers."""

    def __init__(self, model: PreTrainedModel, batch: Batch):
        with torch.no_grad():
            outputs = model(**batch.inputs, output_hidden_states=True)
        self.z = outputs.logits.double().numpy()
        self.h = [h.double().numpy() for h in outputs.hidden_states]
        self._model = model

    def input(self, kind: str, layer: int) -> np.ndarray:
        """Return x Wᵀ + b of a BERT layer with input x; kind: query, key or value."""
        linear = getattr(layer_stack(self._model)[layer - 1].attention.self, kind)
        weight, bias = (p.detach().double().numpy() for p in (linear.weight, linear.bias))
        return self.h[layer - 1] @ weight.T + bias


class Facts:
    """The loss of a method on one batch at one point of training, and the signals of both models."""

    def __init__(self, name: str, options: Mapping[str, Any], now: TrainingProgress = START):
        teacher, student = teacher_and_student()
        examples = random_examples(ROWS)
        batch = collate(examples, np.arange(ROWS))
        self.batch = batch
        self.objective, self.source = objective_of(name, options, teacher, student)
        loss, _ = loss_of(self.objective, self.source, batch, now, float(ROWS), float(ROWS))
        self.found = loss.item()
        self.labels = examples.labels
        self.mask = batch.attention_mask.numpy().astype(np.float64)
        self.student, self.teacher = Model(student, batch), Model(teacher, batch)
        adversary = ADVERSARIES.get(self.objective)
        if adversary is not None:  # what both models say of the perturbed text
            other = adversary.perturb(batch, now).batch
            self.z_s_other, self.z_t_other = Model(student, other).z, Model(teacher, other).z
        self.z_s, self.z_t, self.h_s, self.h_t = self.student.z, self.teacher.z, self.student.h, self.teacher.h

    def ce(self) -> float:
        return float(-np.log(softmax(self.z_s)[np.arange(ROWS), self.labels]).mean())

    def probabilities(self, temperature: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the teacher's p and the student's q."""
        return softmax(self.z_t / temperature), softmax(self.z_s / temperature)

    def kd(self, temperature: float) -> float:
        return float(temperature**2 * kl(*self.probabilities(temperature)).mean())

    def mean(self, h: np.ndarray) -> np.ndarray:
        return (h * self.mask[:, :, None]).sum(1) / self.mask.sum(1, keepdims=True)

    def over_tokens(self, values: np.ndarray) -> float:
        """Return the mean over the real tokens of each row [B, L], then over rows."""
        return float(((values * self.mask).sum(1) / self.mask.sum(1)).mean())

    def term(self, name: str) -> torch.nn.Module:
        """Return the built term of this name."""
        return dict(zip(self.objective.names, self.objective.terms, strict=True))[name]

    def weights(self, side: str, term: str = "layers") -> np.ndarray:
        return getattr(self.term(term).projections, side).weight.detach().double().numpy()

    def rail(self, weights: tuple[float, ...] = (1.0, 1.0)) -> list[float]:
        """Return α_i times the mean distance of each pair of mean-pooled, projected states, by both models' maps."""
        w_s, w_t = self.weights("student"), self.weights("teacher")
        return [
            alpha
            * ((unit(self.mean(self.h_s[i]) @ w_s[i - 1]) - unit(self.mean(self.h_t[j]) @ w_t[j - 1])) ** 2)
            .sum(-1)
            .mean()
            for alpha, i, j in zip(weights, (1, 2), self.drawn(), strict=True)
        ]

    def drawn(self) -> tuple[int, ...]:
        return tuple(t for _, t in self.objective.layer_pairs(START)["layers"])
