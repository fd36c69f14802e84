"""Write a comparison's tables as files."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from demiglace.escaping import spreadsheet_cell
from demiglace.report.comparison.result_tables import NOT_TESTED, provenance, result_tables
from demiglace.report.text_tables import latex_of, markdown
from demiglace.results.cells import has_sets
from demiglace.results.parse import axes_in_words, latency_of, upgrade
from demiglace.results.schema import is_own
from demiglace.runs.files import write_atomically

_COLUMNS = (
    *("student", "task", "set", "group", "in_domain", "method", "axes", "baseline", "metric", "rows", "seeds"),
    *("mean", "sd", "values", "against", "family", "difference", "se", "df", "ci_low", "ci_high", "p", "p_corrected"),
    *("mcnemar", "verdict", "mde", "mde_alpha"),
    *("agreement", "ece", "worst_class_f1", "parameters", "layers", "bytes", "latency_ms_p50"),
    *("capture_seconds", "train_seconds", "run"),
)


_PRIMARY = (
    *("student", "method", "axes", "baseline", "tasks", "average", "metric", "seeds", "difference", "se", "df"),
    *("ci_low", "ci_high", "p", "p_corrected", "verdict", "mde", "mde_alpha"),
    *("margin", "p_equivalence", "p_equivalence_corrected", "equivalence"),
)


_MEASURES = ("agreement", "ece", "worst_class_f1")


class _Writer(csv.DictWriter):
    """Writes rows in which no text is a formula."""

    def writerow(self, rowdict: Mapping[str, Any]) -> Any:
        return super().writerow({key: spreadsheet_cell(value) for key, value in rowdict.items()})

    def writerows(self, rowdicts: Iterable[Mapping[str, Any]]) -> None:
        for row in rowdicts:
            self.writerow(row)


def write_tables(summary: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write tables.md, tables.tex, results.csv and summary.json into a directory; return their paths.

    With primary contrasts there is a primary.csv, too.
    """
    directory.mkdir(parents=True, exist_ok=True)
    found = result_tables(summary)
    contents = {
        "tables.md": "\n".join([*map(markdown, found), *provenance(summary)]),
        "tables.tex": latex_of(found),
        "results.csv": long_csv(summary),
        "summary.json": json.dumps(summary, indent=2, ensure_ascii=False) + "\n",
    }
    if summary.get("primary"):
        contents["primary.csv"] = primary_csv(summary)
    for name, content in contents.items():
        write_atomically(directory / name, content.encode("utf-8", errors="replace"))
    return [directory / name for name in contents]


def long_csv(summary: Mapping[str, Any]) -> str:
    """Return every number as CSV: a line for each set, metric, group and baseline of a cell; teachers; averages."""
    out, summary = io.StringIO(), upgrade(summary)
    writer = _Writer(out, _COLUMNS, lineterminator="\n")
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


def primary_csv(summary: Mapping[str, Any]) -> str:
    """Return the primary tests as CSV, one a line, with their equivalence tests."""
    out = io.StringIO()
    writer = _Writer(out, _PRIMARY, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(map(_primary, upgrade(summary)["primary"]))
    return out.getvalue()


def _primary(entry: Mapping[str, Any]) -> dict[str, Any]:
    head = {k: entry[k] for k in ("student", "method", "baseline", "average", "metric")}
    head |= {"axes": ", ".join(axes_in_words(entry["axes"])), "tasks": " ".join(entry["tasks"])}
    test = entry["test"]
    if test is None:
        return head | {"verdict": NOT_TESTED}
    return head | {"seeds": len(test["seeds"])} | _test(test) | _equivalence(test["equivalence"])


def _of_average(average: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], inside: bool) -> dict[str, Any]:
    """Return the columns that describe an average: its tasks with such sets, and their runs."""
    own = [c for c in cells if all(c[k] == average[k] for k in ("student", "method", "axes")) and has_sets(c, inside)]
    runs = [run for c in own for seed, run in zip(c["seeds"], c["runs"], strict=True) if seed in average["seeds"]]
    return {
        **{k: average[k] for k in ("student", "method")},
        "task": " ".join(c["task"] for c in own),
        "set": "average",
        "metric": "mean of all official metrics",
        "in_domain": inside,
        "axes": ", ".join(axes_in_words(average["axes"])),
        "seeds": len(average["seeds"]),
        "run": " ".join(runs),
    }


def _lines(cell: Mapping[str, Any], name: str, found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    base = {
        **{k: cell[k] for k in ("student", "task", "method", "baseline", "parameters", "layers", "bytes")},
        "set": name,
        "in_domain": is_own(name, cell["in_domain"]),
        "axes": ", ".join(axes_in_words(cell["axes"])),
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
    """Return a line for each baseline, or the line as it is where there is none."""
    return [{**line, "against": baseline, **_test(t)} for baseline, t in against.items()] or [{**line}]


def _test(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a test; those that an earlier version did not write are empty."""
    low, high = found["ci"] or (None, None)
    names = ("family", "difference", "se", "df", "p", "p_corrected", "verdict", "mde", "mde_alpha")
    return {k: found.get(k) for k in names} | {
        "ci_low": low,
        "ci_high": high,
        "mcnemar": _listed(found.get("mcnemar")),
    }


def _equivalence(found: Mapping[str, Any] | None) -> dict[str, Any]:
    if found is None:
        return {}
    names = {"margin": "margin", "p": "p_equivalence", "p_corrected": "p_equivalence_corrected"}
    return {column: found[k] for k, column in names.items()} | {"equivalence": found["verdict"]}
