"""Where students and their teachers predict different labels: counts, pairs of labels, example rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.tables import Cell as Entry
from demiglace.report.tables import Column, Table
from demiglace.results.comparison import Comparison
from demiglace.results.schema import Cell, Key

_MOST_EXAMPLES, _MOST_PAIRS = 5, 5
_COUNTS = {"both_right": "Both right", "lost": "Lost", "gained": "Gained", "both_wrong": "Both wrong"}


@dataclass(frozen=True)
class Example:
    """A row for which teacher and student predict different labels."""

    text: str
    pair: str
    label: str
    teacher: str
    student: str
    long: bool  # whether it is shown in a box that scrolls


@dataclass(frozen=True)
class Changes:
    """The changes of one task."""

    task: str
    counts: Table  # by method
    name: str  # of the student that the rest is about
    pairs: tuple[tuple[str, str, int], ...]  # (the teacher's label, the student's label, rows), the most frequent ones
    lost: tuple[Example, ...]
    gained: tuple[Example, ...]


def changes(comparison: Comparison, chosen: Key | None) -> tuple[Changes, ...]:
    """Return the changes of every task whose evaluations have some; examples are of `chosen`, first seed."""
    found = []
    for task in comparison.tasks:
        cells = [c for c in comparison.cells if c.task == task and c.changes]
        if cells:
            subject = next((c for c in cells if c.key == chosen), cells[0])
            found.append(_changes(comparison, task, cells, subject))
    return tuple(found)


def _changes(comparison: Comparison, task: str, cells: Sequence[Cell], subject: Cell) -> Changes:
    first = subject.changes[0]
    pairs = [(format.shorten(str(p["from"])), format.shorten(str(p["to"])), p["rows"]) for p in first["confusions"]]
    return Changes(
        task=task,
        counts=_counts(comparison, cells),
        name=labels.name_of(subject.key, comparison),
        pairs=tuple(pairs[:_MOST_PAIRS]),
        lost=tuple(map(_example, first["examples"]["lost"][:_MOST_EXAMPLES])),
        gained=tuple(map(_example, first["examples"]["gained"][:_MOST_EXAMPLES])),
    )


def _counts(comparison: Comparison, cells: Sequence[Cell]) -> Table:
    """Return mean counts over the seeds."""

    def numbers(cell: Cell) -> list[Entry]:
        found = [[c["counts"][name] for c in cell.changes] for name in _COUNTS]
        return [Entry(f"{m:,.0f}" if m.is_integer() else f"{m:,.1f}", m) for m in (sum(f) / len(f) for f in found)]

    rows = tuple((Entry(labels.name_of(c.key, comparison)), *numbers(c)) for c in cells)
    columns = (Column("Method", text=True), *map(Column, _COUNTS.values()))
    return Table(columns, rows, tuple("baseline" if c.baseline else "" for c in cells))


def _example(found: Mapping[str, Any]) -> Example:
    text, pair = (format.strip_bidi_controls(str(found[part] or "")) for part in ("text", "pair"))
    label, teacher, student = (format.shorten(str(found[part])) for part in ("label", "teacher", "student"))
    return Example(text, pair, label, teacher, student, len(text) + len(pair) > 400)
