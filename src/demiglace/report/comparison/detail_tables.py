"""The tests of the comparison as tables: the primary ones, then those of every set and average."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.comparison.tables import Columns, build_table, in_order
from demiglace.report.tables import Cell, Column, Table
from demiglace.results.comparison import Comparison, Cost
from demiglace.results.schema import Difference, Key, Primary


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
    equal = "" if entry.equivalence is None else format.equivalence_in_words(entry.equivalence, metric)
    decided = test.verdict in ("better", "worse")
    verdict = Cell(format.verdict_in_words(test, metric), quiet=not decided)
    return *head, *_numbers(test, metric), verdict, Cell(equal or format.MISSING)


def _where(comparison: Comparison, entry: Primary) -> str:
    if not entry.average:
        return format.shorten(entry.tasks[0], 40)
    every = set(entry.tasks) == set(comparison.tasks)
    return "average" if every else f"average of {format.listed([format.shorten(t, 40) for t in entry.tasks])}"


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
    return f"{format.percent(float(comparison.test['level']))} interval"


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
        Cell(" ".join(map(format.probability, found.mcnemar)) or format.MISSING),
        Cell(format.verdict_in_words(found, test.metric), quiet=found.verdict not in ("better", "worse")),
    )


def _numbers(found: Difference, metric: str) -> tuple[Cell, ...]:
    """The difference, its interval, p and the corrected p."""
    return (
        Cell(format.signed(found.difference, metric), found.difference),
        Cell(format.interval_in_words(found, metric), None if found.interval is None else found.interval[0]),
        Cell(format.probability(found.p), found.p),
        Cell(format.probability(found.p_corrected), found.p_corrected),
    )


Write = Callable[[float | None], str]


def cost_table(comparison: Comparison) -> Table:
    """One row a student and method, the teachers last: parameters, bytes, seconds by what they went into, exports."""
    seconds = [comparison.seconds(key) or (None, None) for key in in_order(comparison)]
    columns: Columns = [
        _costs(comparison, "Parameters", "parameters", format.millions),
        _costs(comparison, "File size", "size", format.megabytes),
        _column("Teacher capture", [*(capture for capture, _ in seconds), None], format.seconds),
        _column(
            f"Training, a {comparison.unit}",
            [*(train for _, train in seconds), comparison.teacher_seconds()],
            format.seconds,
        ),
        _costs(comparison, f"Latency, {labels.exported(comparison)}", "latency", format.milliseconds),
        *_smaller(comparison, "int8"),
    ]
    return build_table(comparison, columns)


def _costs(comparison: Comparison, title: str, cost: Cost, write: Write) -> tuple[Column, list[Cell]]:
    values = [*(comparison.cost(key, cost) for key in in_order(comparison)), comparison.teacher_cost(cost)]
    return _column(title, values, write)


def _smaller(comparison: Comparison, precision: str) -> Columns:
    """The export in fewer bits: its own latency and size, and how often it gives the checkpoint's label."""
    found = [*(comparison.export(k, precision) for k in in_order(comparison)), comparison.teacher_export(precision)]
    return [
        _column(f"Latency, {precision}", [a.latency for a in found], format.milliseconds),
        _column(f"File size, {precision}", [a.size for a in found], format.megabytes),
        _column(f"Same label, {precision}", [a.agreement for a in found], format.share),
    ]


def _column(title: str, values: Sequence[float | None], write: Write) -> tuple[Column, list[Cell]]:
    return Column(title), [Cell(write(v), v) for v in values]
