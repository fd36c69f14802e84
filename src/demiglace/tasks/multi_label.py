"""Multi-label classification of rows: any number of C named labels for each, also none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from demiglace.tasks.base import Divergence, Label, names_in
from demiglace.tasks.label_kinds import NamedLabels
from demiglace.tasks.metrics import OF_LABEL_LISTS, average_precisions

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_THRESHOLD = 1e-6  # and 1 minus it is the largest one: its logit is finite


@dataclass(frozen=True, eq=False)
class MultiLabel(NamedLabels):
    """Labels are 0 or 1, float32 [N, C]; logits are [N, C], of one Bernoulli distribution for each label.

    The loss is the binary cross-entropy, averaged over the labels, as in transformers. A label is predicted where its
    probability is above one threshold for all labels. Training sets it to the one with the highest micro-F1 on the
    validation rows. A threshold for each label would be fitted to the few positives of rare labels, and F1 of such a
    fit is too high by chance (Lipton et al. 2014, *Optimal Thresholding of Classifiers to Maximize F1 Measure*, arXiv
    1402.1892, "winner's curse").
    """

    threshold: float = 0.5  # probability above which a label is predicted

    def encode(self, labels: Sequence[Label | None], names: Sequence[str]) -> np.ndarray:
        """Return which labels each row has, float32 [N, C] of 0 and 1; NaN for a row without labels."""
        ids = {name: i for i, name in enumerate(names)}
        encoded = np.zeros((len(labels), len(names)), dtype=np.float32)
        for row, label in zip(encoded, labels, strict=True):
            if label is None:
                row[:] = math.nan
            else:
                row[[ids[name] for name in names_in(label)]] = 1
        return encoded

    def is_labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return which rows are not NaN."""
        return ~np.isnan(labels).any(axis=1)

    def loss(self, logits: "Tensor", labels: "Tensor") -> "Tensor":
        """Return the mean over labels of the binary cross-entropy."""
        import torch.nn.functional as F

        # a missing label is NaN, and NaN times the row's weight 0 would stay NaN
        return F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none").mean(-1)

    def divergence(self, student: "Tensor", teacher: "Tensor", categorical: Divergence) -> "Tensor":
        """Return the mean over labels of the method's divergence of two Bernoulli distributions.

        Each label is a binary problem with the probability σ(z/τ), as in Yang et al. 2023, *Multi-Label Knowledge
        Distillation*, arXiv 2308.06453 (MLD loss). They sum over labels; the mean keeps the ratio to the supervised
        loss.
        """
        return categorical(_two_classes(student), _two_classes(teacher)).mean(-1)

    def pseudo_label_loss(self, student: "Tensor", teacher: "Tensor") -> "Tensor":
        """Return the loss with the labels that the teacher predicts at the threshold."""
        return self.loss(student, (teacher > self._cut).to(student.dtype))

    def decode(self, logits: np.ndarray) -> np.ndarray:
        """Return the labels whose probability is above the threshold, float32 [N, C] of 0 and 1."""
        return (logits > self._cut).astype(np.float32)

    @property
    def _cut(self) -> float:
        """Return the logit of the threshold."""
        return math.log(self.threshold) - math.log1p(-self.threshold)

    def score_and_chance(self, labels: np.ndarray, logits: np.ndarray) -> tuple[str, float, float]:
        """Return the mean average precision and that of random scores, which is the mean share of rows with a label."""
        found, expected = average_precisions(labels, logits), labels.mean(axis=0)[labels.any(axis=0)]
        return (
            OF_LABEL_LISTS["map"].phrase,
            float(found.mean()) if len(found) else 0.0,
            float(expected.mean()) if len(expected) else 0.0,
        )

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return the rarest label of each row, −1 for a row without any, so that rare labels are in both parts."""
        has = labels == 1
        rarest = np.where(has, has.sum(axis=0), len(labels) + 1).argmin(axis=1)
        return np.where(has.any(axis=1), rarest, -1).astype(np.int64)

    def rows_by_name(self, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return the number of rows with each label."""
        return (labels == 1).sum(axis=0)

    def fitted(self, labels: np.ndarray, logits: np.ndarray) -> Self:
        """Return the kind with the threshold of the highest micro-F1 on these rows; unchanged if none has a label.

        It is halfway between two logits. Of equal values of F1, the highest threshold is taken.
        """
        known = self.is_labelled(labels)
        true, scores = labels[known].ravel(), logits[known].ravel().astype(np.float64)
        if not true.any():
            return self
        order = np.argsort(-scores, kind="stable")
        ranked, hits = scores[order], true[order].cumsum()
        below = np.append(ranked[1:], ranked[-1] - 1)
        f1 = np.where(below < ranked, 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1]), -1)  # no cut between ties
        best = int(f1.argmax())
        threshold = 1 / (1 + math.exp(-float(ranked[best] + below[best]) / 2))
        return self._with_threshold(min(max(threshold, _LEAST_THRESHOLD), 1 - _LEAST_THRESHOLD))

    def decision_rule(self) -> dict[str, Any]:
        """Return the threshold."""
        return {"threshold": self.threshold}

    def with_decision_rule(self, rule: Mapping[str, Any]) -> Self:
        """Return the kind with a threshold that `decision_rule` returned; unchanged without one."""
        threshold = rule.get("threshold", self.threshold)
        return self if threshold == self.threshold else self._with_threshold(float(threshold))

    def _with_threshold(self, threshold: float) -> Self:
        changed = replace(self, threshold=threshold)
        return replace(changed, readout=_readout(changed._cut))


def _two_classes(logits: "Tensor") -> "Tensor":
    """Return [..., 2] logits with the same probabilities: softmax of (z, 0) is σ(z)."""
    import torch

    return torch.stack([logits, torch.zeros_like(logits)], dim=-1)


def _readout(cut: float) -> str:
    return f"[name for name, z in zip(names, logits[0]) if z > {cut:.6g}]"


MULTI_LABEL = MultiLabel(
    name="multi-label",
    reads="rows",
    unit="row",
    metrics=OF_LABEL_LISTS,
    default_metrics=("micro_f1", "macro_f1", "map"),
    label_columns=("labels", "label", "tags", "categories", "topics", "emotions", "classes", "category", "topic"),
    label_dtype=np.float32,
    no_label=math.nan,
    has_classes=False,
    labels_in_words="",
    auto_class="AutoModelForSequenceClassification",
    problem_type="multi_label_classification",
    agreement_metric="subset_accuracy",
    parity_tolerance=0.0,
    readout=_readout(0.0),
    label_separators=("|", ";", ","),
    fits_decision_rule=True,
)
