"""The tests of the comparison as tables: the primary ones, then those of every set and average."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.comparison.labels import Key
from demiglace.report.tables import Cell, Column, Table
from demiglace.results.comparison import Comparison
from demiglace.results.schema import Difference, Primary


@dataclass(frozen=True)
class _Test:
    """One difference: of whom, on what, in which metric, from which control."""

    key: Key
    place: str
    metric: str
    control: str
    found: Difference


def primary_table(comparison: Comparison) -> Table | None:
    """Return one row for each test that the grid declares; None where it declares none."""
    titles = ("Contrast", "On", "Difference", _interval(comparison), "p", "Corrected p", "Verdict", "Equivalence")
    columns = tuple(Column(title, text=title in ("Contrast", "On", "Verdict", "Equivalence")) for title in titles)
    rows = tuple(_primary(comparison, entry) for entry in comparison.primary)
    return Table(columns, rows, ("",) * len(rows)) if rows else None


def _primary(comparison: Comparison, entry: Primary) -> tuple[Cell, ...]:
    name = labels.name_of((entry.student, entry.method), comparison)
    head = Cell(f"{name} − {format.shorten(entry.control, 40)}"), Cell(_where(comparison, entry))
    if entry.test is None or entry.metric is None:
        return *head, *(Cell(format.MISSING) for _ in range(4)), Cell("not tested: runs are missing"), Cell("")
    test, metric = entry.test, entry.metric
    equal = "" if entry.equivalence is None else labels.equivalence_in_words(entry.equivalence, metric)
    decided = test.verdict in ("better", "worse")
    verdict = Cell(labels.verdict_in_words(test, metric), quiet=not decided)
    return *head, *_numbers(test, metric), verdict, Cell(equal or format.MISSING)


def _where(comparison: Comparison, entry: Primary) -> str:
    if not entry.average:
        return format.shorten(entry.tasks[0], 40)
    every = set(entry.tasks) == set(comparison.tasks)
    return "average" if every else f"average of {labels.listed([format.shorten(t, 40) for t in entry.tasks])}"


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
            name = labels.set_name(s.name, own, cell.task)
            several = not own and len(comparison.tasks) > 1
            place = f"{name}, of {format.shorten(cell.task, 40)}" if several else name
            yield from (_Test(cell.key, place, s.metric, control, d) for control, d in s.against.items())


def _of_averages(found: list[tuple[Key, Mapping[str, Difference]]]) -> Iterator[_Test]:
    for key, against in found:
        yield from (_Test(key, "average", "average", control, d) for control, d in against.items())


def _interval(comparison: Comparison) -> str:
    return f"{labels.percent(float(comparison.test['level']))} interval"


def _table(comparison: Comparison, tests: list[_Test]) -> Table:
    by_unit = f"McNemar’s p by {comparison.unit}"
    titles = ("Method", "On", "Against", "Difference", _interval(comparison), "p", "Corrected p", by_unit)
    texts = ("Method", "On", "Against", "Verdict")
    columns = tuple(Column(title, text=title in texts) for title in (*titles, "Verdict"))
    marks = tuple("control" if comparison.control_of(t.key) else "" for t in tests)
    return Table(columns, tuple(_row(comparison, t) for t in tests), marks)


def _row(comparison: Comparison, test: _Test) -> tuple[Cell, ...]:
    found = test.found
    return (
        Cell(labels.name_of(test.key, comparison)),
        Cell(test.place),
        Cell(format.shorten(test.control, 40)),
        *_numbers(found, test.metric),
        Cell(" ".join(map(labels.probability, found.mcnemar)) or format.MISSING),
        Cell(labels.verdict_in_words(found, test.metric), quiet=found.verdict not in ("better", "worse")),
    )


def _numbers(found: Difference, metric: str) -> tuple[Cell, ...]:
    """The difference, its interval, p and the corrected p."""
    return (
        Cell(labels.signed(found.difference, metric), found.difference),
        Cell(labels.interval_in_words(found, metric), None if found.interval is None else found.interval[0]),
        Cell(labels.probability(found.p), found.p),
        Cell(labels.probability(found.p_corrected), found.p_corrected),
    )
