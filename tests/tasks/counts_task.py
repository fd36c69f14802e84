"""A kind of problem that only tests have: counts, by Poisson regression. This file is all that it takes."""

import math
from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from demiglace.tasks.base import Divergence, Metric, RowTask


class Counts(RowTask):
    """Labels are counts 0, 1, 2, …; logits are [N, 1], the logarithm of the rate λ of a Poisson distribution."""

    def head_width(self, names: Sequence[str]) -> int:
        return 1

    def label_fault(self, label: str) -> str | None:
        return None if label.isdecimal() else "label is no count"

    def label_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return ()

    def encode(self, labels: Sequence[str | None], names: Sequence[str]) -> np.ndarray:
        return np.array([math.nan if label is None else int(label) for label in labels], dtype=np.float32)

    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        return ~np.isnan(labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """λ − y·log λ, the negative log-likelihood without its constant log y!."""
        return F.poisson_nll_loss(logits.squeeze(-1), labels.nan_to_num(), reduction="none")

    def divergence(self, student: Tensor, teacher: Tensor, categorical: Divergence) -> Tensor:
        """KL(Poisson(λ_T) ‖ Poisson(λ_S)) = λ_T·(log λ_T − log λ_S) − λ_T + λ_S."""
        return (teacher.exp() * (teacher - student) - teacher.exp() + student.exp()).squeeze(-1)

    def decode(self, logits: np.ndarray) -> np.ndarray:
        return np.exp(logits[:, 0])

    def score_and_chance(self, labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
        return "negative error", -_error(labels, self.decode(logits)), -_error(labels, np.median(labels))

    def hub_task(self, *, masked: bool) -> str:
        return "text-classification"


def _error(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.abs(labels - predictions).mean())


COUNTS = Counts(
    name="counts",
    reads="rows",
    unit="row",
    metrics={
        "mean_error": Metric(
            "Mean absolute error", "mean absolute error", _error, higher_is_better=False, unit="plain", decimals=3
        )
    },
    default_metrics=("mean_error",),
    label_columns=("stars", "count"),
    label_dtype=np.float32,
    no_label=math.nan,
    has_classes=False,
    labels_in_words="a count",
    auto_class="AutoModelForSequenceClassification",
    problem_type="regression",
    agreement_metric="mean_error",
    parity_tolerance=0.01,
    readout="logits[0][0].exp().item()",
)
