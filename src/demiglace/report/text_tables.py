"""A comparison's summary as tables, methods by tasks, in Markdown and LaTeX."""

import html
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demiglace.results.cells import has_sets, is_own, task_score

NOT_TESTED = "not tested: runs are missing"
_SIGNS = {"better": "↑", "worse": "↓"}
_PERCENT = ("accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "average")
_AVERAGES = "Averages are over the tasks: of each task the mean over its sets of the mean of a set's metrics."
_TEST = (
    "Tests are paired t-tests of the mean difference over {unit}s; their standard error includes the variance of "
    "{unit}s and of test rows."
)
_MDE = "MDE: the smallest true difference that this design finds with {power:.0%} power"
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "ρ": r"$\rho$"}
_LATEX |= {"−": "$-$", "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "×": r"$\times$"}


@dataclass(frozen=True)
class Entry:
    """A cell of a table: its text, whether it is the best of its column, and whether it stands out from no control."""

    text: str
    best: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class ResultTable:
    """A table: a title, a caption, columns, and rows of entries; the first of a row is its name."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]


def result_tables(summary: Mapping[str, Any]) -> list[ResultTable]:
    """Return the primary tests, then for each student its tasks' own sets, out-of-domain sets, costs and searches.

    Empty tables are left out.
    """
    made = [_primary(summary)]
    for student in dict.fromkeys(c["student"] for c in summary["cells"]):
        made += [_result_table(summary, student, inside) for inside in (True, False)]
        made += [_costs(summary, student), _searched(summary, student)]
    return [table for table in made if table.columns]


def _primary(summary: Mapping[str, Any]) -> ResultTable:
    """The tests of the contrasts that the grid declares."""
    entries = summary.get("primary", [])
    if not entries:
        return ResultTable("primary contrasts", "", (), ())
    correction, level, family = summary["correction"].capitalize(), summary["level"], len(entries)
    return ResultTable(
        "primary contrasts",
        f"{declared(summary)} Differences are in points of 100, with {level:.0%} confidence intervals (uncorrected). "
        f"{_TEST.format(unit=unit_of(summary))} p is corrected by {correction}'s method over the {family} primary "
        f"contrasts. {_MDE.format(power=summary['power'])} at the correction's worst case, p < "
        f"{summary['alpha']:g}/{family}. Equivalence: two one-sided tests (TOST), corrected over the contrasts that "
        "have a margin.",
        ("contrast", "student", "on", "difference", "p", "corrected p", "verdict", "equivalence"),
        tuple(tuple(map(Entry, _primary_row(entry))) for entry in entries),
    )


def _primary_row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    on = ", ".join(map(_short, entry["tasks"]))
    head = (
        f"{label(entry)} − {entry['control']}",
        entry["student"],
        f"average of {on}" if entry["average"] else on,
    )
    test = entry["test"]
    if test is None:
        return (*head, "–", "–", "–", NOT_TESTED, "–")
    metric = entry["metric"]
    return (
        *head,
        signed(metric, test["difference"]) + (f" ({ends})" if (ends := _interval(metric, test["ci"])) else ""),
        _p(test["p"]),
        _p(test["p_corrected"]),
        test["verdict"] + (f" ({mde})" if (mde := mde_text(metric, test)) else ""),
        _equivalence(metric, test["equivalence"]),
    )


def _equivalence(metric: str, found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    margin = signed(metric, found["margin"]).removeprefix("+")
    return f"{found['verdict']} within ±{margin}, p {_p(found['p_corrected'])}"


def _interval(metric: str, ends: Sequence[float] | None) -> str:
    return "" if ends is None else " to ".join(signed(metric, end) for end in ends)


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def signed(metric: str, value: float) -> str:
    """Return a difference with its sign, in points of 100 where the metric has them: ``+1.2``, ``−0.3``."""
    return f"{100 * value:+.1f}".replace("-", "−") if metric in _PERCENT else f"{value:+.3f}".replace("-", "−")


def mde_text(metric: str, test: Mapping[str, Any]) -> str:
    """Return the minimum detectable effect of a test that finds no difference: ``MDE 1.3``; empty for others."""
    mde = test.get("mde")
    if test["verdict"] != "no significant difference" or mde is None:
        return ""
    return f"MDE {signed(metric, mde).removeprefix('+')}"


def _result_table(summary: Mapping[str, Any], student: str, inside: bool) -> ResultTable:
    cells = [c for c in summary["cells"] if c["student"] == student]
    shown = dict.fromkeys((c["task"], *each) for c in cells for each in _metrics_of(c, inside))
    labels = list(dict.fromkeys(map(label, cells)))
    columns = [[_teacher_entry(summary, *key), *_column(cells, labels, *key)] for key in shown]
    columns.append([_taught_on_average(summary, cells, inside), *_average_column(summary, cells, labels, inside)])
    names = [Entry("teacher", quiet=True), *(Entry(_marked(x, cells)) for x in labels)]
    titles = [_title(cells, *key) for key in shown]
    where = "in domain" if inside else "out of domain"
    return ResultTable(
        f"{student}: {where}",
        _caption(summary, cells),
        ("method", *titles, "average") if shown else (),
        tuple(zip(names, *columns, strict=True)),
    )


def _metrics_of(cell: Mapping[str, Any], inside: bool) -> Iterator[tuple[str, str]]:
    """Sets and metrics to show: all official ones, for averages are over all of them."""
    for name, found in cell["sets"].items():
        if is_own(cell, name) == inside:
            yield from ((name, metric) for metric in found["metrics"])


def _costs(summary: Mapping[str, Any], student: str) -> ResultTable:
    """Training time by task, the teacher's capture over all tasks, and what the student weighs and takes."""
    cells = [c for c in summary["cells"] if c["student"] == student]
    tasks, labels = list(dict.fromkeys(c["task"] for c in cells)), list(dict.fromkeys(map(label, cells)))
    rows = []
    for name in labels:
        of = {c["task"]: c for c in cells if label(c) == name}
        trained = [f"{of[t]['train_seconds']['mean']:,.0f}" if t in of else "–" for t in tasks]
        capture = sum(c["capture_seconds"]["mean"] for c in of.values())
        parameters, size = (statistics.fmean(c[cost] for c in of.values()) for cost in ("parameters", "bytes"))
        times = [t for c in of.values() if (t := latency_of(c)) is not None]
        latency = f"{statistics.fmean(times):.1f}" if len(times) == len(of) else "–"
        rest = [f"{capture:,.0f}", f"{parameters:,.0f}", f"{size / 1e6:,.1f}", latency]
        rows.append([_marked(name, cells), *trained, *rest])
    titles = [*(f"{_short(t)}: training, s" for t in tasks), "teacher's capture, s", "parameters", "MB", "latency, ms"]
    return ResultTable(
        f"{student}: cost",
        f"Seconds of training are means over {unit_of(summary)}s. The teacher's signals are captured once for all runs "
        "that can read the same ones; the column has the seconds of the captures that a method used, summed over the "
        "tasks. "
        "Parameters, MB and latency are means over the tasks; latency is the median of one row with the exported fp32 "
        "model, where there is one.",
        ("method", *titles),
        tuple(tuple(map(Entry, row)) for row in rows),
    )


def _searched(summary: Mapping[str, Any], student: str) -> ResultTable:
    """The options that a search found for each method, task by task."""
    cells = [c for c in summary["cells"] if c["student"] == student]
    found = {(label(c), c["task"], name): value for c in cells for name, value in c.get("searched", {}).items()}
    columns = list(dict.fromkeys((task, name) for _, task, name in found))
    rows = []
    for name in dict.fromkeys(map(label, cells)):
        values = [found.get((name, *column), "–") for column in columns]
        rows.append((_marked(name, cells), *(f"{v:.2g}" if isinstance(v, float) else str(v) for v in values)))
    titles = [f"{_short(task)}: {name.removeprefix('method_options.')}" for task, name in columns]
    return ResultTable(
        f"{student}: options found by search",
        "Every method had as many trials, or all combinations of its options where they are fewer; they were scored on "
        "rows held out of the training rows.",
        ("method", *titles) if columns else (),
        tuple(tuple(map(Entry, row)) for row in rows),
    )


def provenance(summary: Mapping[str, Any]) -> list[str]:
    """When and on what the runs were trained, a sentence; none where earlier versions did not write it."""
    found = summary.get("provenance", {})
    if "first" not in found:
        return []
    days = " to ".join(dict.fromkeys((found["first"], found["last"])))
    machines = " and ".join(f"{m['processor']} with {m['cores']} cores ({m['system']})" for m in found["machine"])
    versions = "; ".join(", ".join(f"{name} {number}" for name, number in v.items()) for v in found["versions"])
    return [f"Trained {days} on {machines}, {' and '.join(found['precision'])}, with {versions}.\n"]


def latency_of(cell: Mapping[str, Any]) -> float | None:
    """Milliseconds of one row, the median; None where nothing was exported."""
    found = ((cell["latency_ms"] or {}).get("1") or {}).get("p50")
    return None if found is None else float(found)


def label(cell: Mapping[str, Any]) -> str:
    """The name of a method with its axes: ``rail-kd-l, learning_rate 0.0001``."""
    return ", ".join([cell["method"], *axes_of(cell)])


def axes_of(cell: Mapping[str, Any]) -> list[str]:
    """The axes of a cell in words."""
    return [
        f"{k.removeprefix('method_options.')} {v:g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in cell["axes"].items()
    ]


def _marked(name: str, cells: Sequence[Mapping[str, Any]]) -> str:
    control = any(c["control"] for c in cells if label(c) == name)
    return f"{name} (control)" if control else name


def _title(cells: Sequence[Mapping[str, Any]], task: str, name: str, metric: str) -> str:
    found = next(c["sets"][name] for c in cells if c["task"] == task and name in c["sets"])
    return f"{_short(name)} ({metric.replace('_', '-')}, {found['rows']:,} rows)"


def _short(name: str) -> str:
    """A set's name; of a file, without its directory."""
    return name.rsplit("/", 1)[-1]


def _column(
    cells: Sequence[Mapping[str, Any]], labels: Sequence[str], task: str, name: str, metric: str
) -> list[Entry]:
    """The entries of all methods in one metric of a set."""
    by_label = {label(c): c["sets"].get(name) for c in cells if c["task"] == task}
    found = [by_label.get(x) for x in labels]
    best = max(f["metrics"][metric]["mean"] for f in found if f)
    return [Entry("–") if f is None else _entry(f, metric, best) for f in found]


def _entry(found: Mapping[str, Any], metric: str, best: float) -> Entry:
    against = found["against"].get("none") if metric == found["metric"] else None
    return _format_with_arrow(metric, found["metrics"][metric], best, against)


def _format_with_arrow(metric: str, values: Mapping[str, Any], best: float, against: Mapping[str, Any] | None) -> Entry:
    """The entry of a metric; best: the highest mean, which is bold wherever it reads the same."""
    sign = _SIGNS.get(against["verdict"], "") if against else ""
    exploratory = against is not None and against.get("family") == "exploratory"
    mark = f"({sign})" if sign and exploratory else sign
    if against and (mde := mde_text(metric, against)):
        mark = f"({mde})"
    text = score_text(metric, values) + (f" {mark}" if mark else "")
    is_best = score_text(metric, {**values, "sd": None}) == score_text(metric, {"mean": best, "sd": None})
    return Entry(text, is_best, against is not None and not sign)


def score_text(metric: str, values: Mapping[str, Any]) -> str:
    """Mean ± deviation, in points of 100 where the metric has them."""
    factor = 100 if metric in _PERCENT else 1
    mean = f"{values['mean'] * factor:.1f}" if factor == 100 else f"{values['mean']:.3f}"
    if values["sd"] is None:
        return mean
    return f"{mean} ± {values['sd'] * factor:.1f}" if factor == 100 else f"{mean} ± {values['sd']:.3f}"


def _teacher_entry(summary: Mapping[str, Any], task: str, name: str, metric: str) -> Entry:
    scores = summary["teachers"].get(task, {}).get("sets", {}).get(name, {}).get("metrics", {})
    return Entry(score_text(metric, {"mean": scores[metric], "sd": None}) if metric in scores else "–", quiet=True)


def _taught_on_average(summary: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], inside: bool) -> Entry:
    """The average of the teachers of all of the student's tasks, made as the students' are."""
    taught = [summary["teachers"].get(task) for task in dict.fromkeys(c["task"] for c in cells)]
    known = [t for t in taught if t is not None and t["in_domain"] is not None]
    scores = [task_score(t, inside) for t in known if has_sets(t, inside)]
    if not scores or len(known) < len(taught):
        return Entry("–", quiet=True)
    return Entry(score_text("accuracy", {"mean": statistics.fmean(scores), "sd": None}), quiet=True)


def _average_column(
    summary: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], labels: Sequence[str], inside: bool
) -> list[Entry]:
    """Averages over all of the student's tasks; a mean over fewer of them compares with nothing."""
    key, tasks = "in_domain" if inside else "out_of_domain", {c["task"] for c in cells}
    whole = {label(a): a for a in summary["averages"] if a["student"] == cells[0]["student"] and {*a["tasks"]} == tasks}
    found = [whole[x] if x in whole and whole[x][key] else None for x in labels]
    best = max((a[key]["mean"] for a in found if a), default=0.0)
    return [
        Entry("–")
        if a is None
        else _format_with_arrow("average", a[key], best, a.get("against", {}).get(key, {}).get("none"))
        for a in found
    ]


def _caption(summary: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> str:
    seeds = sorted({len(c["seeds"]) for c in cells})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    unit = unit_of(summary)
    means = f"One {unit}" if seeds == [1] else f"Mean ± standard deviation over {counted} {unit}s"
    if not any("none" in found["against"] for c in cells for found in c["sets"].values()):
        return (
            f"{means}; best mean in bold. Nothing was tested: there is no student without a teacher to test against. "
            f"{_AVERAGES}"
        )
    plain = next(c["method"] for c in cells if c["control"] and c["method_name"] == "none")
    return f"{means}; best mean in bold. {_tested(summary, plain)} {_AVERAGES}"


def _tested(summary: Mapping[str, Any], plain: str) -> str:
    """How arrows were decided; plain: the student without a teacher."""
    if "power" not in summary:
        return (
            f"↑ and ↓: better and worse than `{plain}` by the test of an earlier version of demiglace: a paired t-test "
            "over seeds, corrected over all methods and tasks, and a bootstrap interval that leaves out 0."
        )
    unit = unit_of(summary)
    return (
        f"↑ and ↓: better and worse than `{plain}` (p < {summary['alpha']:g}). {_TEST.format(unit=unit)} Arrows in "
        "brackets are exploratory: they are not corrected for the number of tests. "
        f"{_MDE.format(power=summary['power'])}, uncorrected where the test is exploratory. No mark: fewer than "
        f"{summary['least_seeds']} {unit}s, or a task's second metric, which is not tested. {declared(summary)}"
    )


def unit_of(summary: Mapping[str, Any]) -> str:
    """Return what runs are paired by: ``seed`` or ``replicate``."""
    return str(summary.get("unit", "seed"))


def declared(summary: Mapping[str, Any]) -> str:
    """Return whether contrasts were declared as primary, and when, as a sentence."""
    return str(summary.get("declared", ""))


def markdown(table: ResultTable) -> str:
    """A table in GitHub's Markdown."""

    def plain(text: str) -> str:
        return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")

    def cell(entry: Entry) -> str:
        return f"**{plain(entry.text)}**" if entry.best else plain(entry.text)

    lines = [[plain(c) for c in table.columns], ["---", *("---:" for _ in table.columns[1:])]]
    lines += [[cell(e) for e in row] for row in table.rows]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"### {plain(table.title)}\n\n{body}\n\n{table.caption}\n"


def latex(table: ResultTable) -> str:
    """A table in LaTeX with booktabs; entries that are no different from the control are grey (xcolor)."""

    def cell(entry: Entry) -> str:
        text = _escaped(entry.text)
        text = f"\\textbf{{{text}}}" if entry.best else text
        return f"\\textcolor{{gray}}{{{text}}}" if entry.quiet else text

    rows = "\n".join(" & ".join(map(cell, row)) + r" \\" for row in table.rows)
    head = " & ".join(map(_escaped, table.columns)) + r" \\"
    shape = "l" + "r" * (len(table.columns) - 1)
    return (
        "% needs \\usepackage{booktabs,xcolor}\n"
        f"\\begin{{table}}\n\\caption{{{_escaped(table.title)}. {_escaped(table.caption.replace('`', ''))}}}\n"
        f"\\begin{{tabular}}{{{shape}}}\n\\toprule\n{head}\n\\midrule\n{rows}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
