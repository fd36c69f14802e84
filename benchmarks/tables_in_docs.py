"""Write the tables of docs/results/encoders.md from the committed summaries.

    python benchmarks/tables_in_docs.py            # writes them
    python benchmarks/tables_in_docs.py --check    # exits with 1 where the page differs

In the page, a line `<!-- table: NAME -->` begins a table and `<!-- end -->` ends it. NAME is a directory in
benchmarks/results and a title of its tables.md (`encoders half: in domain`), or

- `DIRECTORY differences`: the averages and their differences from both baselines, with confidence intervals;
- `DIRECTORY groups SET`: the parts of an out-of-domain set, such as HANS's heuristics;
- `DIRECTORY times`: seconds of training by task, and the mean over the tasks of their ratio to other methods.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from demiglace.report import format
from demiglace.report.comparison.result_tables import result_tables
from demiglace.report.text_tables import markdown
from demiglace.results.parse import label, upgrade
from demiglace.results.schema import SeedStats
from demiglace.runs.files import read_json

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results" / "encoders.md"
RESULTS = ROOT / "benchmarks" / "results"
RATIOS_TO = ("vanilla-kd", "pkd", "alp-kd")
_BLOCK = re.compile(r"(<!-- table: (\S+) ([^\n]+) -->\n).*?(<!-- end -->)", re.DOTALL)
Summary = Mapping[str, Any]
Lines = list[list[str]]


def with_tables(page: str, results: Path) -> str:
    """Return the page with every table written again. Raises `KeyError` for a name that is no table."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{table(results / found[2], found[3])}\n{found[4]}", page)


def table(directory: Path, name: str) -> str:
    """Return a table in Markdown."""
    summary = upgrade(read_json(directory / "summary.json"))
    kind, _, rest = name.partition(" ")
    if kind in _EXTRA_TABLES:
        return _markdown(_EXTRA_TABLES[kind](summary, rest))
    written = {t.title: markdown(t) for t in result_tables(summary)}
    return written[name].split("\n\n")[1] + "\n"


def differences(summary: Summary, _: str) -> Lines:
    """Return a line for each student and method with all tasks: its average and its differences from the baselines."""
    baselines, tasks = summary["baselines"], {c["task"] for c in summary["cells"]}
    lines = [["student", "method", "average", *(f"against {c}" for c in baselines)]]
    for average in (a for a in summary["averages"] if {*a["tasks"]} == tasks):
        found = average["in_domain"]
        tests = average["against"].get("in_domain", {})
        apart = [_difference(tests[c]) if c in tests else "–" for c in baselines]
        lines.append([average["student"], label(average), _stats("average", found), *apart])
    return lines


def _difference(test: Mapping[str, Any]) -> str:
    """Return a difference with its interval and p; p of an exploratory test is marked as uncorrected."""
    exploratory = test.get("family") == "exploratory"
    p, kind = (test["p"], " uncorrected") if exploratory else (test["p_corrected"], "")
    interval = "" if test["ci"] is None else f" ({100 * test['ci'][0]:+.1f} to {100 * test['ci'][1]:+.1f})"
    shown = "" if p is None else f", p {p:.2g}{kind}"
    return f"{100 * test['difference']:+.1f}{interval}{shown}".replace("-", "−")


def _stats(metric: str, found: Mapping[str, Any]) -> str:
    return format.mean_and_deviation(SeedStats(found["mean"], found["sd"], ()), metric)


def groups(summary: Summary, name: str) -> Lines:
    """Return a line for the teacher and each method: the deciding metric on each part of a set."""
    cells = [c for c in summary["cells"] if c["sets"].get(name, {}).get("groups")]
    parts = list(cells[0]["sets"][name]["groups"])
    metric = cells[0]["sets"][name]["metric"]
    teacher = summary["teachers"][cells[0]["task"]]["sets"][name]["groups"]
    lines = [["method", *(part.replace("_", " ") for part in parts)]]
    lines.append(["teacher", *(format.score(teacher[part]["metrics"][metric], metric) for part in parts)])
    for cell in cells:
        found = cell["sets"][name]["groups"]
        lines.append([label(cell), *(_stats(metric, found[part][metric]) for part in parts)])
    return lines


def times(summary: Summary, _: str) -> Lines:
    """Return a line for each student and method: seconds of training by task, and ratios to other methods."""
    tasks = list(dict.fromkeys(c["task"] for c in summary["cells"]))
    seconds = {(c["student"], label(c), c["task"]): c["train_seconds"]["mean"] for c in summary["cells"]}
    names = dict.fromkeys((student, method) for student, method, _ in seconds)
    others = [o for o in RATIOS_TO if any(method == o for _, method in names)]
    lines = [["student", "method", *tasks, *(f"against {o}" for o in others)]]
    for student, method in names:
        own = [seconds.get((student, method, task)) for task in tasks]
        ratios = [_ratio(own, [seconds.get((student, other, task)) for task in tasks]) for other in others]
        lines.append([student, method, *("–" if s is None else f"{s:,.0f} s" for s in own), *ratios])
    return lines


def _ratio(own: Sequence[float | None], others: Sequence[float | None]) -> str:
    both = [m / t for m, t in zip(own, others, strict=True) if m is not None and t is not None]
    return f"{statistics.fmean(both):.2f}" if both else "–"


def _markdown(lines: Lines) -> str:
    head, *rest = lines
    if len({line[0] for line in rest}) == 1 and head[0] == "student":  # a single student needs no column
        head, *rest = (line[1:] for line in lines)
    text = sum(name in ("student", "method") for name in head)
    rule = ["---"] * text + ["---:"] * (len(head) - text)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *rest))


_EXTRA_TABLES: dict[str, Callable[[Summary, str], Lines]] = {
    "differences": differences,
    "groups": groups,
    "times": times,
}


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    page = PAGE.read_text(encoding="utf-8")
    updated = with_tables(page, RESULTS)
    if parser.parse_args().check:
        sys.exit(
            f"{PAGE} does not have the tables of its results; run {__file__} without --check." if updated != page else 0
        )
    PAGE.write_text(updated, encoding="utf-8")


if __name__ == "__main__":
    main()
