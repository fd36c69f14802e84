"""Names of a comparison's students, methods and sets in words, and their looks in drawings."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from demiglace.evaluation.verdicts import NO_DIFFERENCE, UNKNOWN
from demiglace.report import format
from demiglace.results.comparison import Comparison
from demiglace.results.schema import Cell, Difference, Key, find_artefact

_MARKS = {
    "better": "↑ better",
    "worse": "↓ worse",
    NO_DIFFERENCE: "not significant",
    UNKNOWN: "too few",
}
SHAPES = ("circle", "square", "diamond", "triangle", "down", "cross")
_COLOURS = 5  # of the style sheet


def mark(found: Difference | None, metric: str) -> str:
    """Return the note under a number: how it differs from the baseline."""
    if found is None:
        return ""
    shown = _MARKS.get(found.verdict, found.verdict)
    return ", ".join(filter(None, (shown, format.mde(found, metric)))) + format.if_exploratory(found)


def short(name: str) -> str:
    """Return the name of a set; of a file without its directory."""
    return name.rsplit("/", 1)[-1]


def full_set_name(name: str, own: bool, task: str) -> str:
    """Return a set's name in tables; for a file its last part, or the task's name where it belongs to the task."""
    if "/" not in name and "\\" not in name:
        return name
    return task if own else PurePath(name).name


def set_name(name: str, own: bool, task: str) -> str:
    """Return the same on pages, where it is shortened."""
    return format.shorten(full_set_name(name, own, task), 40)


def exported(comparison: Comparison) -> str:
    """Return which export the latencies and scores belong to: fp32; older comparisons do not record it."""
    return "fp32 export" if any(find_artefact(c.artefacts, "fp32") for c in comparison.cells) else "export"


def name_of(key: Key, comparison: Comparison) -> str:
    """Return the method; with its student where there are several."""
    student, method = (format.shorten(part, 40) for part in key)
    return f"{student}, {method}" if has_students(comparison) else method


def has_students(comparison: Comparison) -> bool:
    """Return whether there are several students, so that each has to be named."""
    return len({student for student, _ in comparison.keys}) > 1


def seeds_in_words(cells: Sequence[Cell], unit: str) -> str:
    """Return how many units the means are over: ``5 seeds``, ``2 to 5 replicates``."""
    counts = sorted({len(c.seeds) for c in cells})
    return format.count_of(counts[0], unit) if len(counts) == 1 else f"{counts[0]} to {counts[-1]} {unit}s"


def series_styles(comparison: Comparison) -> Mapping[Key, tuple[str, str]]:
    """Return a colour class and a shape for each student and method: colours differ by method, shapes by student.

    After five methods the colours repeat in other shapes, so that no two students share a shape. The baseline `none`
    has its own colour. Looks repeat where students and methods need more shapes than there are.
    """
    students = list(dict.fromkeys(student for student, _ in comparison.keys))
    methods = list(dict.fromkeys(k[1] for k in comparison.keys if comparison.baseline_of(k) != "none"))
    shapes = math.ceil(len(methods) / _COLOURS) or 1  # of each student
    found: dict[Key, tuple[str, str]] = {}
    for key in comparison.keys:
        student, baseline = students.index(key[0]), comparison.baseline_of(key) == "none"
        turn = 0 if baseline else methods.index(key[1])
        shape = SHAPES[(student * shapes + turn // _COLOURS) % len(SHAPES)]
        found[key] = ("baseline" if baseline else f"s{turn % _COLOURS + 1}", shape)
    return found
