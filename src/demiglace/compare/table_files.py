"""The files of a comparison's tables: Markdown, LaTeX, every number as CSV, and the summary as JSON."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from demiglace.compare.outcomes import has_sets, is_own
from demiglace.compare.tables import axes_of, latency_of, latex, markdown, provenance, result_tables
from demiglace.manifest import write_atomically

_COLUMNS = (
    *("student", "task", "set", "group", "in_domain", "method", "axes", "control", "metric", "rows", "seeds"),
    *("mean", "sd", "values", "against", "difference", "ci_low", "ci_high", "p", "p_corrected", "mcnemar", "verdict"),
    *("agreement", "ece", "worst_class_f1", "parameters", "layers", "bytes", "latency_ms_p50"),
    *("capture_seconds", "train_seconds", "run"),
)
_MEASURES = ("agreement", "ece", "worst_class_f1")


def write_tables(summary: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write tables.md, tables.tex, results.csv and summary.json into a directory; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    found = result_tables(summary)
    contents = {
        "tables.md": "\n".join([*map(markdown, found), *provenance(summary)]),
        "tables.tex": "\n".join(map(latex, found)),
        "results.csv": long_csv(summary),
        "summary.json": json.dumps(summary, indent=2, ensure_ascii=False) + "\n",
    }
    for name, content in contents.items():
        write_atomically(directory / name, content.encode("utf-8", errors="replace"))
    return [directory / name for name in contents]


def long_csv(summary: Mapping[str, Any]) -> str:
    """Cells by set, metric, group and control (one line without, where there is none), then teachers and averages."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for cell in summary["cells"]:
        for name, found in cell["sets"].items():
            writer.writerows(_lines(cell, name, found))
    for task, teacher in summary["teachers"].items():
        for name, found in (teacher["sets"] or {}).items():
            head = {"task": task, "set": name, "method": "teacher", "rows": found.get("rows"), "run": teacher["run"]}
            head |= {k: teacher[k] for k in ("parameters", "layers", "bytes")} | {"latency_ms_p50": latency_of(teacher)}
            writer.writerows(head | {"metric": metric, "mean": value} for metric, value in found["metrics"].items())
    for average in summary["averages"]:
        for where in ("in_domain", "out_of_domain"):
            if average[where]:
                head = _of_average(average, summary["cells"], where == "in_domain")
                against = average.get("against", {}).get(where, {})
                writer.writerows(_tested(head | _numbers(average[where]), against))
    return out.getvalue()


def _of_average(average: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], inside: bool) -> dict[str, Any]:
    """What an average is of: its tasks, those that have such sets, and their runs."""
    own = [c for c in cells if all(c[k] == average[k] for k in ("student", "method", "axes")) and has_sets(c, inside)]
    runs = [run for c in own for seed, run in zip(c["seeds"], c["runs"], strict=True) if seed in average["seeds"]]
    return {
        **{k: average[k] for k in ("student", "method")},
        "task": " ".join(c["task"] for c in own),
        "set": "average",
        "metric": "mean of all official metrics",
        "in_domain": inside,
        "axes": ", ".join(axes_of(average)),
        "seeds": len(average["seeds"]),
        "run": " ".join(runs),
    }


def _lines(cell: Mapping[str, Any], name: str, found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    base = {
        **{k: cell[k] for k in ("student", "task", "method", "control", "parameters", "layers", "bytes")},
        "set": name,
        "in_domain": is_own(cell, name),
        "axes": ", ".join(axes_of(cell)),
        "rows": found["rows"],
        "seeds": len(cell["seeds"]),
        "latency_ms_p50": latency_of(cell),
        **{k: cell[k]["mean"] for k in ("capture_seconds", "train_seconds")},
        "run": " ".join(cell["runs"]),
    }
    measures = {e: found[e]["mean"] for e in _MEASURES if e in found}
    for metric, values in found["metrics"].items():
        tests = found["against"] if metric == found["metric"] else {}
        yield from _tested(base | measures | {"metric": metric} | _numbers(values), tests)
    for group, metrics in found["groups"].items():
        for metric, values in metrics.items():
            yield base | {"group": group, "rows": None, "metric": metric} | _numbers(values)


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"mean": values["mean"], "sd": values["sd"], "values": _listed(values["values"])}


def _listed(values: Sequence[float] | None) -> str:
    return " ".join(f"{v:.6g}" for v in values or ())


def _tested(line: Mapping[str, Any], against: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each control, or the line as it is where there is none."""
    tests = [
        {"against": control, "ci_low": t["ci"][0], "ci_high": t["ci"][1], "mcnemar": _listed(t.get("mcnemar"))}
        | {k: t[k] for k in ("difference", "p", "p_corrected", "verdict")}
        for control, t in against.items()
    ]
    return [{**line, **test} for test in tests or [{}]]
