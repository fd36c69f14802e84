"""The table of every metric: name, title, unit, direction, number of decimals. All reports and tables read it."""

import math
from dataclasses import dataclass
from typing import Any, Literal

Unit = Literal["points", "plain"]


@dataclass(frozen=True)
class Metric:
    """How a metric is named and written, and which direction is better."""

    name: str  # in manifests and summaries
    title: str  # heading of a column
    phrase: str  # inside a sentence
    unit: Unit = "points"  # points: 100 times the value, as GLUE reports accuracies and correlations
    higher_is_better: bool = True
    decimals: int = 1
    hub: str = ""  # the Hub's name for it, where that is another one

    @property
    def sign(self) -> int:
        """Return 1 where higher is better, else −1."""
        return 1 if self.higher_is_better else -1

    @property
    def scale(self) -> int:
        """Return the factor from the stored value to the written one."""
        return 100 if self.unit == "points" else 1


_METRICS = {
    m.name: m
    for m in (
        Metric("accuracy", "Accuracy", "accuracy"),
        Metric("f1", "F1", "F1"),
        Metric("macro_f1", "Macro-F1", "macro-F1", hub="f1"),
        Metric("micro_f1", "Micro-F1", "micro-F1", hub="f1"),
        Metric("map", "Mean average precision", "mean average precision", hub="mean_average_precision"),
        Metric("subset_accuracy", "Subset accuracy", "subset accuracy", hub="accuracy"),
        Metric("matthews", "Matthews correlation", "Matthews correlation", hub="matthews_correlation"),
        Metric("entity_f1", "Entity F1", "entity F1", hub="f1"),
        Metric("entity_precision", "Precision", "precision of entities", hub="precision"),
        Metric("entity_recall", "Recall", "recall of entities", hub="recall"),
        Metric("word_accuracy", "Accuracy of words", "accuracy of words", hub="accuracy"),
        Metric("pearson", "Pearson r", "Pearson r", hub="pearsonr"),
        Metric("spearman", "Spearman ρ", "Spearman ρ", hub="spearmanr"),
        Metric("mrr", "MRR", "MRR"),
        Metric("recall_at_1", "Recall@1", "recall@1"),
        Metric("recall_at_10", "Recall@10", "recall@10"),
        Metric("average", "Average", "average"),
        Metric("agreement", "Agreement with teacher", "agreement with the teacher"),
        Metric("worst_class_f1", "Worst-class F1", "worst-class F1"),
        Metric("ece", "Calibration error (ECE)", "calibration error", higher_is_better=False),
        Metric("mse", "Mean squared error", "mean squared error", "plain", False, 3),
        Metric("loss", "Loss", "loss", "plain", False, 3),
        Metric("perplexity", "Perplexity", "perplexity", "plain", False, 3),
        Metric("word_perplexity", "Perplexity by word", "perplexity by word", "plain", False, 3),
        Metric("bits_per_byte", "Bits per byte", "bits per byte", "plain", False, 3),
    )
}


def metric_of(name: str) -> Metric:
    """Return the metric of a name; an unknown one is written as a plain number under its name."""
    words = name.replace("_", " ")
    return _METRICS.get(name) or Metric(name, words, words, "plain", True, 3)


def finite(value: Any) -> float | None:
    """Return the value where it is a finite number, else None: manifests may hold NaN, null or nothing."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None
