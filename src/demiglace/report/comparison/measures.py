"""What lies beyond the deciding scores: likeness to the teacher, calibration, further metrics.

Each mean is over the tasks; a student and method that lack one of them have none, for it would compare with nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.comparison.tables import build_table, in_order, own_sets
from demiglace.report.tables import Cell as Entry
from demiglace.report.tables import Column, Table
from demiglace.results import metrics as metrics_module
from demiglace.results.comparison import Comparison, mean_of_all
from demiglace.results.schema import Cell, Key, SeedStats

Name = Literal["agreement", "ece", "worst_class_f1"]
_TITLES: dict[Name, str] = {
    "agreement": "Agreement with teacher",
    "ece": "Calibration error (ECE)",
    "worst_class_f1": "Worst-class F1",
}


def measure_table(comparison: Comparison) -> Table | None:
    """One row a student and method, the teachers last: measures of the tasks' own sets, and further metrics."""
    tasks = measured_tasks(comparison)
    columns = [_mean_column(comparison, name, tasks) for name in _TITLES]
    for task, name in own_sets(comparison):
        having = [c.sets[name] for c in comparison.cells if c.task == task and name in c.sets]
        metrics = dict.fromkeys(metric for found in having for metric in found.further)
        columns += [_further_column(comparison, task, name, metric) for metric in metrics]
    table = build_table(comparison, columns)
    return table if any(not c.text for c in table.columns) else None


def measured_tasks(comparison: Comparison) -> list[str]:
    """The tasks that the measures are means over: those with classes; of regression there is the agreement alone."""
    classes = dict.fromkeys(c.task for c in comparison.cells if c.own.ece is not None)
    return list(classes) or list(comparison.tasks)


def _mean_column(comparison: Comparison, name: Name, tasks: Sequence[str]) -> tuple[Column, list[Entry]]:
    def entry(key: Key) -> Entry:
        found = [_measure(c, name) for c in comparison.cells_of(key) if c.task in tasks]
        if len(tasks) == 1:
            return _entry(found[0] if found else None, name)
        mean = mean_of_all([None if s is None else s.mean for s in found], len(tasks))
        return Entry(format.points(mean, name), mean)

    taught = [t.measures.get(name) for task, t in comparison.teachers.items() if task in tasks]
    mean = mean_of_all(taught, len(tasks))
    entries = _with_best([entry(key) for key in in_order(comparison)], metrics_module.sign(name))
    return Column(_TITLES[name]), [*entries, Entry(format.points(mean, name), mean)]


def _further_column(comparison: Comparison, task: str, name: str, metric: str) -> tuple[Column, list[Entry]]:
    cells = {c.key: c for c in comparison.cells if c.task == task and name in c.sets}
    found = [cells[key].sets[name].further.get(metric) if key in cells else None for key in in_order(comparison)]
    entries = _with_best([_entry(spread, metric) for spread in found], metrics_module.sign(metric))
    teacher = comparison.teachers.get(task)
    taught = teacher.scores.get(name, {}).get(metric) if teacher else None
    title = f"{labels.set_name(name, True, task)} {format.metric_title(metric)}"
    return Column(title), [*entries, Entry(format.points(taught, metric), taught)]


def _measure(cell: Cell, name: Name) -> SeedStats | None:
    return {"agreement": cell.own.agreement, "ece": cell.own.ece, "worst_class_f1": cell.own.worst_class_f1}[name]


def _entry(spread: SeedStats | None, metric: str) -> Entry:
    return Entry(format.MISSING) if spread is None else Entry(format.mean_and_deviation(spread, metric), spread.mean)


def _with_best(entries: list[Entry], sign: int) -> list[Entry]:
    """Mark those whose mean reads like the best one, unless all do."""
    known = [e for e in entries if e.value is not None]
    texts = {e.text.split(" ±")[0] for e in known}
    if len(texts) < 2:
        return entries
    best = max(known, key=lambda e: sign * (e.value or 0)).text.split(" ±")[0]
    return [replace(e, best=e.value is not None and e.text.split(" ±")[0] == best) for e in entries]


def by_task_table(comparison: Comparison) -> Table | None:
    """One row a task, student and method, and one a task's teacher: the measures with their deviations."""
    if len(comparison.tasks) == 1:
        return None
    found = [row for task in comparison.tasks for row in _rows_of(comparison, task)]
    columns = (Column("Method", text=True), Column("Task", text=True), *map(Column, _TITLES.values()))
    return Table(columns, tuple(row for row, _ in found), tuple(mark for _, mark in found))


def _rows_of(comparison: Comparison, task: str) -> Iterator[tuple[tuple[Entry, ...], str]]:
    """The rows of one task, each with its mark."""
    label = Entry(format.shorten(task, 40))
    for cell in (c for c in comparison.cells if c.task == task):
        entries = (_entry(_measure(cell, name), name) for name in _TITLES)
        yield (Entry(labels.name_of(cell.key, comparison)), label, *entries), "control" if cell.control else ""
    if task in comparison.teachers:
        taught = comparison.teachers[task].measures
        entries = (Entry(format.points(taught.get(name), name), taught.get(name)) for name in _TITLES)
        yield (Entry("teacher"), label, *entries), "teacher"
