"""Where students answer otherwise than their teachers: counts, pairs of labels, rows to read."""

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
    """A row that teacher and student answer differently. long: whether it needs a box of its own to scroll in."""

    text: str
    pair: str
    label: str
    teacher: str
    student: str
    long: bool


@dataclass(frozen=True)
class Changes:
    """One task's changes: counts by method, the most frequent confusions and rows of the student that is spoken of.

    pairs: (what the teacher said, what the student says, rows).
    """

    task: str
    counts: Table
    name: str
    pairs: tuple[tuple[str, str, int], ...]
    lost: tuple[Example, ...]
    gained: tuple[Example, ...]


def changes(comparison: Comparison, chosen: Key | None) -> tuple[Changes, ...]:
    """The changes of every task whose evaluations have some; examples are those of `chosen`, first seed."""
    found = []
    for task in comparison.tasks:
        cells = [c for c in comparison.cells if c.task == task and c.changes]
        if cells:
            spoken = next((c for c in cells if c.key == chosen), cells[0])
            found.append(_changes(comparison, task, cells, spoken))
    return tuple(found)


def _changes(comparison: Comparison, task: str, cells: Sequence[Cell], spoken: Cell) -> Changes:
    first = spoken.changes[0]
    pairs = [(format.shorten(str(p["from"])), format.shorten(str(p["to"])), p["rows"]) for p in first["confusions"]]
    return Changes(
        task=task,
        counts=_counts(comparison, cells),
        name=labels.name_of(spoken.key, comparison),
        pairs=tuple(pairs[:_MOST_PAIRS]),
        lost=tuple(map(_example, first["examples"]["lost"][:_MOST_EXAMPLES])),
        gained=tuple(map(_example, first["examples"]["gained"][:_MOST_EXAMPLES])),
    )


def _counts(comparison: Comparison, cells: Sequence[Cell]) -> Table:
    """Mean counts over the seeds."""

    def numbers(cell: Cell) -> list[Entry]:
        found = [[c["counts"][name] for c in cell.changes] for name in _COUNTS]
        return [Entry(f"{m:,.0f}" if m.is_integer() else f"{m:,.1f}", m) for m in (sum(f) / len(f) for f in found)]

    rows = tuple((Entry(labels.name_of(c.key, comparison)), *numbers(c)) for c in cells)
    columns = (Column("Method", text=True), *map(Column, _COUNTS.values()))
    return Table(columns, rows, tuple("control" if c.control else "" for c in cells))


def _example(found: Mapping[str, Any]) -> Example:
    text, pair = (format.strip_bidi_controls(str(found[part] or "")) for part in ("text", "pair"))
    label, teacher, student = (format.shorten(str(found[part])) for part in ("label", "teacher", "student"))
    return Example(text, pair, label, teacher, student, len(text) + len(pair) > 400)
