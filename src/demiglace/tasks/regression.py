"""Regression on rows: one number for each."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from demiglace.tasks.base import Divergence
from demiglace.tasks.label_kinds import LABEL_COLUMNS, NumberLabels
from demiglace.tasks.metrics import OF_NUMBERS

if TYPE_CHECKING:
    from torch import Tensor


class Regression(NumberLabels):
    """Labels are numbers, float32 [N]; logits are [N, 1]; the loss and the divergence are squared errors."""

    def head_width(self, names: Sequence[str]) -> int:
        """Return 1."""
        return 1

    def loss(self, logits: "Tensor", labels: "Tensor") -> "Tensor":
        """Return the squared error."""
        # a missing label is NaN, and NaN times the row's weight 0 would stay NaN
        return (logits.squeeze(-1) - labels.nan_to_num()).square()

    def divergence(self, student: "Tensor", teacher: "Tensor", categorical: Divergence) -> "Tensor":
        """Return the squared error of the two outputs, whatever divergence the method names."""
        from demiglace.losses.divergences import squared_error

        return squared_error(student, teacher)

    def decode(self, logits: np.ndarray) -> np.ndarray:
        """Return the output itself, float [N]."""
        return logits[:, 0]

    def score_and_chance(self, labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
        """Return R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)² and 0, the R² of the mean ȳ."""
        spread = float(np.square(labels - labels.mean()).sum()) or 1.0
        return "R²", 1 - float(np.square(labels - self.decode(logits)).sum()) / spread, 0.0

    def hub_task(self, *, masked: bool) -> str:
        """Return text-classification, which is where the Hub puts models with one output."""
        return "text-classification"


REGRESSION = Regression(
    name="regression",
    reads="rows",
    unit="row",
    metrics=OF_NUMBERS,
    default_metrics=("pearson", "spearman"),
    label_columns=LABEL_COLUMNS,
    label_dtype=np.float32,
    no_label=math.nan,
    has_classes=False,
    labels_in_words="a number",
    auto_class="AutoModelForSequenceClassification",
    problem_type="regression",
    agreement_metric="pearson",
    parity_tolerance=0.01,
    readout="float(logits[0][0])",
)
