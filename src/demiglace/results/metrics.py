"""Every metric: its name, unit, direction and format."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """How a metric is written and which direction is better."""

    title: str
    percent: bool = False
    higher_is_better: bool = True


_MEASURES = {
    "accuracy": Measure("Accuracy", percent=True),
    "f1": Measure("F1", percent=True),
    "macro_f1": Measure("Macro-F1", percent=True),
    "matthews": Measure("Matthews correlation"),
    "pearson": Measure("Pearson r"),
    "spearman": Measure("Spearman ρ"),
    "mse": Measure("Mean squared error", higher_is_better=False),
    "loss": Measure("Loss", higher_is_better=False),
    "perplexity": Measure("Perplexity", higher_is_better=False),
    "word_perplexity": Measure("Perplexity by word", higher_is_better=False),
    "bits_per_byte": Measure("Bits per byte", higher_is_better=False),
}


def measure(metric: str) -> Measure:
    """How a metric is shown; one that is not known is shown by its name."""
    return _MEASURES.get(metric) or Measure(metric.replace("_", " "))


def finite(value: Any) -> float | None:
    """The value where it is a finite number, else None: manifests may hold NaN, null or nothing."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


_LOWER_IS_BETTER = ("mse", "loss", "ece")


_POINTS = (
    *("accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "average"),
    *("agreement", "ece", "worst_class_f1"),
)


def in_points(metric: str) -> bool:
    """Whether a metric is written in points of 100, as correlations are in the literature on GLUE."""
    return metric in _POINTS


def sign(metric: str) -> int:
    """1 where higher is better, else −1."""
    return -1 if metric in _LOWER_IS_BETTER else 1
