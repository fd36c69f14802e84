"""The main tables of a comparison: scores by task, all runs, missing runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from demiglace.evaluation.verdicts import UNKNOWN
from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.tables import Cell, Column, ColumnOfCells, Table, from_columns, mark_best
from demiglace.results.comparison import Comparison
from demiglace.results.metric_table import metric_of
from demiglace.results.ranking import ranked
from demiglace.results.schema import Difference, Key, SeedStats, SetResult, Teacher, run_directory

_MOST_ERROR = 400


def anchor(comparison: Comparison, key: Key, task: str) -> str:
    """Return the id of the first run of a student, method and task on the page; built from numbers, not from names."""
    return f"runs-{comparison.keys.index(key)}-{comparison.tasks.index(task)}"


def main_table(comparison: Comparison) -> Table:
    """Return one row for each student and method, the teachers last: scores by task, averages."""
    keys = in_order(comparison)
    columns = [_scores(comparison, keys, task, name) for task, name in own_sets(comparison)]
    columns += [c for c in (_average(comparison, keys, True), _average(comparison, keys, False)) if c is not None]
    return build_table(comparison, columns)


def in_order(comparison: Comparison) -> list[Key]:
    """Return students and methods in the order of the tables: the best first, those without all tasks last."""
    order = ranked(comparison)
    return [*order, *(k for k in comparison.keys if k not in order)]


def build_table(comparison: Comparison, columns: Sequence[ColumnOfCells]) -> Table:
    """Return a table from columns of numbers, each over `in_order` and the teacher; empty columns are left out."""
    keys = in_order(comparison)
    marks = ["baseline" if comparison.baseline_of(k) else "" for k in keys]
    return from_columns([*_names(comparison, keys), *columns], (*marks, "teacher"))


def _names(comparison: Comparison, keys: list[Key]) -> list[ColumnOfCells]:
    def cell(key: Key) -> Cell:
        return Cell(format.shorten(key[1], 50), note="baseline" if comparison.baseline_of(key) else "")

    found: list[ColumnOfCells] = [(Column("Method", text=True), [*map(cell, keys), Cell("teacher")])]
    if labels.has_students(comparison):
        found.append((Column("Student", text=True), [*(Cell(format.shorten(s, 40)) for s, _ in keys), Cell("–")]))
    return found


def own_sets(comparison: Comparison) -> list[tuple[str, str]]:
    """Return each task with each of its sets."""
    return list(dict.fromkeys((c.task, s.name) for c in comparison.cells for s in c.sets.values() if s.own))


def _scores(comparison: Comparison, keys: list[Key], task: str, name: str) -> ColumnOfCells:
    by_key = {c.key: c for c in comparison.cells if c.task == task and name in c.sets}
    found = {key: cell.sets[name] for key, cell in by_key.items()}
    metric = next(iter(found.values())).metric

    def cell(key: Key) -> Cell:
        if key not in found:
            return Cell(format.MISSING)
        result, owner = found[key], by_key[key]
        missing = _fewer(comparison, len(owner.seeds), len(owner.seeds) + len(owner.missing))
        return Cell(
            format.mean_and_deviation(result.score, metric),
            result.score.mean,
            note=_note(result, missing),
            quiet=_not_significant(result.against.get("none")),
            link=f"#{anchor(comparison, key, task)}",
        )

    teacher = comparison.teachers.get(task)
    reference = teacher.scores.get(name, {}).get(metric) if teacher else None
    title = f"{labels.set_name(name, True, task)} {metric_of(metric).phrase}"
    link = f"#{_anchor_of_teacher(comparison, task)}" if reference is not None else ""
    cells = mark_best([*map(cell, keys)], metric_of(metric).sign)
    return Column(title), [*cells, Cell(format.score(reference, metric), reference, link=link)]


def _not_significant(against: Difference | None) -> bool:
    return against is not None and against.verdict not in ("better", "worse")


def _note(result: SetResult, missing: str) -> str:
    """Return how a score differs from no teacher, and over how few seeds it is a mean."""
    against = result.against.get("none")
    few = against is not None and against.verdict == UNKNOWN and missing
    return ", ".join(filter(None, ("" if few else labels.mark(against, result.metric), missing)))


def _average(comparison: Comparison, keys: list[Key], inside: bool) -> ColumnOfCells | None:
    if inside and len(comparison.tasks) < 2:
        return None
    averages = {key: a for key, a in comparison.averages.items() if set(a.tasks) == set(comparison.tasks)}
    found = {k: s for k, a in averages.items() if (s := a.in_domain if inside else a.out_of_domain) is not None}
    tested = {k: (a.against if inside else a.against_outside).get("none") for k, a in averages.items()}
    if not found:
        return None

    def cell(key: Key) -> Cell:
        if key not in found:
            return Cell(format.MISSING)
        text = format.mean_and_deviation(found[key], "average")
        return Cell(
            text,
            found[key].mean,
            note=", ".join(
                filter(None, (labels.mark(tested[key], "average"), _fewer_seeds(comparison, key, found[key])))
            ),
            quiet=_not_significant(tested[key]),
            link=f"#{anchor(comparison, key, comparison.tasks[0])}",
        )

    reference = comparison.teacher_average(inside, comparison.tasks)
    title = "Average" if inside else "Out of domain, average"
    return Column(title), [*mark_best([*map(cell, keys)], 1), Cell(format.score(reference, "average"), reference)]


def _fewer_seeds(comparison: Comparison, key: Key, average: SeedStats) -> str:
    """Return over how few seeds an average is, where all tasks share fewer seeds than were planned."""
    wanted = max(len(c.seeds) + len(c.missing) for c in comparison.cells_of(key))
    return _fewer(comparison, len(average.values), wanted)


def _fewer(comparison: Comparison, seeds: int, wanted: int) -> str:
    return f"{seeds} of {wanted} {comparison.unit}s" if seeds < wanted else ""


def run_table(comparison: Comparison, folder: Path) -> Table:
    """Return one row for each finished run, the teachers' first, with a link from the page's folder."""
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
            where = Cell(format.shorten(run, 90), link=relative_link(comparison.root / run, folder), anchor=first)
            shown = [Cell(metric_of(cell.own.metric).phrase), Cell(format.score(score, cell.own.metric), score)]
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
    run = run_directory(comparison.root, teacher.run)
    link = relative_link(run, folder) if run.exists() else ""
    where = Cell(format.shorten(teacher.run, 90), link=link, anchor=_anchor_of_teacher(comparison, task))
    names = [Cell(format.shorten(text, 50)) for text in (task, format.MISSING, "teacher", format.MISSING)]
    shown = [Cell(metric_of(metric).phrase), Cell(format.score(score, metric), score)]
    return where, *names, *shown, _measured(comparison, f"{task}/teacher.evaluation", folder)


def _measured(comparison: Comparison, evaluation: str, folder: Path) -> Cell:
    """Return the link to the evaluation that holds all scores of a model."""
    directory = comparison.root / evaluation
    return Cell("evaluation", link=relative_link(directory, folder)) if directory.exists() else Cell(format.MISSING)


def relative_link(path: Path, folder: Path) -> str:
    """Return a relative address, which stays valid when page and runs are moved together."""
    return "./" + quote(os.path.relpath(path, folder).replace(os.sep, "/") + "/")


def missing_table(comparison: Comparison) -> Table:
    """Return one row for each run or export that failed, was skipped, or is missing."""
    rows = tuple(
        (
            Cell(format.shorten(m.run, 90)),
            Cell(format.shorten(m.status, 20)),
            Cell(format.shorten(m.error, _MOST_ERROR) or format.MISSING),
        )
        for m in sorted(comparison.absent, key=lambda m: m.status != "failed")
    )
    columns = tuple(Column(c, text=True) for c in ("Run", "Status", "Reason"))
    return Table(columns, rows, ("",) * len(rows))
