"""Numbers and names in words: one way to write each quantity, in the terminal and on the page."""

from collections.abc import Sequence

from demiglace.evaluation.verdicts import NO_DIFFERENCE
from demiglace.results.metrics import in_points, measure
from demiglace.results.schema import Difference, Equivalence, SeedStats

MISSING = "–"
_TURNING = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])  # bidirectional controls of Unicode
_SPACE = "\u00a0"  # keeps a number and its unit on one line


def in_sentence(metric: str) -> str:
    """A metric's name inside a sentence: ``accuracy``, ``macro-F1``, ``Pearson r``."""
    title = measure(metric).title
    return {"Accuracy": "accuracy", "Macro-F1": "macro-F1", "Mean squared error": "mean squared error"}.get(
        title, title
    )


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
    text = strip_bidi_controls(text)
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}…{text[len(text) - (length - head - 1) :]}"


def strip_bidi_controls(text: str) -> str:
    """The text without the characters that turn the direction of what follows."""
    return text.translate(_TURNING)


def points(value: float | None, metric: str) -> str:
    """``85.1`` for what has points of 100, else three decimals."""
    if value is None:
        return MISSING
    return f"{100 * value:.1f}" if in_points(metric) else decimal(value)


def signed(value: float, metric: str) -> str:
    """A difference with its sign: ``+1.2``, ``−0.3``."""
    text = points(abs(value), metric)
    return text if not float(text) else f"{'−' if value < 0 else '+'}{text}"


def mean_and_deviation(spread: SeedStats, metric: str) -> str:
    """``85.1 ± 0.4``; the mean alone where there is one seed."""
    mean = points(spread.mean, metric)
    return mean if spread.sd is None else f"{mean} ± {points(spread.sd, metric)}"


def metric_title(metric: str) -> str:
    """A metric inside a sentence: ``average``, ``accuracy``, ``macro-F1``."""
    return in_sentence(metric)


def difference_in_words(found: Difference, metric: str, level: float) -> str:
    """Return ``+1.2 (95 % interval 0.3 to 2.1)``."""
    interval = "" if found.interval is None else f" ({percent(level)} interval {interval_in_words(found, metric)})"
    return signed(found.difference, metric) + interval


def interval_in_words(found: Difference, metric: str) -> str:
    """Return ``−0.3 to 2.1``."""
    if found.interval is None:
        return MISSING
    return " to ".join(signed(v, metric).removeprefix("+") for v in found.interval)


def in_bare_points(value: float, metric: str) -> str:
    """Return a difference without its sign, with its unit: ``1.3 points``, ``0.012``."""
    size = points(abs(value), metric)
    return f"{size} point{'' if size == '1.0' else 's'}" if in_points(metric) else size


def could_have_seen(found: Difference, metric: str) -> str:
    """Return what a test without a finding could have seen: ``could have seen 1.3 points``; empty for others."""
    if found.verdict != NO_DIFFERENCE or found.mde is None:
        return ""
    return f"could have seen {in_bare_points(found.mde, metric)}"


def verdict_in_words(found: Difference, metric: str) -> str:
    """Return ``better``, ``better, exploratory``, ``no significant difference (could have seen 1.3 points)``."""
    seen = could_have_seen(found, metric)
    return f"{found.verdict} ({seen})" if seen else f"{found.verdict}{if_exploratory(found)}"


def equivalence_in_words(found: Equivalence, metric: str) -> str:
    """Return ``equivalent within ±1.0 points, p 0.012``."""
    p = "" if found.p_corrected is None else f", p {probability(found.p_corrected)}"
    return f"{found.verdict} within ±{in_bare_points(found.margin, metric)}{p}"


def adverb(found: Difference) -> str:
    """Return ``significantly better`` of a test that was corrected, ``better (exploratory)`` of others."""
    return f"{found.verdict} (exploratory)" if found.exploratory else f"significantly {found.verdict}"


def if_exploratory(found: Difference) -> str:
    """Return ``, exploratory`` for a difference that was not declared before the runs, else nothing."""
    return ", exploratory" if found.exploratory and found.verdict in ("better", "worse") else ""


def percent(level: float) -> str:
    """``95 %``."""
    return f"{100 * level:.0f}\u00a0%"


def probability(p: float | None) -> str:
    """``0.032``, ``<0.001``."""
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def count_of(number: int, thing: str) -> str:
    """``1 task``, ``3 tasks``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
