"""Every test of the comparison: the tasks' own sets, their averages, and what is out of domain."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from demiglace.report import wording
from demiglace.report.comparison import words
from demiglace.report.comparison.content import Comparison
from demiglace.report.comparison.results import Difference
from demiglace.report.comparison.words import Key
from demiglace.report.tables import Cell, Column, Table


@dataclass(frozen=True)
class _Test:
    """One difference: of whom, on what, in which metric, from which control."""

    key: Key
    place: str
    metric: str
    control: str
    found: Difference


def test_tables(comparison: Comparison) -> list[tuple[str, Table]]:
    """The tests in tables of their own, with their headings; those without any are left out."""
    averages = comparison.averages.items() if len(comparison.tasks) > 1 else ()
    outside = [(key, a.against_outside) for key, a in comparison.averages.items()]
    found = {
        "the tasks’ own rows": [*_of_sets(comparison, own=True)],
        "average over the tasks": [*_of_averages([(key, a.against) for key, a in averages])],
        "out of domain": [*_of_sets(comparison, own=False)],
        "average out of domain": [*_of_averages(outside)],
    }
    return [(title, _table(comparison, tests)) for title, tests in found.items() if tests]


def _of_sets(comparison: Comparison, own: bool) -> Iterator[_Test]:
    for cell in comparison.cells:
        for s in (s for s in cell.sets.values() if s.own == own):
            name = words.set_name(s.name, own, cell.task)
            several = not own and len(comparison.tasks) > 1
            place = f"{name}, of {wording.shorten(cell.task, 40)}" if several else name
            yield from (_Test(cell.key, place, s.metric, control, d) for control, d in s.against.items())


def _of_averages(found: list[tuple[Key, Mapping[str, Difference]]]) -> Iterator[_Test]:
    for key, against in found:
        yield from (_Test(key, "average", "average", control, d) for control, d in against.items())


def _table(comparison: Comparison, tests: list[_Test]) -> Table:
    level = words.percent(float(comparison.test["level"]))
    titles = ("Method", "On", "Against", "Difference", f"{level} interval", "p", "Corrected p", "McNemar’s p by seed")
    texts = ("Method", "On", "Against", "Verdict")
    columns = tuple(Column(title, text=title in texts) for title in (*titles, "Verdict"))
    marks = tuple("control" if comparison.control_of(t.key) else "" for t in tests)
    return Table(columns, tuple(_row(comparison, t) for t in tests), marks)


def _row(comparison: Comparison, test: _Test) -> tuple[Cell, ...]:
    found = test.found
    return (
        Cell(words.name_of(test.key, comparison)),
        Cell(test.place),
        Cell(wording.shorten(test.control, 40)),
        Cell(words.signed(found.difference, test.metric), found.difference),
        Cell(words.interval_in_words(found, test.metric), found.interval[0]),
        Cell(words.probability(found.p), found.p),
        Cell(words.probability(found.p_corrected), found.p_corrected),
        Cell(" ".join(map(words.probability, found.mcnemar)) or wording.MISSING),
        Cell(found.verdict, quiet=found.verdict not in ("better", "worse")),
    )
