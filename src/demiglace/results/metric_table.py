"""Metrics by name: those of the kinds of problems, and those of models and runs. All reports and tables read them."""

import math
from typing import Any

from demiglace.tasks.base import Metric
from demiglace.tasks.registry import all_metrics

_OTHERS = {
    "average": Metric("Average", "average"),
    "agreement": Metric("Agreement with teacher", "agreement with the teacher"),
    "worst_class_f1": Metric("Worst-class F1", "worst-class F1"),
    "ece": Metric("Calibration error (ECE)", "calibration error", higher_is_better=False),
    "word_perplexity": Metric(
        "Perplexity by word", "perplexity by word", higher_is_better=False, unit="plain", decimals=3
    ),
    "bits_per_byte": Metric("Bits per byte", "bits per byte", higher_is_better=False, unit="plain", decimals=3),
}


def metric_of(name: str) -> Metric:
    """Return the metric of a name; an unknown one is written as a plain number under its name."""
    words = name.replace("_", " ")
    known = all_metrics() | _OTHERS
    return known.get(name) or Metric(words, words, unit="plain", decimals=3)


def finite(value: Any) -> float | None:
    """Return the value where it is a finite number, else None: manifests may hold NaN, null or nothing."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None
