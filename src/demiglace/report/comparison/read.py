"""From a directory of `demiglace compare` to what its page shows. Reads JSON alone."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demiglace.errors import RunError
from demiglace.manifest import read_json
from demiglace.report.comparison.content import (
    Average,
    Cell,
    Comparison,
    Difference,
    Missing,
    SetResult,
    Spread,
    Teacher,
    is_own,
)
from demiglace.report.content import Scores
from demiglace.report.logs import numbers, read_epochs, read_log
from demiglace.report.wording import finite

STAGE = "compare"
_OUTLINE = ("summary.json", "results.json")


def is_comparison(path: Path) -> bool:
    """Whether a directory is one of `demiglace compare`, complete or not."""
    claim = path / "run.json"
    return claim.exists() and read_json(claim).get("stage") == STAGE


def read_comparison(home: Path, title: str) -> Comparison:
    """Read a comparison, with what failed and what is missing.

    Raises `RunError` where it has not come to a first end, and where its files are not what this version writes.
    """
    absent = [name for name in _OUTLINE if not (home / name).exists()]
    if absent:
        raise RunError(
            f"{home} has no {absent[0]} yet; its comparison was cut off. Repeat its `demiglace compare` command."
        )
    summary, records = read_json(home / "summary.json"), read_json(home / "results.json")
    try:
        return _comparison(home, title, summary, records["records"])
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise RunError(
            f"{home / 'summary.json'} is not what this version writes ({type(error).__name__}: {error}); "
            "repeat the `demiglace compare` command with this version."
        ) from error


def _comparison(home: Path, title: str, summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Comparison:
    manifest = read_json(home / "manifest.json") if (home / "manifest.json").exists() else {}
    config = manifest.get("config", {})
    return Comparison(
        home=home,
        title=title,
        cells=tuple(_with_runs(_cell(c), home) for c in summary["cells"]),
        teachers={task: _teacher(t) for task, t in summary["teachers"].items()},
        averages={(a["student"], label(a)): _average(a) for a in summary["averages"]},
        missing=tuple(Missing(str(m["run"]), m["status"], str(m["error"] or "")) for m in summary["missing"]),
        test={k: summary[k] for k in ("level", "alpha", "resamples", "correction", "least_seeds")},
        grid=config.get("grid"),
        searched=config.get("search", "none") != "none",
        manifests=_manifests(home, [r["run"] for r in records]),
    )


def _manifests(home: Path, runs: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    found = {run: home / run / "manifest.json" for run in runs}
    return {run: read_json(file) for run, file in found.items() if file.exists()}


def label(described: Mapping[str, Any]) -> str:
    """The name of a method with its axes: ``rail-kd-l, lr 0.0001``."""
    axes = described["axes"].items()
    return ", ".join([described["method"], *(f"{k.removeprefix('method_options.')} {_value(v)}" for k, v in axes)])


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _spread(found: Mapping[str, Any]) -> Spread:
    interval = found.get("interval")
    low_high = (float(interval[0]), float(interval[1])) if interval else None
    return Spread(float(found["mean"]), finite(found["sd"]), tuple(map(float, found["values"])), low_high)


def _perhaps(found: Mapping[str, Any] | None) -> Spread | None:
    return None if found is None else _spread(found)


def _cell(found: Mapping[str, Any]) -> Cell:
    latency = (found["latency_ms"] or {}).get("1", {})
    return Cell(
        task=found["task"],
        student=found["student"],
        method=label(found),
        control=found["method_name"] if found["control"] else "",
        seeds=tuple(found["seeds"]),
        missing=tuple(found["missing"]),
        runs=tuple(found["runs"]),
        evaluations=tuple(found["evaluations"]),
        in_domain=found["in_domain"],
        sets={name: _set(name, s, is_own(name, found["in_domain"])) for name, s in found["sets"].items()},
        layers=finite(found["layers"]),
        parameters=finite(found["parameters"]),
        size=finite(found["bytes"]),
        capture=_spread(found["capture_seconds"]),
        train=_spread(found["train_seconds"]),
        latency=finite(latency.get("p50")),
    )


def _set(name: str, found: Mapping[str, Any], own: bool) -> SetResult:
    metric = found["metric"]
    return SetResult(
        name=name,
        metric=metric,
        rows=found["rows"],
        own=own,
        score=_spread(found["metrics"][metric]),
        agreement=_perhaps(found.get("agreement")),
        ece=_perhaps(found.get("ece")),
        worst_class_f1=_perhaps(found.get("worst_class_f1")),
        groups={group: _spread(metrics[metric]) for group, metrics in found["groups"].items() if metric in metrics},
        against={control: _difference(d) for control, d in found["against"].items()},
    )


def _difference(found: Mapping[str, Any]) -> Difference:
    low, high = found["ci"]
    return Difference(float(found["difference"]), (low, high), finite(found["p_corrected"]), found["verdict"])


def _teacher(found: Mapping[str, Any]) -> Teacher:
    scores = {name: numbers(s["metrics"]) for name, s in (found["sets"] or {}).items()}
    latency = finite(((found["latency_ms"] or {}).get("1") or {}).get("p50"))
    layers, parameters, size = (finite(found[k]) for k in ("layers", "parameters", "bytes"))
    return Teacher(str(found["run"]), str(found["in_domain"]), scores, layers, parameters, size, latency)


def _average(found: Mapping[str, Any]) -> Average:
    return Average(tuple(found["tasks"]), _perhaps(found["in_domain"]), _perhaps(found["out_of_domain"]))


def _with_runs(cell: Cell, home: Path) -> Cell:
    """The cell with what its runs' own files say: curves, layer mappings, changes against the teacher."""
    first, *others = [home / run / "log.jsonl" for run in cell.runs]
    log = read_log(first)
    curve = _mean_curve([log.epochs, *map(read_epochs, others)])
    changes = [_changes(home / directory, cell.in_domain) for directory in cell.evaluations if directory]
    return replace(cell, log=log, curve=curve, changes=tuple(filter(None, changes)))


def _mean_curve(curves: Sequence[Mapping[int, Scores]]) -> dict[int, Scores]:
    """Means over the seeds, at the epochs that all of them have."""
    epochs = [e for e in curves[0] if all(e in c for c in curves)]
    return {
        e: {m: sum(c[e][m] for c in curves) / len(curves) for m in curves[0][e] if all(m in c[e] for c in curves)}
        for e in epochs
    }


def _changes(evaluation: Path, in_domain: str) -> Mapping[str, Any]:
    """The changes of the task's own set; empty for regression, where there are none."""
    file = evaluation / f"{_stem(in_domain)}.changes.json"
    return read_json(file) if file.exists() else {}


def _stem(name: str) -> str:
    """A set's name as `evaluate` writes it in its files' names."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")
