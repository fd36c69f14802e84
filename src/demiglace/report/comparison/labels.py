"""A comparison's numbers and names in words."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from demiglace.report import format
from demiglace.results.comparison import Comparison
from demiglace.results.schema import Cell, Difference, Equivalence, Spread

Key = tuple[str, str]  # student, method
_LOWER_IS_BETTER = ("mse", "loss", "ece")
_POINTS = (
    *("accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "average"),
    *("agreement", "ece", "worst_class_f1"),
)
NO_DIFFERENCE, UNKNOWN = "no significant difference", "too few seeds to tell"
_MARKS = {
    "better": "↑ better",
    "worse": "↓ worse",
    NO_DIFFERENCE: "not significant",
    UNKNOWN: "too few",
}
SHAPES = ("circle", "square", "diamond", "triangle", "down", "cross")
_COLOURS = 5  # of the style sheet


def in_points(metric: str) -> bool:
    """Whether a metric is written in points of 100, as correlations are in the literature on GLUE."""
    return metric in _POINTS


def points(value: float | None, metric: str) -> str:
    """``85.1`` for what has points of 100, else three decimals."""
    if value is None:
        return format.MISSING
    return f"{100 * value:.1f}" if in_points(metric) else format.decimal(value)


def signed(value: float, metric: str) -> str:
    """A difference with its sign: ``+1.2``, ``−0.3``."""
    text = points(abs(value), metric)
    return text if not float(text) else f"{'−' if value < 0 else '+'}{text}"


def mean_and_deviation(spread: Spread, metric: str) -> str:
    """``85.1 ± 0.4``; the mean alone where there is one seed."""
    mean = points(spread.mean, metric)
    return mean if spread.sd is None else f"{mean} ± {points(spread.sd, metric)}"


def sign(metric: str) -> int:
    """1 where higher is better, else −1."""
    return -1 if metric in _LOWER_IS_BETTER else 1


def in_full(metric: str) -> str:
    """A metric inside a sentence: ``average``, ``accuracy``, ``macro-F1``."""
    return format.in_sentence(metric)


def difference_in_words(found: Difference, metric: str, level: float) -> str:
    """Return ``+1.2 (95 % interval 0.3 to 2.1)``."""
    interval = "" if found.interval is None else f" ({percent(level)} interval {interval_in_words(found, metric)})"
    return signed(found.difference, metric) + interval


def interval_in_words(found: Difference, metric: str) -> str:
    """Return ``−0.3 to 2.1``."""
    if found.interval is None:
        return format.MISSING
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
    return f"{found.verdict} ({seen})" if seen else f"{found.verdict}{_exploratory(found)}"


def equivalence_in_words(found: Equivalence, metric: str) -> str:
    """Return ``equivalent within ±1.0 points, p 0.012``."""
    p = "" if found.p_corrected is None else f", p {probability(found.p_corrected)}"
    return f"{found.verdict} within ±{in_bare_points(found.margin, metric)}{p}"


def adverb(found: Difference) -> str:
    """Return ``significantly better`` of a test that was corrected, ``better (exploratory)`` of others."""
    return f"{found.verdict} (exploratory)" if found.exploratory else f"significantly {found.verdict}"


def _exploratory(found: Difference) -> str:
    return ", exploratory" if found.exploratory and found.verdict in ("better", "worse") else ""


def percent(level: float) -> str:
    """``95 %``."""
    return f"{100 * level:.0f}\u00a0%"


def mark(found: Difference | None, metric: str) -> str:
    """Return the note under a number: how it differs from the control."""
    if found is None:
        return ""
    shown = _MARKS.get(found.verdict, found.verdict)
    mde = "" if found.verdict != NO_DIFFERENCE or found.mde is None else f", MDE {points(found.mde, metric)}"
    return shown + mde + _exploratory(found)


def probability(p: float | None) -> str:
    """``0.032``, ``<0.001``."""
    if p is None:
        return format.MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def exported(comparison: Comparison) -> str:
    """Which export latencies are those of: fp32, of which the scores are too; older comparisons do not say."""
    return "fp32 export" if any("fp32" in c.artefacts for c in comparison.cells) else "export"


def name_of(key: Key, comparison: Comparison) -> str:
    """The method; with its student where there are several."""
    student, method = (format.shorten(part, 40) for part in key)
    return f"{student}, {method}" if has_students(comparison) else method


def has_students(comparison: Comparison) -> bool:
    """Whether there are several students, so that each has to be named."""
    return len({student for student, _ in comparison.keys}) > 1


def set_name(name: str, own: bool, task: str) -> str:
    """A set as it is shown: of a file its last part, and the task's name where the file is the task's own."""
    if "/" not in name and "\\" not in name:
        return format.shorten(name, 40)
    return format.shorten(task if own else PurePath(name).name, 40)


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def count_of(number: int, thing: str) -> str:
    """``1 task``, ``3 tasks``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def seeds_in_words(cells: Sequence[Cell], unit: str) -> str:
    """Return how many units the means are over: ``5 seeds``, ``2 to 5 replicates``."""
    counts = sorted({len(c.seeds) for c in cells})
    return count_of(counts[0], unit) if len(counts) == 1 else f"{counts[0]} to {counts[-1]} {unit}s"


def looks(comparison: Comparison) -> Mapping[Key, tuple[str, str]]:
    """A colour class and a shape for each student and method: colours tell methods apart, shapes students.

    After five methods the colours come again, in other shapes, so that each student has shapes of its own; the control
    `none` has a colour of its own. Looks repeat where students and methods need more shapes than there are.
    """
    students = list(dict.fromkeys(student for student, _ in comparison.keys))
    methods = list(dict.fromkeys(k[1] for k in comparison.keys if comparison.control_of(k) != "none"))
    shapes = math.ceil(len(methods) / _COLOURS) or 1  # of each student
    found: dict[Key, tuple[str, str]] = {}
    for key in comparison.keys:
        student, control = students.index(key[0]), comparison.control_of(key) == "none"
        turn = 0 if control else methods.index(key[1])
        shape = SHAPES[(student * shapes + turn // _COLOURS) % len(SHAPES)]
        found[key] = ("control" if control else f"s{turn % _COLOURS + 1}", shape)
    return found
