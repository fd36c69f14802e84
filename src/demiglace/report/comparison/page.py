"""The page about a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from demiglace.config.options import Option
from demiglace.report import format
from demiglace.report.comparison import charts, labels, reproduce, seed_plots
from demiglace.report.comparison.detail_tables import (
    by_task_table,
    cost_table,
    measure_table,
    measured_tasks,
    primary_table,
    test_tables,
)
from demiglace.report.comparison.disagreements import changes
from demiglace.report.comparison.recommendation import answer
from demiglace.report.comparison.tables import main_table, missing_table, run_table
from demiglace.report.runs.page import machine_of, template
from demiglace.results.comparison import Comparison
from demiglace.results.ranking import chosen

_EARLIER = (
    "The tests are those of an earlier version of demiglace: a paired t-test over seeds, corrected over all methods of "
    "a student against one baseline, and a bootstrap interval over rows and seeds that leaves out 0. Repeat the "
    "`demiglace compare` command for today’s tests. "
)


def render_comparison(comparison: Comparison, options: Mapping[str, Sequence[Option]], folder: Path) -> str:
    """Return the page as HTML, as safe as that of `render`.

    options: those of each command; folder: the directory of the page.
    """
    manifests = list(comparison.manifests.values())
    terms = {task: charts.term_charts(comparison, task) for task in comparison.tasks}
    return template("comparison.html.j2").render(
        title=comparison.title,
        verdict=answer(comparison),
        lead=_lead(comparison),
        legend=_legend(comparison),
        table=main_table(comparison) if comparison.cells else None,
        unit=comparison.unit,
        primary=primary_table(comparison),
        primary_legend=_primary_legend(comparison),
        tests=test_tables(comparison),
        tests_legend=_tests_legend(comparison),
        measures=measure_table(comparison) if comparison.cells else None,
        measures_legend=_measures_legend(comparison),
        by_task=by_task_table(comparison) if comparison.cells else None,
        cost_table=cost_table(comparison) if comparison.cells else None,
        costs_legend=_costs_legend(comparison),
        seeds=seed_plots.seed_figures(comparison),
        costs=charts.cost_charts(comparison),
        has_latency=any(c.latency is not None for c in comparison.cells),
        learning=charts.learning_charts(comparison),
        terms={task: found for task, found in terms.items() if found},
        mappings=charts.mappings(comparison),
        domains=seed_plots.domain_figures(comparison),
        groups=seed_plots.group_figures(comparison),
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
    """Return what was compared: ``4 methods · 2 baselines · 4 tasks · 5 seeds``."""
    students = len({s for s, _ in comparison.keys})
    baselines = {m for s, m in comparison.keys if comparison.baseline_of((s, m))}
    methods = {m for _, m in comparison.keys} - baselines
    counts = [format.count_of(len(methods), "method")] if methods else []
    counts += [format.count_of(len(baselines), "baseline")] if baselines else []
    counts += [format.count_of(len(comparison.tasks), "task")]
    counts += [format.count_of(students, "student")] if students > 1 else []
    return (
        " · ".join([*counts, labels.seeds_in_words(comparison.cells, comparison.unit)])
        if comparison.cells
        else "no finished run"
    )


def _legend(comparison: Comparison) -> str:
    """Return how to read the table, with the tests described in full."""
    test, unit = comparison.test, comparison.unit
    if test["power"] is None:
        marks = _EARLIER
    else:
        marks = (
            f"“Better” and “worse” than no teacher (none): p < {test['alpha']:g}. {_tested(comparison)} “Exploratory” "
            "tests were not declared as primary in the grid; their p is not corrected for the number of tests. "
            f"{_mde(comparison)} "
        )
    return (
        f"Mean ± standard deviation over {unit}s, on the rows each task is reported on; scores in points of 100. "
        f"{marks}Fewer than {test['least_seeds']} {unit}s are not tested. Grey: no significant difference. Bold: the "
        f"best mean of a column. {_of_averages(comparison)}Each number links to its runs."
    )


def _tested(comparison: Comparison) -> str:
    """Return what is tested, and which population the test is about."""
    return (
        f"Tests are paired t-tests of the mean difference over {comparison.unit}s. Their standard error covers new "
        f"{comparison.unit}s and new test rows (two-way variance, Satterthwaite degrees of freedom)."
    )


def _mde(comparison: Comparison) -> str:
    """Return what the minimum detectable effect is."""
    power = format.percent(float(comparison.test["power"]))
    return (
        f"MDE (“detectable”): the smallest true difference that this design finds with {power} power; at the worst "
        "case of the correction for primary tests, uncorrected for exploratory ones."
    )


def _of_averages(comparison: Comparison) -> str:
    """Return what averages are over, where the table does not show all metrics: the second metrics of GLUE."""
    if not any(s.own and s.further for c in comparison.cells for s in c.sets.values()) or len(comparison.tasks) < 2:
        return ""
    return "Averages are means over tasks of the mean of all official metrics of a task, as in GLUE. "


def _primary_legend(comparison: Comparison) -> str:
    """Return how primary tests were corrected."""
    if not comparison.primary:
        return ""
    name, tests = str(comparison.test["correction"]).capitalize(), format.count_of(len(comparison.primary), "test")
    alpha = f"{comparison.test['alpha']:g}"
    level = alpha if len(comparison.primary) == 1 else f"{alpha} / {len(comparison.primary)}"
    margins = any(entry.equivalence is not None for entry in comparison.primary)
    return (
        f"{comparison.test['declared']} {_tested(comparison)} p is corrected by {name}’s method over the {tests} of "
        f"this table; intervals are not. {_mde(comparison)} Here that is p < {level}."
        + (" Equivalence: two one-sided tests (TOST) with the margin of the grid, corrected apart." if margins else "")
    )


def _tests_legend(comparison: Comparison) -> str:
    shared = "Differences in points of 100, on the {unit}s that both have."
    mcnemar = (
        "McNemar’s exact test compares right and wrong answers within a {unit}, uncorrected; verdicts do not use it."
    )
    if comparison.test["power"] is None:
        middle = _EARLIER
    else:
        middle = (
            f"{_tested(comparison)} A corrected p is given for primary tests alone; all others are exploratory and "
            f"uncorrected. {_mde(comparison)} "
        )
    return f"{shared} {middle}{mcnemar}".replace("{unit}", comparison.unit)


def _measures_legend(comparison: Comparison) -> str:
    """Return what the means are over."""
    tasks = measured_tasks(comparison) if comparison.cells else []
    means = ""
    if len(comparison.tasks) > 1:
        means = f"Means over {format.listed([format.shorten(task, 40) for task in tasks])}. "
    return (
        f"{means}On the tasks’ rows, in points of 100. Agreement is the share of rows with the teacher’s label (for "
        "regression the correlation with its predictions). The calibration error is the gap between confidence and "
        "accuracy; lower is better."
    )


def _costs_legend(comparison: Comparison) -> str:
    """Return what each cost is about, and which artefact was measured."""
    tasks, unit = len(comparison.tasks) > 1, comparison.unit
    lower = [p for p in comparison.precisions() if p != "fp32"]
    scored = any(a.score is not None for c in comparison.cells for a in c.artefacts if a.precision in lower)
    scores = f"; its score is the mean plus what the file of the first {unit} gains or loses against fp32"
    captured = "for all seeds and methods" if unit == "seed" else f"in each {unit} for all methods"
    parts = [
        f"Parameters and file size are those of the checkpoint{', means over the tasks' if tasks else ''}; seconds are "
        f"those of one {unit}{', all tasks together' if tasks else ''}. The teacher’s signals are captured once, "
        f"{captured} that use the same ones.",
        f"Latency is p50 of one row with the {labels.exported(comparison)}, first {unit}. The chart has the median "
        "over a student’s methods, whose exports share one graph.",
        f"The {format.listed(lower)} export was compared with its checkpoint row by row"
        f"{scores if scored else '; its scores were not measured'}."
        if lower
        else "",
    ]
    known = [
        True,
        any(c.latency is not None for c in comparison.cells),
        bool(lower),
    ]
    return " ".join(part for part, shown in zip(parts, known, strict=True) if shown)
