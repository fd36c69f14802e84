"""The page about a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from demiglace.config import Option
from demiglace.report import wording
from demiglace.report.comparison import charts, figures, reproduce, words
from demiglace.report.comparison.answer import answer
from demiglace.report.comparison.changes import changes
from demiglace.report.comparison.choice import chosen
from demiglace.report.comparison.content import Comparison
from demiglace.report.comparison.costs import cost_table
from demiglace.report.comparison.differences import test_tables
from demiglace.report.comparison.measures import by_task_table, measure_table, measured_tasks
from demiglace.report.comparison.tables import main_table, missing_table, run_table
from demiglace.report.render import machine_of, template


def render_comparison(comparison: Comparison, options: Mapping[str, Sequence[Option]], folder: Path) -> str:
    """The page as HTML, safe as `render`'s. options: those of each command; folder: where the page will lie."""
    manifests = list(comparison.steps.values())
    terms = {task: charts.term_charts(comparison, task) for task in comparison.tasks}
    return template("comparison.html.j2").render(
        title=comparison.title,
        verdict=answer(comparison),
        lead=_lead(comparison),
        legend=_legend(comparison),
        table=main_table(comparison) if comparison.cells else None,
        tests=test_tables(comparison),
        tests_legend=_tests_legend(comparison),
        measures=measure_table(comparison) if comparison.cells else None,
        measures_legend=_measures_legend(comparison),
        by_task=by_task_table(comparison) if comparison.cells else None,
        cost_table=cost_table(comparison) if comparison.cells else None,
        costs_legend=_costs_legend(comparison),
        seeds=figures.seed_figures(comparison),
        costs=charts.cost_charts(comparison),
        has_latency=any(c.latency is not None for c in comparison.cells),
        learning=charts.learning_charts(comparison),
        terms={task: found for task, found in terms.items() if found},
        mappings=charts.mappings(comparison),
        domains=figures.domain_figures(comparison),
        groups=figures.group_figures(comparison),
        changes=changes(comparison, chosen(comparison)),
        missing=missing_table(comparison) if comparison.absent else None,
        failed=sum(m.status == "failed" for m in comparison.absent),
        unexported=bool(comparison.unexported),
        runs=run_table(comparison, folder) if comparison.cells else None,
        students=sum(len(cell.runs) for cell in comparison.cells),
        command=reproduce.compare_command(comparison),
        grid=reproduce.grid_file(comparison),
        commands=reproduce.step_commands(comparison, options),
        facts=reproduce.facts(manifests),
        machine=machine_of(manifests),
    )


def _lead(comparison: Comparison) -> str:
    """What was compared: ``6 methods on 4 tasks, 5 seeds``."""
    methods, students = len({m for _, m in comparison.keys}), len({s for s, _ in comparison.keys})
    counts = [words.count_of(methods, "method"), words.count_of(len(comparison.tasks), "task")]
    counts += [words.count_of(students, "student")] if students > 1 else []
    return " · ".join([*counts, words.seeds_in_words(comparison.cells)]) if comparison.cells else "no finished run"


def _legend(comparison: Comparison) -> str:
    """How to read the table, with the tests named in full."""
    test = comparison.test
    tests = (
        f"a paired t-test over seeds with {_correction(comparison)} (p < {test['alpha']:g}) "
        f"and a paired bootstrap interval of {words.percent(test['level'])} over rows and seeds "
        f"({test['resamples']:,} samples)"
    )
    return (
        "Mean ± standard deviation over seeds, on the rows each task is reported on; scores in points of 100. “Better” "
        f"and “worse” than no teacher (none) are those that both {tests} find; grey is not significant. Fewer than "
        f"{test['least_seeds']} seeds tell nothing. The best mean of a column is bold. {_of_averages(comparison)}Each "
        "number leads to its runs."
    )


def _of_averages(comparison: Comparison) -> str:
    """What averages are made of, where the table does not show all of it: GLUE's second metrics."""
    if not any(s.own and s.further for c in comparison.cells for s in c.sets.values()) or len(comparison.tasks) < 2:
        return ""
    return "Averages are means over tasks of the mean of all official metrics of a task, as GLUE’s is. "


def _correction(comparison: Comparison) -> str:
    """The correction for many comparisons, and what it is over; before averages were tested, it was set by set."""
    name = f"{str(comparison.test['correction']).capitalize()}’s correction"
    tested = any(a.against for a in comparison.averages.values())
    over = "over all methods and all tasks" if tested else "over all methods on a set"
    return f"{name} {over} of one student against one control"


def _tests_legend(comparison: Comparison) -> str:
    return (
        "Differences in points of 100, on the seeds that both have. p is of the paired t-test over seeds, corrected "
        f"by {_correction(comparison)}; the tasks’ own rows, out-of-domain sets and averages are corrected apart. "
        "McNemar’s exact test compares right and wrong answers within a seed, seed by seed, uncorrected; verdicts do "
        "not use it."
    )


def _measures_legend(comparison: Comparison) -> str:
    """What the means are over."""
    tasks = measured_tasks(comparison) if comparison.cells else []
    means = ""
    if len(comparison.tasks) > 1:
        means = f"Means over {words.listed([wording.shorten(task, 40) for task in tasks])}. "
    return (
        f"{means}On the tasks’ own rows, in points of 100. Agreement is the share of rows with the teacher’s label "
        "(of a regression the correlation with its answers); the calibration error is how far confidence and "
        "accuracy lie apart, lower being better."
    )


def _costs_legend(comparison: Comparison) -> str:
    """What each cost is of, and which artefact was timed."""
    tasks = len(comparison.tasks) > 1
    parts = [
        f"Parameters and file size are those of the checkpoint{', means over the tasks' if tasks else ''}; seconds are "
        f"those of one seed{', all tasks together' if tasks else ''}. The teacher is captured once for all seeds and "
        "for all methods that ask it for the same.",
        f"Latency is p50 of one row, of the {words.exported(comparison)}, first seed; the drawing has the median of a "
        "student’s exports, which are one graph.",
        "The int8 export was timed and compared with its checkpoint, row by row; its scores were not measured.",
    ]
    known = [
        True,
        any(c.latency is not None for c in comparison.cells),
        any("int8" in c.artefacts for c in comparison.cells),
    ]
    return " ".join(part for part, told in zip(parts, known, strict=True) if told)
