"""Tables of a comparison beyond the scores: tests, measures, costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.comparison.result_tables import NOT_TESTED
from demiglace.report.comparison.tables import build_table, in_order, own_sets
from demiglace.report.tables import Cell, Column, ColumnOfCells, Table, mark_best, numbers
from demiglace.results import schema
from demiglace.results.comparison import Comparison, Cost, mean_of_all
from demiglace.results.metric_table import metric_of
from demiglace.results.schema import Difference, Key, Primary, SeedStats

Measure = Literal["agreement", "ece", "worst_class_f1"]
_MEASURES: tuple[Measure, ...] = ("agreement", "ece", "worst_class_f1")
Write = Callable[[float | None], str]


@dataclass(frozen=True)
class _Test:
    """One difference from a baseline."""

    key: Key
    on: str  # a set or an average
    metric: str
    baseline: str
    found: Difference


def primary_table(comparison: Comparison) -> Table | None:
    """Return one row for each test that the grid declares; None where it declares none."""
    titles = ("Contrast", "On", "Difference", _interval(comparison), "p", "Corrected p", "Verdict", "Equivalence")
    columns = tuple(Column(title, text=title in ("Contrast", "On", "Verdict", "Equivalence")) for title in titles)
    rows = tuple(_primary(comparison, entry) for entry in comparison.primary)
    return Table(columns, rows, ("",) * len(rows)) if rows else None


def _primary(comparison: Comparison, entry: Primary) -> tuple[Cell, ...]:
    name = labels.name_of((entry.student, entry.method), comparison)
    head = Cell(f"{name} − {format.shorten(entry.baseline, 40)}"), Cell(_where(comparison, entry))
    if entry.test is None or entry.metric is None:
        return *head, *(Cell(format.MISSING) for _ in range(4)), Cell(NOT_TESTED), Cell("")
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
    """Return the tests as tables with their headings; empty ones are left out."""
    averages = comparison.averages.items() if len(comparison.tasks) > 1 else ()
    outside = [(key, a.against_outside) for key, a in comparison.averages.items()]
    found = {
        "the tasks’ rows": [*_of_sets(comparison, own=True)],
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
            on = f"{name}, of {format.shorten(cell.task, 40)}" if several else name
            yield from (_Test(cell.key, on, s.metric, baseline, d) for baseline, d in s.against.items())


def _of_averages(found: list[tuple[Key, Mapping[str, Difference]]]) -> Iterator[_Test]:
    for key, against in found:
        yield from (_Test(key, "average", "average", baseline, d) for baseline, d in against.items())


def _interval(comparison: Comparison) -> str:
    return f"{format.percent(float(comparison.test['level']))} interval"


def _table(comparison: Comparison, tests: list[_Test]) -> Table:
    by_unit = f"McNemar’s p by {comparison.unit}"
    titles = ("Method", "On", "Against", "Difference", _interval(comparison), "p", "Corrected p", by_unit)
    texts = ("Method", "On", "Against", "Verdict")
    columns = tuple(Column(title, text=title in texts) for title in (*titles, "Verdict"))
    marks = tuple("baseline" if comparison.baseline_of(t.key) else "" for t in tests)
    return Table(columns, tuple(_row(comparison, t) for t in tests), marks)


def _row(comparison: Comparison, test: _Test) -> tuple[Cell, ...]:
    found = test.found
    return (
        Cell(labels.name_of(test.key, comparison)),
        Cell(test.on),
        Cell(format.shorten(test.baseline, 40)),
        *_numbers(found, test.metric),
        Cell(" ".join(map(format.probability, found.mcnemar)) or format.MISSING),
        Cell(format.verdict_in_words(found, test.metric), quiet=found.verdict not in ("better", "worse")),
    )


def _numbers(found: Difference, metric: str) -> tuple[Cell, ...]:
    """Return the difference, its interval, p and the corrected p."""
    return (
        Cell(format.signed(found.difference, metric), found.difference),
        Cell(format.interval_in_words(found, metric), None if found.interval is None else found.interval[0]),
        Cell(format.probability(found.p), found.p),
        Cell(format.probability(found.p_corrected), found.p_corrected),
    )


def cost_table(comparison: Comparison) -> Table:
    """Return one row for each student and method, the teachers last: parameters, bytes, seconds, exports."""
    seconds = [comparison.seconds(key) or (None, None) for key in in_order(comparison)]
    columns: list[ColumnOfCells] = [
        _costs(comparison, "Parameters", "parameters", format.parameters),
        _costs(comparison, "File size", "size", format.size),
        numbers("Teacher capture", [*(capture for capture, _ in seconds), None], format.seconds),
        numbers(
            f"Training, one {comparison.unit}",
            [*(train for _, train in seconds), comparison.teacher_seconds()],
            format.seconds,
        ),
        _costs(comparison, f"Latency, {labels.exported(comparison)}", "latency", format.milliseconds),
    ]
    for precision in comparison.precisions():
        if precision != "fp32":
            columns += _export_columns(comparison, precision)
    return build_table(comparison, columns)


def _costs(comparison: Comparison, title: str, cost: Cost, write: Write) -> ColumnOfCells:
    values = [*(comparison.cost(key, cost) for key in in_order(comparison)), comparison.teacher_cost(cost)]
    return numbers(title, values, write)


def _export_columns(comparison: Comparison, precision: str) -> list[ColumnOfCells]:
    """Return latency, size, score and label agreement of the exports in a lower precision."""
    found = [*(comparison.export(k, precision) for k in in_order(comparison)), comparison.teacher_export(precision)]
    metric = comparison.metric
    return [
        numbers(f"Latency, {precision}", [a.latency for a in found], format.milliseconds),
        numbers(f"File size, {precision}", [a.size for a in found], format.size),
        numbers(f"{metric_of(metric).title}, {precision}", [a.score for a in found], lambda v: format.score(v, metric)),
        numbers(f"Same label, {precision}", [a.agreement for a in found], format.share),
    ]


def measure_table(comparison: Comparison) -> Table | None:
    """Return one row for each student and method, the teachers last: agreement, calibration, further metrics.

    Means are over the tasks; a student and method without one of them has none, because it would not be comparable.
    """
    tasks = measured_tasks(comparison)
    columns = [_mean_column(comparison, name, tasks) for name in _MEASURES]
    for task, name in own_sets(comparison):
        having = [c.sets[name] for c in comparison.cells if c.task == task and name in c.sets]
        metrics = dict.fromkeys(metric for found in having for metric in found.further)
        columns += [_further_column(comparison, task, name, metric) for metric in metrics]
    table = build_table(comparison, columns)
    return table if any(not c.text for c in table.columns) else None


def measured_tasks(comparison: Comparison) -> list[str]:
    """Return the tasks that the measures are means over: those with classes; without any, all tasks."""
    classes = dict.fromkeys(c.task for c in comparison.cells if c.own.ece is not None)
    return list(classes) or list(comparison.tasks)


def _mean_column(comparison: Comparison, name: Measure, tasks: Sequence[str]) -> ColumnOfCells:
    def cell(key: Key) -> Cell:
        found = [_measure(c, name) for c in comparison.cells_of(key) if c.task in tasks]
        if len(tasks) == 1:
            return _stats_cell(found[0] if found else None, name)
        mean = mean_of_all([None if s is None else s.mean for s in found], len(tasks))
        return Cell(format.score(mean, name), mean)

    of_teachers = [t.measures.get(name) for task, t in comparison.teachers.items() if task in tasks]
    mean = mean_of_all(of_teachers, len(tasks))
    cells = mark_best([cell(key) for key in in_order(comparison)], metric_of(name).sign)
    return Column(metric_of(name).title), [*cells, Cell(format.score(mean, name), mean)]


def _further_column(comparison: Comparison, task: str, name: str, metric: str) -> ColumnOfCells:
    cells = {c.key: c for c in comparison.cells if c.task == task and name in c.sets}
    found = [cells[key].sets[name].further.get(metric) if key in cells else None for key in in_order(comparison)]
    shown = mark_best([_stats_cell(stats, metric) for stats in found], metric_of(metric).sign)
    teacher = comparison.teachers.get(task)
    reference = teacher.scores.get(name, {}).get(metric) if teacher else None
    title = f"{labels.set_name(name, True, task)} {metric_of(metric).phrase}"
    return Column(title), [*shown, Cell(format.score(reference, metric), reference)]


def _measure(cell: schema.Cell, name: Measure) -> SeedStats | None:
    return {"agreement": cell.own.agreement, "ece": cell.own.ece, "worst_class_f1": cell.own.worst_class_f1}[name]


def _stats_cell(stats: SeedStats | None, metric: str) -> Cell:
    return Cell(format.MISSING) if stats is None else Cell(format.mean_and_deviation(stats, metric), stats.mean)


def by_task_table(comparison: Comparison) -> Table | None:
    """Return one row for each task, student and method, and one for each teacher: the measures with deviations."""
    if len(comparison.tasks) == 1:
        return None
    found = [row for task in comparison.tasks for row in _rows_of(comparison, task)]
    titles = (metric_of(name).title for name in _MEASURES)
    columns = (Column("Method", text=True), Column("Task", text=True), *map(Column, titles))
    return Table(columns, tuple(row for row, _ in found), tuple(mark for _, mark in found))


def _rows_of(comparison: Comparison, task: str) -> Iterator[tuple[tuple[Cell, ...], str]]:
    """Yield the rows of one task, each with its mark."""
    label = Cell(format.shorten(task, 40))
    for cell in (c for c in comparison.cells if c.task == task):
        cells = (_stats_cell(_measure(cell, name), name) for name in _MEASURES)
        yield (Cell(labels.name_of(cell.key, comparison)), label, *cells), "baseline" if cell.baseline else ""
    if task in comparison.teachers:
        measures = comparison.teachers[task].measures
        cells = (Cell(format.score(measures.get(name), name), measures.get(name)) for name in _MEASURES)
        yield (Cell("teacher"), label, *cells), "teacher"
