"""Numbers and names as text: one format for each quantity, on pages, in tables, on cards and in the terminal."""

import math
from collections.abc import Sequence

from demiglace.escaping import BIDI_CONTROLS
from demiglace.evaluation.verdicts import NO_DIFFERENCE
from demiglace.results.metric_table import metric_of
from demiglace.results.schema import Difference, Equivalence, SeedStats

MISSING = "–"
_DIRECTION = dict.fromkeys(BIDI_CONTROLS)
_SPACE = "\u00a0"  # keeps a number and its unit on one line
_COUNTS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_TIMES = ((1e3, "s"), (1.0, "ms"))  # of milliseconds


def score(value: float | None, name: str) -> str:
    """Return a metric's value: ``85.1`` in points of 100, ``0.300`` for a plain number."""
    metric = metric_of(name)
    return MISSING if value is None else f"{metric.scale * value:.{metric.decimals}f}"


def score_tick(value: float, name: str) -> str:
    """Return a metric's value at an axis, with no more digits than it needs: ``85``, ``0.25``."""
    return f"{metric_of(name).scale * value:.4g}"


def signed(value: float, name: str) -> str:
    """Return a difference with its sign: ``+1.2``, ``−0.3``; ``0.0`` without one."""
    text = score(abs(value), name)
    return text if not float(text) else f"{'−' if value < 0 else '+'}{text}"


def mean_and_deviation(spread: SeedStats, name: str) -> str:
    """Return ``85.1 ± 0.4``; the mean alone where there is one seed."""
    mean = score(spread.mean, name)
    return mean if spread.sd is None else f"{mean} ± {score(spread.sd, name)}"


def size_in_words(value: float, name: str) -> str:
    """Return the size of a difference with its unit: ``1.3 points``, ``0.012``."""
    size = score(abs(value), name)
    return size if metric_of(name).unit == "plain" else f"{size} point{'' if size == '1.0' else 's'}"


def difference_in_words(found: Difference, name: str, level: float) -> str:
    """Return ``+1.2 (95 % interval 0.3 to 2.1)``."""
    interval = "" if found.interval is None else f" ({percent(level)} interval {interval_in_words(found, name)})"
    return signed(found.difference, name) + interval


def interval_in_words(found: Difference, name: str) -> str:
    """Return ``−0.3 to 2.1``."""
    if found.interval is None:
        return MISSING
    return " to ".join(signed(v, name).removeprefix("+") for v in found.interval)


def mde(found: Difference | None, name: str) -> str:
    """Return the minimum detectable effect of a test that finds no difference: ``MDE 1.3``; empty for others."""
    if found is None or found.verdict != NO_DIFFERENCE or found.mde is None:
        return ""
    return f"MDE {score(found.mde, name)}"


def detectable(found: Difference, name: str) -> str:
    """Return the minimum detectable effect in words: ``detectable: 1.3 points``; empty where a test finds something."""
    if found.verdict != NO_DIFFERENCE or found.mde is None:
        return ""
    return f"detectable: {size_in_words(found.mde, name)}"


def verdict_in_words(found: Difference, name: str) -> str:
    """Return ``better``, ``better, exploratory``, ``no significant difference (detectable: 1.3 points)``."""
    limit = detectable(found, name)
    return f"{found.verdict} ({limit})" if limit else f"{found.verdict}{if_exploratory(found)}"


def equivalence_in_words(found: Equivalence, name: str) -> str:
    """Return ``equivalent within ±1.0 points, p 0.012``."""
    p = "" if found.p_corrected is None else f", p {probability(found.p_corrected)}"
    return f"{found.verdict} within ±{size_in_words(found.margin, name)}{p}"


def adverb(found: Difference) -> str:
    """Return ``significantly better`` for a corrected test, ``better (exploratory)`` for others."""
    return f"{found.verdict} (exploratory)" if found.exploratory else f"significantly {found.verdict}"


def if_exploratory(found: Difference) -> str:
    """Return ``, exploratory`` for a difference that was not declared before the runs, else nothing."""
    return ", exploratory" if found.exploratory and found.verdict in ("better", "worse") else ""


def probability(p: float | None) -> str:
    """Return ``0.032`` or ``<0.001``."""
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def share(value: float | None) -> str:
    """Return a fraction as a percentage: ``91.8 %``."""
    return MISSING if value is None else f"{100 * value:.1f}{_SPACE}%"


def percent(value: float) -> str:
    """Return a fraction as a percentage without decimals: ``95 %``."""
    return f"{100 * value:.0f}{_SPACE}%"


def count(value: float | None) -> str:
    """Return an integer: ``3,080``."""
    return MISSING if value is None else f"{value:,.0f}"


def parameters(value: float | None) -> str:
    """Return a number of parameters: ``22.7 M``, ``77.9 k``."""
    return MISSING if value is None else _with_unit(value, _COUNTS)


def size(value: float | None) -> str:
    """Return bytes in powers of 1000: ``90.9 MB``."""
    return MISSING if value is None else _with_unit(value, _BYTES)


def milliseconds(value: float | None) -> str:
    """Return a duration given in ms: ``14.5 ms``, ``1.05 s``."""
    return MISSING if value is None else _with_unit(value, _TIMES)


def rate(value: float | None) -> str:
    """Return a number per second: ``1,050``, ``41.2``."""
    return MISSING if value is None else three_digits(value)


def seconds(value: float | None) -> str:
    """Return a duration given in s: ``168 s``, ``1.05 s``."""
    return MISSING if value is None else f"{three_digits(value)}{_SPACE}s"


def _with_unit(value: float, units: Sequence[tuple[float, str]]) -> str:
    """Write a value in the largest unit in which it is at least 1; below all units in the last one, or in none."""
    for factor, unit in units:
        if abs(float(f"{value:.3g}")) >= factor:
            return f"{three_digits(value / factor)}{_SPACE}{unit}"
    return f"{three_digits(value)}{_SPACE}{units[-1][1]}" if units[-1][0] == 1 else three_digits(value)


def three_digits(value: float) -> str:
    """Return a number with three significant digits and no exponent: ``1.05``, ``77.9``, ``12,345``, ``0``."""
    rounded = float(f"{value:.3g}")
    if not rounded:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{decimals}f}"


def small(value: float | None) -> str:
    """Return a difference near zero: ``1.9e-06``."""
    return MISSING if value is None else f"{value:.2g}"


def times(ratio: float) -> str:
    """Return a factor: ``3.1``, ``12``."""
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def listed(words: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def count_of(number: int, thing: str) -> str:
    """Return ``1 task`` or ``3 tasks``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def shorten(text: str, length: int = 60) -> str:
    """Return the text without its middle where it is longer than `length`; paths differ at their ends.

    Characters that change the direction of the text are removed: they would reach into the words around it.
    """
    text = strip_bidi_controls(text)
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}…{text[len(text) - (length - head - 1) :]}"


def strip_bidi_controls(text: str) -> str:
    """Return the text without the characters that change its direction."""
    return text.translate(_DIRECTION)
