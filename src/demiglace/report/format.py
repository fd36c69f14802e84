"""Numbers and names in words: one way to write each quantity, in the terminal and on the page."""

import math
from dataclasses import dataclass
from typing import Any

MISSING = "–"
_TURNING = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])  # bidirectional controls of Unicode
_SPACE = "\u00a0"  # keeps a number and its unit on one line


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


def in_sentence(metric: str) -> str:
    """A metric's name inside a sentence: ``accuracy``, ``macro-F1``, ``Pearson r``."""
    title = measure(metric).title
    return {"Accuracy": "accuracy", "Macro-F1": "macro-F1", "Mean squared error": "mean squared error"}.get(
        title, title
    )


def finite(value: Any) -> float | None:
    """The value where it is a finite number, else None: manifests may hold NaN, null or nothing."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def score(value: float | None, metric: str) -> str:
    """A metric's value: ``91.8 %`` or ``0.563``."""
    return share(value) if measure(metric).percent else decimal(value)


def share(value: float | None) -> str:
    """A fraction as a percentage: ``91.8 %``."""
    return MISSING if value is None else f"{100 * value:.1f}{_SPACE}%"


def decimal(value: float | None) -> str:
    """A number with three decimals."""
    return MISSING if value is None else f"{value:.3f}"


def count(value: float | None) -> str:
    """A whole number: ``3,080``."""
    return MISSING if value is None else f"{value:,.0f}"


def millions(value: float | None) -> str:
    """A number of parameters: ``22.7 M``."""
    if value is None:
        return MISSING
    return f"{value / 1e6:,.1f}{_SPACE}M" if value >= 1e5 else f"{value / 1e3:,.1f}{_SPACE}k"


def megabytes(value: float | None) -> str:
    """Bytes in megabytes (10^6): ``90.9 MB``."""
    return MISSING if value is None else f"{value / 1e6:,.1f}{_SPACE}MB"


def milliseconds(value: float | None) -> str:
    """``14.5 ms``, three significant digits from 100 on none behind the point."""
    if value is None:
        return MISSING
    return f"{value:,.0f}{_SPACE}ms" if value >= 100 else f"{value:.{1 if value >= 1 else 2}f}{_SPACE}ms"


def seconds(value: float | None) -> str:
    """``168 s``."""
    return MISSING if value is None else f"{value:,.{0 if value >= 10 else 1}f}{_SPACE}s"


def small(value: float | None) -> str:
    """A difference near zero: ``1.9e-06``."""
    return MISSING if value is None else f"{value:.2g}"


def times(ratio: float) -> str:
    """A factor: ``3.1``, ``12``."""
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def shorten(text: str, length: int = 60) -> str:
    """The text with its middle left out where it is longer than `length`; paths differ at their ends.

    Characters that turn the direction of what follows are left out: they would reach into the words around the text.
    """
    text = undirected(text)
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}…{text[len(text) - (length - head - 1) :]}"


def undirected(text: str) -> str:
    """The text without the characters that turn the direction of what follows."""
    return text.translate(_TURNING)
