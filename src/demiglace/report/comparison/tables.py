"""The tables of a comparison: students with methods against tasks, every run, and what is not there."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from demiglace.evaluation.verdicts import UNKNOWN
from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.tables import Cell, Column, Table
from demiglace.results import metrics
from demiglace.results.comparison import Comparison
from demiglace.results.ranking import ranked
from demiglace.results.schema import Difference, Key, SeedStats, SetResult, Teacher, run_directory

_MOST_ERROR = 400
Columns = list[tuple[Column, list[Cell]]]


def anchor(comparison: Comparison, key: Key, task: str) -> str:
    """The name on the page of the first run of a student, method and task; made of numbers, not of their names."""
    return f"runs-{comparison.keys.index(key)}-{comparison.tasks.index(task)}"


def main_table(comparison: Comparison) -> Table:
    """One row a student and method, the teachers last: scores by task, averages."""
    keys = in_order(comparison)
    columns = [_scores(comparison, keys, task, name) for task, name in own_sets(comparison)]
    columns += [c for c in (_average(comparison, keys, True), _average(comparison, keys, False)) if c is not None]
    return build_table(comparison, columns)


def in_order(comparison: Comparison) -> list[Key]:
    """Students and methods as the tables have them: the best first, those that lack a task last."""
    order = ranked(comparison)
    return [*order, *(k for k in comparison.keys if k not in order)]


def build_table(comparison: Comparison, columns: Columns) -> Table:
    """A table from columns of numbers, each over `in_order` and the teacher; empty columns are left out."""
    keys = in_order(comparison)
    kept = [*_names(comparison, keys), *((c, cells) for c, cells in columns if any(x.value is not None for x in cells))]
    rows = tuple(zip(*(cells for _, cells in kept), strict=True))
    marks = ["control" if comparison.control_of(k) else "" for k in keys]
    return Table(tuple(c for c, _ in kept), rows, (*marks, "teacher"))


def _names(comparison: Comparison, keys: list[Key]) -> Columns:
    def cell(key: Key) -> Cell:
        return Cell(format.shorten(key[1], 50), note="control" if comparison.control_of(key) else "")

    found: Columns = [(Column("Method", text=True), [*map(cell, keys), Cell("teacher")])]
    if labels.has_students(comparison):
        found.append((Column("Student", text=True), [*(Cell(format.shorten(s, 40)) for s, _ in keys), Cell("–")]))
    return found


def own_sets(comparison: Comparison) -> list[tuple[str, str]]:
    """Each task with each set of its own."""
    return list(dict.fromkeys((c.task, s.name) for c in comparison.cells for s in c.sets.values() if s.own))


def _scores(comparison: Comparison, keys: list[Key], task: str, name: str) -> tuple[Column, list[Cell]]:
    by_key = {c.key: c for c in comparison.cells if c.task == task and name in c.sets}
    found = {key: cell.sets[name] for key, cell in by_key.items()}
    metric = next(iter(found.values())).metric
    best = _best({key: s.score for key, s in found.items()}, metric)

    def cell(key: Key) -> Cell:
        if key not in found:
            return Cell(format.MISSING)
        result, owner = found[key], by_key[key]
        missing = _fewer(comparison, len(owner.seeds), len(owner.seeds) + len(owner.missing))
        return Cell(
            format.mean_and_deviation(result.score, metric),
            result.score.mean,
            best=format.points(result.score.mean, metric) == best,
            note=_note(result, missing),
            quiet=_not_significant(result.against.get("none")),
            link=f"#{anchor(comparison, key, task)}",
        )

    teacher = comparison.teachers.get(task)
    taught = teacher.scores.get(name, {}).get(metric) if teacher else None
    title = f"{labels.set_name(name, True, task)} {format.metric_title(metric)}"
    link = f"#{_anchor_of_teacher(comparison, task)}" if taught is not None else ""
    return Column(title), [*map(cell, keys), Cell(format.points(taught, metric), taught, link=link)]


def _not_significant(against: Difference | None) -> bool:
    return against is not None and against.verdict not in ("better", "worse")


def _note(result: SetResult, missing: str) -> str:
    """How a score differs from no teacher, and how few seeds it is a mean over."""
    against = result.against.get("none")
    few = against is not None and against.verdict == UNKNOWN and missing
    return ", ".join(filter(None, ("" if few else labels.mark(against, result.metric), missing)))


def _best(found: Mapping[Key, SeedStats], metric: str) -> str:
    """How the best mean reads, where there are two that differ."""
    texts = {format.points(s.mean, metric) for s in found.values()}
    sign = metrics.sign(metric)
    best = max(found.values(), key=lambda s: sign * s.mean, default=None)
    return format.points(best.mean, metric) if best is not None and len(texts) > 1 else ""


def _average(comparison: Comparison, keys: list[Key], inside: bool) -> tuple[Column, list[Cell]] | None:
    if inside and len(comparison.tasks) < 2:
        return None
    averages = {key: a for key, a in comparison.averages.items() if set(a.tasks) == set(comparison.tasks)}
    found = {k: s for k, a in averages.items() if (s := a.in_domain if inside else a.out_of_domain) is not None}
    tested = {k: (a.against if inside else a.against_outside).get("none") for k, a in averages.items()}
    if not found:
        return None
    best = _best(found, "average")

    def cell(key: Key) -> Cell:
        if key not in found:
            return Cell(format.MISSING)
        text = format.mean_and_deviation(found[key], "average")
        return Cell(
            text,
            found[key].mean,
            best=format.points(found[key].mean, "average") == best,
            note=", ".join(
                filter(None, (labels.mark(tested[key], "average"), _fewer_seeds(comparison, key, found[key])))
            ),
            quiet=_not_significant(tested[key]),
            link=f"#{anchor(comparison, key, comparison.tasks[0])}",
        )

    taught = comparison.teacher_average(inside)
    title = "Average" if inside else "Out of domain, average"
    return Column(title), [*map(cell, keys), Cell(format.points(taught, "average"), taught)]


def _fewer_seeds(comparison: Comparison, key: Key, average: SeedStats) -> str:
    """On how many seeds an average rests, where those are fewer than were wanted: only those that all tasks have."""
    wanted = max(len(c.seeds) + len(c.missing) for c in comparison.cells_of(key))
    return _fewer(comparison, len(average.values), wanted)


def _fewer(comparison: Comparison, seeds: int, wanted: int) -> str:
    return f"{seeds} of {wanted} {comparison.unit}s" if seeds < wanted else ""


def run_table(comparison: Comparison, folder: Path) -> Table:
    """One row a finished run, the teachers' first, with the way to its directory from the page's folder."""
    rows, columns = (
        [],
        ("Run", "Task", "Student", "Method", comparison.unit.capitalize(), "Metric", "Score", "Measured in"),
    )
    for task, teacher in comparison.teachers.items():
        if task in comparison.tasks:
            rows.append(_run_of_teacher(comparison, task, teacher, folder))
    for cell in comparison.cells:
        for i, (seed, run) in enumerate(zip(cell.seeds, cell.runs, strict=True)):
            score = cell.own.score.values[i]
            first = anchor(comparison, cell.key, cell.task) if i == 0 else ""
            names = [Cell(format.shorten(text, 50)) for text in (cell.task, cell.student, cell.method)]
            where = Cell(format.shorten(run, 90), link=relative_link(comparison.home / run, folder), anchor=first)
            shown = [Cell(format.metric_title(cell.own.metric)), Cell(format.points(score, cell.own.metric), score)]
            rows.append(
                (where, *names, Cell(str(seed), seed), *shown, _measured(comparison, cell.evaluations[i], folder))
            )
    return Table(
        tuple(Column(c, text=c not in (comparison.unit.capitalize(), "Score")) for c in columns),
        tuple(rows),
        ("",) * len(rows),
    )


def _anchor_of_teacher(comparison: Comparison, task: str) -> str:
    return f"teacher-{comparison.tasks.index(task)}"


def _run_of_teacher(comparison: Comparison, task: str, teacher: Teacher, folder: Path) -> tuple[Cell, ...]:
    metric, score = next(iter(teacher.scores.get(teacher.in_domain, {}).items()), ("", None))
    run = run_directory(comparison.home, teacher.run)
    link = relative_link(run, folder) if run.exists() else ""
    where = Cell(format.shorten(teacher.run, 90), link=link, anchor=_anchor_of_teacher(comparison, task))
    names = [Cell(format.shorten(text, 50)) for text in (task, format.MISSING, "teacher", format.MISSING)]
    shown = [Cell(format.metric_title(metric)), Cell(format.points(score, metric), score)]
    return where, *names, *shown, _measured(comparison, f"{task}/teacher.evaluation", folder)


def _measured(comparison: Comparison, evaluation: str, folder: Path) -> Cell:
    """The way to where all scores of a model are."""
    directory = comparison.home / evaluation
    return Cell("evaluation", link=relative_link(directory, folder)) if directory.exists() else Cell(format.MISSING)


def relative_link(path: Path, folder: Path) -> str:
    """A relative address: whoever moves page and runs together keeps it."""
    return "./" + quote(os.path.relpath(path, folder).replace(os.sep, "/") + "/")


def missing_table(comparison: Comparison) -> Table:
    """One row a run or export that failed, waited for one that did, or was never made."""
    rows = tuple(
        (
            Cell(format.shorten(m.run, 90)),
            Cell(format.shorten(m.status, 20)),
            Cell(format.shorten(m.error, _MOST_ERROR) or format.MISSING),
        )
        for m in sorted(comparison.absent, key=lambda m: m.status != "failed")
    )
    columns = tuple(Column(c, text=True) for c in ("Run", "What became of it", "Why"))
    return Table(columns, rows, ("",) * len(rows))
