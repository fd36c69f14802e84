"""Classification of rows: one of C named classes for each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from demiglace.tasks.base import Label
from demiglace.tasks.label_kinds import LABEL_COLUMNS, NamedLabels
from demiglace.tasks.metrics import OF_CLASSES

if TYPE_CHECKING:
    from torch import Tensor

UNLABELLED = -100  # class id of a row without a label, which PyTorch's cross-entropy ignores


class Classification(NamedLabels):
    """Labels are class ids, int64 [N]; logits are [N, C]; the loss is cross-entropy."""

    def encode(self, labels: Sequence[Label | None], names: Sequence[str]) -> np.ndarray:
        """Return class ids, int64 [N]; `UNLABELLED` for a missing label."""
        ids: dict[Label | None, int] = {name: i for i, name in enumerate(names)}
        ids[None] = UNLABELLED
        return np.array([ids[label] for label in labels], dtype=np.int64)

    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return which ids are classes."""
        return labels >= 0

    def loss(self, logits: "Tensor", labels: "Tensor") -> "Tensor":
        """Return the cross-entropy with the labels; 0 for a row without one."""
        import torch.nn.functional as F

        return F.cross_entropy(logits, labels, reduction="none", ignore_index=UNLABELLED)

    def decode(self, logits: np.ndarray) -> np.ndarray:
        """Return the most likely class, int64 [N]."""
        return logits.argmax(axis=1)

    def score_and_chance(self, labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
        """Return the accuracy and the share of the most frequent class."""
        accuracy = float((self.decode(logits) == labels).mean())
        return "accuracy", accuracy, float(np.unique(labels, return_counts=True)[1].max() / len(labels))

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return the class of each row."""
        return labels

    def rows_by_name(self, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return the number of rows of each class."""
        return np.bincount(labels[self.is_labelled(labels)], minlength=len(names))


CLASSIFICATION = Classification(
    name="classification",
    reads="rows",
    unit="row",
    metrics=OF_CLASSES,
    default_metrics=("accuracy", "macro_f1"),
    label_columns=LABEL_COLUMNS,
    label_dtype=np.int64,
    no_label=UNLABELLED,
    has_classes=True,
    labels_in_words="",
    auto_class="AutoModelForSequenceClassification",
    problem_type="single_label_classification",
    agreement_metric="accuracy",
    parity_tolerance=0.0,
    readout="",
)
