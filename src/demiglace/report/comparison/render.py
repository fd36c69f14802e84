"""The page about a comparison."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from demiglace.config import Option
from demiglace.report import wording
from demiglace.report.commands import command_line
from demiglace.report.comparison import charts, figures, words
from demiglace.report.comparison.answer import answer, chosen
from demiglace.report.comparison.changes import changes
from demiglace.report.comparison.content import Comparison
from demiglace.report.comparison.tables import main_table, missing_table, run_table
from demiglace.report.content import Record
from demiglace.report.render import machine_of, template


def render_comparison(comparison: Comparison, options: Mapping[str, Sequence[Option]], folder: Path) -> str:
    """The page as HTML, safe as `render`'s. options: those of each command; folder: where the page will lie."""
    manifests = list(comparison.manifests.values())
    terms = {task: charts.term_charts(comparison, task) for task in comparison.tasks}
    return template("comparison.html.j2").render(
        title=comparison.title,
        verdict=answer(comparison),
        lead=_lead(comparison),
        legend=_legend(comparison),
        table=main_table(comparison) if comparison.cells else None,
        seeds=figures.seed_figures(comparison),
        costs=charts.cost_charts(comparison),
        has_latency=any(c.latency is not None for c in comparison.cells),
        learning=charts.learning_charts(comparison),
        terms={task: found for task, found in terms.items() if found},
        mappings=charts.mappings(comparison),
        domains=figures.domain_figures(comparison),
        groups=figures.group_figures(comparison),
        changes=changes(comparison, chosen(comparison)),
        missing=missing_table(comparison) if comparison.missing else None,
        failed=sum(m.status == "failed" for m in comparison.missing),
        runs=run_table(comparison, folder) if comparison.cells else None,
        command=f"demiglace compare GRID.yaml -o {comparison.home}" + (" --search optuna" * comparison.searched),
        grid=None if comparison.grid is None else _yaml(comparison.grid),
        commands=_commands(comparison, options),
        facts=_facts(manifests),
        machine=machine_of(manifests),
    )


def _yaml(grid: Mapping[str, Any]) -> str:
    return yaml.safe_dump(json.loads(json.dumps(grid)), sort_keys=False, allow_unicode=True, width=100)


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
        f"a paired t-test over seeds with {str(test['correction']).capitalize()}’s correction (p < {test['alpha']:g}) "
        f"and a paired bootstrap interval of {words.percent(test['level'])} over rows and seeds "
        f"({test['resamples']:,} samples)"
    )
    return (
        "Mean ± standard deviation over seeds, on the rows each task is reported on; scores in points of 100. “Better” "
        f"and “worse” than no teacher (none) are those that both {tests} find; grey is not significant. Fewer than "
        f"{test['least_seeds']} seeds tell nothing. The best mean of a column is bold. Each number leads to its runs."
    )


def _commands(comparison: Comparison, options: Mapping[str, Sequence[Option]]) -> list[str]:
    """One a finished run, each working by itself where the runs before it are there."""
    found = []
    for run, manifest in comparison.manifests.items():
        stage = str(manifest.get("stage"))
        if stage in options:
            record = Record(comparison.home / run, stage, manifest)
            found.append(wording.shorten(command_line(record, options[stage]), 2000))
    return found


def _facts(manifests: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Machines and versions, each once, however many runs share it."""
    machines = [m.get("machine") or {} for m in manifests]
    written = [", ".join(f"{k.replace('_', ' ')} {v}" for k, v in machine.items()) for machine in machines]
    versions = [", ".join(f"{k} {v}" for k, v in (m.get("versions") or {}).items()) for m in manifests]
    facts = [("Machine", text) for text in dict.fromkeys(written) if text]
    facts += [("Versions", text) for text in dict.fromkeys(versions) if text]
    return [(what, wording.shorten(text, 600)) for what, text in facts]
