"""The tables of a comparison for a paper: methods by tasks and sets, costs, searched options, primary contrasts."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.tables import Cell as Entry
from demiglace.report.tables import Column, Table, mark_best
from demiglace.results.comparison import Comparison
from demiglace.results.metric_table import metric_of
from demiglace.results.parse import parse_summary
from demiglace.results.schema import Average, Cell, Difference, Primary, SeedStats

NOT_TESTED = "not tested: runs are missing"
_SIGNS = {"better": "↑", "worse": "↓"}
_AVERAGES = "Averages are over the tasks: of each task the mean over its sets of the mean of a set's metrics."
_TEST = (
    "Tests are paired t-tests of the mean difference over {unit}s; their standard error includes the variance of "
    "{unit}s and of test rows."
)
_MDE = "MDE: the smallest true difference that this design finds with {power:.0%} power"


def result_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Return the primary contrasts, then for each student the tasks' sets, out-of-domain sets, costs and searches.

    Empty tables are left out.
    """
    comparison = parse_summary(summary)
    found = [_primary(comparison)]
    for name in dict.fromkeys(student for student, _ in comparison.keys):
        student = _Student(comparison, name)
        found += [_results(student, inside) for inside in (True, False)]
        found += [_costs(student), _searched(student)]
    return [table for table in found if table.columns]


@dataclass(frozen=True)
class _Student:
    """A student of a comparison: a table has one row for each of its methods."""

    comparison: Comparison
    name: str

    @property
    def cells(self) -> list[Cell]:
        return [c for c in self.comparison.cells if c.student == self.name]

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(c.task for c in self.cells))

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(c.method for c in self.cells))

    def cell(self, method: str, task: str) -> Cell | None:
        return next((c for c in self.cells if (c.method, c.task) == (method, task)), None)

    def names(self) -> list[Entry]:
        baselines = {c.method for c in self.cells if c.baseline}
        return [Entry(f"{m} (baseline)" if m in baselines else m) for m in self.methods]


def _table(title: str, caption: str, columns: Sequence[tuple[Column, Sequence[Entry]]]) -> Table:
    rows = tuple(zip(*(cells for _, cells in columns), strict=True)) if len(columns) > 1 else ()
    return Table(tuple(c for c, _ in columns) if rows else (), rows, ("",) * len(rows), title, caption)


def _primary(comparison: Comparison) -> Table:
    """Return the tests of the contrasts that the grid declares."""
    if not comparison.primary:
        return Table((), (), title="primary contrasts")
    test, family = comparison.test, len(comparison.primary)
    caption = (
        f"{test['declared']} Differences are in points of 100, with {test['level']:.0%} confidence intervals "
        f"(uncorrected). {_TEST.format(unit=comparison.unit)} p is corrected by {test['correction'].capitalize()}'s "
        f"method over the {family} primary contrasts. {_MDE.format(power=test['power'])} at the correction's worst "
        f"case, p < {test['alpha']:g}/{family}. Equivalence: two one-sided tests (TOST), corrected over the contrasts "
        "that have a margin."
    )
    texts = ("contrast", "student", "on", "verdict", "equivalence")
    titles = ("contrast", "student", "on", "difference", "p", "corrected p", "verdict", "equivalence")
    rows = tuple(_primary_row(entry) for entry in comparison.primary)
    columns = tuple(Column(title, text=title in texts) for title in titles)
    return Table(columns, rows, ("",) * len(rows), "primary contrasts", caption)


def _primary_row(entry: Primary) -> tuple[Entry, ...]:
    on = ", ".join(labels.short(task) for task in entry.tasks)
    head = (f"{entry.method} − {entry.baseline}", entry.student, f"average of {on}" if entry.average else on)
    test, metric = entry.test, entry.metric
    if test is None or metric is None:
        return tuple(map(Entry, (*head, *[format.MISSING] * 3, NOT_TESTED, format.MISSING)))
    interval = "" if test.interval is None else f" ({format.interval_in_words(test, metric)})"
    limit = format.mde(test, metric)
    tail = (
        format.signed(test.difference, metric) + interval,
        format.probability(test.p),
        format.probability(test.p_corrected),
        test.verdict + (f" ({limit})" if limit else ""),
        format.MISSING if entry.equivalence is None else format.equivalence_in_words(entry.equivalence, metric),
    )
    return tuple(map(Entry, (*head, *tail)))


def _results(student: _Student, inside: bool) -> Table:
    """Return the scores in domain or out of it, the teachers first, with an average as the last column."""
    shown = list(dict.fromkeys((c.task, *each) for c in student.cells for each in _metrics_of(c, inside)))
    title = f"{student.name}: {'in domain' if inside else 'out of domain'}"
    if not shown:
        return Table((), (), title=title)
    columns: list[tuple[Column, Sequence[Entry]]] = [
        (Column("method", text=True), [Entry("teacher", quiet=True), *student.names()])
    ]
    titles = _titles(student, shown)
    columns += [(Column(titles[key]), _scores(student, *key)) for key in shown]
    columns.append((Column("average"), _averages(student, inside)))
    return _table(title, _caption(student), columns)


def _metrics_of(cell: Cell, inside: bool) -> Iterator[tuple[str, str]]:
    """Yield sets and metrics to show: all official ones, because averages are over all of them."""
    for found in cell.sets.values():
        if found.own == inside:
            yield from ((found.name, metric) for metric in found.metrics)


def _titles(student: _Student, shown: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """Return the heading of each column; a name that two tasks share gets the task."""
    found = {}
    for task, name, metric in shown:
        result = next(c.sets[name] for c in student.cells if c.task == task and name in c.sets)
        title = labels.full_set_name(name, result.own, task)
        tasks = {t for t, n, _ in shown if labels.full_set_name(n, result.own, t) == title}
        title = f"{title} of {labels.short(task)}" if len(tasks) > 1 else title
        rows = "" if result.rows is None else f", {result.rows:,} rows"
        found[task, name, metric] = f"{title} ({metric_of(metric).phrase}{rows})"
    return found


def _scores(student: _Student, task: str, name: str, metric: str) -> list[Entry]:
    """Return the scores of the teacher and of all methods in one metric of a set."""
    teacher = student.comparison.teachers.get(task)
    reference = teacher.scores.get(name, {}).get(metric) if teacher else None
    cells = [student.cell(method, task) for method in student.methods]
    found = [c.sets.get(name) if c else None for c in cells]
    entries = [
        _entry(metric, s.metrics[metric], s.against.get("none") if metric == s.metric else None)
        if s is not None and metric in s.metrics
        else Entry(format.MISSING)
        for s in found
    ]
    return [Entry(format.score(reference, metric), quiet=True), *mark_best(entries, metric_of(metric).sign)]


def _averages(student: _Student, inside: bool) -> list[Entry]:
    """Return averages over all of the student's tasks; a mean over fewer of them is not comparable."""
    tasks = student.tasks
    reference = student.comparison.teacher_average(inside, tasks)

    def entry(found: Average | None) -> Entry:
        stats = None if found is None else found.in_domain if inside else found.out_of_domain
        if found is None or stats is None or {*found.tasks} != {*tasks}:
            return Entry(format.MISSING)
        return _entry("average", stats, (found.against if inside else found.against_outside).get("none"))

    entries = [entry(student.comparison.averages.get((student.name, m))) for m in student.methods]
    return [Entry(format.score(reference, "average"), quiet=True), *mark_best(entries, 1)]


def _entry(metric: str, stats: SeedStats, against: Difference | None) -> Entry:
    """Return a score with its mark; quiet where a test finds no difference from no teacher."""
    sign = _SIGNS.get(against.verdict, "") if against else ""
    mark = f"({sign})" if sign and against is not None and against.exploratory else sign
    limit = format.mde(against, metric)
    text = " ".join(filter(None, (format.mean_and_deviation(stats, metric), f"({limit})" if limit else mark)))
    return Entry(text, stats.mean, quiet=against is not None and not sign)


def _costs(student: _Student) -> Table:
    """Return training time by task, the teacher's capture over all tasks, parameters, size and latency."""
    columns: list[tuple[Column, Sequence[Entry]]] = [(Column("method", text=True), student.names())]
    for task in student.tasks:
        trained = [c.train.mean if (c := student.cell(m, task)) else None for m in student.methods]
        columns.append((Column(f"{labels.short(task)}: training"), _numbers(trained, format.seconds)))
    rows = [[c for c in student.cells if c.method == method] for method in student.methods]
    columns += [
        (Column("teacher's capture"), _numbers([sum(c.capture.mean for c in row) for row in rows], format.seconds)),
        (Column("parameters"), _numbers([_mean([c.parameters for c in row]) for row in rows], format.parameters)),
        (Column("file size"), _numbers([_mean([c.size for c in row]) for row in rows], format.size)),
        (Column("latency"), _numbers([_mean([c.latency for c in row]) for row in rows], format.milliseconds)),
    ]
    caption = (
        f"Seconds of training are means over {student.comparison.unit}s. The teacher's signals are captured once for "
        "all runs that can read the same ones; the column has the seconds of the captures that a method used, summed "
        "over the tasks. Parameters, file size and latency are means over the tasks; latency is the median of one row "
        "with the exported fp32 model, where there is one."
    )
    return _table(f"{student.name}: cost", caption, columns)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _numbers(values: Sequence[float | None], write: Callable[[float | None], str]) -> list[Entry]:
    return [Entry(write(v), v) for v in values]


def _searched(student: _Student) -> Table:
    """Return the options that a search chose for each method and task."""
    found = {(c.method, c.task, name): value for c in student.cells for name, value in c.searched.items()}
    shown = list(dict.fromkeys((task, name) for _, task, name in found))

    def entry(method: str, task: str, name: str) -> Entry:
        value = found.get((method, task, name), format.MISSING)
        return Entry(f"{value:.2g}" if isinstance(value, float) else str(value))

    columns: list[tuple[Column, Sequence[Entry]]] = [(Column("method", text=True), student.names())]
    for task, name in shown:
        title = f"{labels.short(task)}: {name.removeprefix('method_options.')}"
        columns.append((Column(title), [entry(m, task, name) for m in student.methods]))
    caption = (
        "Every method had the same number of trials, or all combinations of its options where they are fewer; they "
        "were scored on rows held out of the training rows."
    )
    return _table(f"{student.name}: options found by search", caption, columns)


def provenance(summary: Mapping[str, Any]) -> list[str]:
    """Return when and on what the runs were trained, as a sentence; none where an earlier version did not write it."""
    found = summary.get("provenance", {})
    if "first" not in found:
        return []
    days = " to ".join(dict.fromkeys((found["first"], found["last"])))
    machines = " and ".join(f"{m['processor']} with {m['cores']} cores ({m['system']})" for m in found["machine"])
    versions = "; ".join(", ".join(f"{name} {number}" for name, number in v.items()) for v in found["versions"])
    return [f"Trained {days} on {machines}, {' and '.join(found['precision'])}, with {versions}.\n"]


def _caption(student: _Student) -> str:
    cells, comparison = student.cells, student.comparison
    seeds = sorted({len(c.seeds) for c in cells})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    unit = comparison.unit
    means = f"One {unit}" if seeds == [1] else f"Mean ± standard deviation over {counted} {unit}s"
    plain = next((c.label for c in cells if c.baseline == "none"), None)
    if plain is None or not any("none" in found.against for c in cells for found in c.sets.values()):
        return (
            f"{means}; best mean in bold. Nothing was tested: there is no student without a teacher to test against. "
            f"{_AVERAGES}"
        )
    return f"{means}; best mean in bold. {_tested(comparison, plain)} {_AVERAGES}"


def _tested(comparison: Comparison, plain: str) -> str:
    """Return how arrows were decided; plain: the label of the student without a teacher."""
    test, unit = comparison.test, comparison.unit
    if test["power"] is None:
        return (
            f"↑ and ↓: better and worse than `{plain}` by the test of an earlier version of demiglace: a paired t-test "
            f"over seeds with {test['correction'].capitalize()}'s correction over all methods and sets of the table "
            f"(of the averages: over all averages; p < {test['alpha']:g}), and a paired bootstrap interval of "
            f"{test['level']:.0%} over rows and seeds that excludes 0. No arrow: no significant difference, fewer than "
            f"{test['least_seeds']} seeds, or a task's second metric, which is not tested."
        )
    return (
        f"↑ and ↓: better and worse than `{plain}` (p < {test['alpha']:g}). {_TEST.format(unit=unit)} Arrows in "
        "brackets are exploratory: they are not corrected for the number of tests. "
        f"{_MDE.format(power=test['power'])}, uncorrected where the test is exploratory. No mark: fewer than "
        f"{test['least_seeds']} {unit}s, or a task's second metric, which is not tested. {test['declared']}"
    )
