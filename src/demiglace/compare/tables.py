"""A comparison's summary as tables: methods by tasks, in Markdown and LaTeX, and every number as CSV and JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demiglace.manifest import write_atomically

_SIGNS = {"better": "↑", "worse": "↓"}
_PERCENT = ("accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman")
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}
_LATEX |= {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "×": r"$\times$"}
_COLUMNS = (
    *("student", "task", "set", "in_domain", "method", "axes", "control", "metric", "rows", "seeds", "mean", "sd"),
    *("against", "difference", "ci_low", "ci_high", "p", "p_corrected", "verdict"),
    *("agreement", "ece", "worst_class_f1", "parameters", "bytes", "capture_seconds", "train_seconds", "run"),
)


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


def write_tables(summary: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write tables.md, tables.tex, results.csv and summary.json into a directory; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    found = result_tables(summary)
    contents = {
        "tables.md": "\n".join(map(markdown, found)),
        "tables.tex": "\n".join(map(latex, found)),
        "results.csv": long_csv(summary),
        "summary.json": json.dumps(summary, indent=2, ensure_ascii=False) + "\n",
    }
    for name, content in contents.items():
        write_atomically(directory / name, content.encode("utf-8", errors="replace"))
    return [directory / name for name in contents]


def result_tables(summary: Mapping[str, Any]) -> list[ResultTable]:
    """For each student a table of the tasks' own sets, and one of the out-of-domain sets where there are any."""
    students = dict.fromkeys(c["student"] for c in summary["cells"])
    made = [_result_table(summary, student, inside) for student in students for inside in (True, False)]
    return [table for table in made if table.columns]


def _result_table(summary: Mapping[str, Any], student: str, inside: bool) -> ResultTable:
    cells = [c for c in summary["cells"] if c["student"] == student]
    sets = list(dict.fromkeys((c["task"], name) for c in cells for name in c["sets"] if _inside(c, name) == inside))
    labels = list(dict.fromkeys(map(label, cells)))
    columns = [[_taught(summary, *key), *_column(cells, labels, *key)] for key in sets]
    columns.append([Entry("–", quiet=True), *_average_column(summary, student, labels, inside)])
    names = [Entry("teacher", quiet=True), *(Entry(_marked(x, cells)) for x in labels)]
    titles = [_title(cells, *key) for key in sets]
    where = "in domain" if inside else "out of domain"
    return ResultTable(
        f"{student}: {where}",
        _caption(summary, cells),
        ("method", *titles, "average") if sets else (),
        tuple(zip(names, *columns, strict=True)),
    )


def _inside(cell: Mapping[str, Any], name: str) -> bool:
    return name.split(":")[0] == cell["in_domain"].split(":")[0]


def label(cell: Mapping[str, Any]) -> str:
    """The name of a method with its axes: ``rail-kd-l, lr 0.0001``."""
    axes = [
        f"{k.removeprefix('method_options.')} {v:g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in cell["axes"].items()
    ]
    return ", ".join([cell["method"], *axes])


def _marked(name: str, cells: Sequence[Mapping[str, Any]]) -> str:
    control = any(c["control"] for c in cells if label(c) == name)
    return f"{name} (control)" if control else name


def _title(cells: Sequence[Mapping[str, Any]], task: str, name: str) -> str:
    found = next(c["sets"][name] for c in cells if c["task"] == task and name in c["sets"])
    return f"{name} ({found['metric'].replace('_', '-')}, {found['rows']:,} rows)"


def _column(cells: Sequence[Mapping[str, Any]], labels: Sequence[str], task: str, name: str) -> list[Entry]:
    """The entries of all methods on one set."""
    by_label = {label(c): c["sets"].get(name) for c in cells if c["task"] == task}
    found = [by_label.get(x) for x in labels]
    means = [f["metrics"][f["metric"]]["mean"] for f in found if f]
    lower = any(f and f["metric"] == "mse" for f in found)
    best = min(means) if lower else max(means)
    return [Entry("–") if f is None else _entry(f, best) for f in found]


def _entry(found: Mapping[str, Any], best: float | None) -> Entry:
    values = found["metrics"][found["metric"]]
    against = found["against"].get("none")
    sign = _SIGNS.get(against["verdict"], "") if against else ""
    text = score_text(found["metric"], values) + (f" {sign}" if sign else "")
    return Entry(text, values["mean"] == best, against is not None and not sign)


def score_text(metric: str, values: Mapping[str, Any]) -> str:
    """Mean ± deviation, in points of 100 where the metric has them."""
    factor = 100 if metric in _PERCENT else 1
    mean = f"{values['mean'] * factor:.1f}" if factor == 100 else f"{values['mean']:.3f}"
    if values["sd"] is None:
        return mean
    return f"{mean} ± {values['sd'] * factor:.1f}" if factor == 100 else f"{mean} ± {values['sd']:.3f}"


def _taught(summary: Mapping[str, Any], task: str, name: str) -> Entry:
    found = summary["teachers"].get(task, {}).get("sets", {}).get(name)
    if not found:
        return Entry("–", quiet=True)
    metric, value = next(iter(found["metrics"].items()))
    return Entry(score_text(metric, {"mean": value, "sd": None}), quiet=True)


def _average_column(summary: Mapping[str, Any], student: str, labels: Sequence[str], inside: bool) -> list[Entry]:
    key = "in_domain" if inside else "out_of_domain"
    by_label = {label(a): a[key] for a in summary["averages"] if a["student"] == student}
    found = [by_label.get(x) for x in labels]
    means = [v["mean"] for v in found if v]
    return [Entry("–") if v is None else Entry(score_text("accuracy", v), v["mean"] == max(means)) for v in found]


def _caption(summary: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> str:
    seeds = sorted({len(c["seeds"]) for c in cells})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"Mean ± standard deviation over {counted} seeds; best mean in bold. ↑ and ↓: better and worse than `none` "
        f"by a paired t-test over seeds with {summary['correction'].capitalize()}'s correction (p < "
        f"{summary['alpha']:g}) and a paired bootstrap interval of {summary['level']:.0%} over rows and seeds "
        f"({summary['resamples']:,} samples) that leaves out 0. No arrow: no significant difference, or fewer than "
        f"{summary['least_seeds']} seeds."
    )


def markdown(table: ResultTable) -> str:
    """A table in GitHub's Markdown."""

    def cell(entry: Entry) -> str:
        text = entry.text.replace("|", "\\|").replace("\n", " ")
        return f"**{text}**" if entry.best else text

    lines = [table.columns, ["---", *("---:" for _ in table.columns[1:])]]
    lines += [[cell(e) for e in row] for row in table.rows]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"### {table.title}\n\n{body}\n\n{table.caption}\n"


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
        f"\\begin{{table}}\n\\caption{{{_escaped(table.title)}. {_escaped(table.caption.replace('`', ''))}}}\n"
        f"\\begin{{tabular}}{{{shape}}}\n\\toprule\n{head}\n\\midrule\n{rows}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def long_csv(summary: Mapping[str, Any]) -> str:
    """Every set of every cell, one line for each control it is compared with (one without, where there is none)."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for cell in summary["cells"]:
        for name, found in cell["sets"].items():
            writer.writerows(_lines(cell, name, found))
    return out.getvalue()


def _lines(cell: Mapping[str, Any], name: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    values = found["metrics"][found["metric"]]
    means = {e: found[e]["mean"] for e in ("agreement", "ece", "worst_class_f1") if e in found}
    base = {
        **{k: cell[k] for k in ("student", "task", "method", "control", "parameters", "bytes")},
        "set": name,
        "in_domain": _inside(cell, name),
        "axes": label(cell),
        "metric": found["metric"],
        "rows": found["rows"],
        "seeds": len(cell["seeds"]),
        "mean": values["mean"],
        "sd": values["sd"],
        **{k: cell[k]["mean"] for k in ("capture_seconds", "train_seconds")},
        "run": " ".join(cell["runs"]),
    }
    tests = [
        {"against": control, "ci_low": t["ci"][0], "ci_high": t["ci"][1]}
        | {k: t[k] for k in ("difference", "p", "p_corrected", "verdict")}
        for control, t in found["against"].items()
    ]
    return [base | means | test for test in tests or [{}]]
