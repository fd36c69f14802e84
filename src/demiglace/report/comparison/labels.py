"""A comparison's numbers and names in words."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from demiglace.evaluation.verdicts import NO_DIFFERENCE, UNKNOWN
from demiglace.report import format
from demiglace.report.format import count_of, if_exploratory, points
from demiglace.results.comparison import Comparison
from demiglace.results.schema import Cell, Difference, Key

_MARKS = {
    "better": "↑ better",
    "worse": "↓ worse",
    NO_DIFFERENCE: "not significant",
    UNKNOWN: "too few",
}
SHAPES = ("circle", "square", "diamond", "triangle", "down", "cross")
_COLOURS = 5  # of the style sheet


def mark(found: Difference | None, metric: str) -> str:
    """Return the note under a number: how it differs from the control."""
    if found is None:
        return ""
    shown = _MARKS.get(found.verdict, found.verdict)
    mde = "" if found.verdict != NO_DIFFERENCE or found.mde is None else f", MDE {points(found.mde, metric)}"
    return shown + mde + if_exploratory(found)


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


def seeds_in_words(cells: Sequence[Cell], unit: str) -> str:
    """Return how many units the means are over: ``5 seeds``, ``2 to 5 replicates``."""
    counts = sorted({len(c.seeds) for c in cells})
    return count_of(counts[0], unit) if len(counts) == 1 else f"{counts[0]} to {counts[-1]} {unit}s"


def series_styles(comparison: Comparison) -> Mapping[Key, tuple[str, str]]:
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
