"""Summarise a comparison: means over seeds, and the tests against the baselines."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from demiglace.evaluation.significance import ALPHA, LEAST_SEEDS, LEVEL, POWER, mean_interval
from demiglace.results.cells import Average, CellRuns, Record, averages, cells_of, name_of
from demiglace.results.contrasts import Contrast
from demiglace.results.schema import BASELINES
from demiglace.results.significance_tests import IN_DOMAIN, OUT_OF_DOMAIN, SignificanceTests

CORRECTION = "holm"
_DIGITS = 12  # of a hash that are shown
_EXTRAS = ("agreement", "ece", "worst_class_f1", "teacher_difference")


def summarize(
    records: Sequence[Record],
    root: Path,
    primary: Sequence[Contrast] = (),
    protocol: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the summary of a comparison's records (see `compare.records`), ready to be written as JSON.

    - cells: one for each task, student, method and axes, with its seeds and the missing ones. Each of its `sets` has
      `metrics` (mean, sd and values by seed), the other measures, `groups`, and `against` for each baseline: the test
      of the deciding metric, see `results.significance_tests.SignificanceTests`.
    - averages: over the tasks, in domain (GLUE's macro average: the mean over tasks of the mean of a task's metrics)
      and out of domain, and their `against`.
    - primary: the tests that the grid declares; only these are corrected for multiple testing.
    - declared: a sentence on whether the primary tests were declared before the runs.
    - teachers: by task; with one for each replicate, means.
    - provenance: when and on what the runs were trained.

    protocol: see `compare.protocol.declaration`. `seeds` holds the units that runs are paired by: seeds, or the numbers
    of replicates (`unit`).
    """
    students = [r for r in records if r["role"] == "student"]
    done = cells_of(students)
    found = SignificanceTests(done, root, primary, dict.fromkeys(map(name_of, students)))
    return {
        "level": LEVEL,
        "alpha": ALPHA,
        "power": POWER,
        "correction": CORRECTION,
        "least_seeds": LEAST_SEEDS,
        "baselines": list(BASELINES),
        "unit": next((r["unit"] for r in students if "unit" in r), "seed"),
        "primary": found.primary,
        "protocol": protocol,
        "declared": _declared(primary, protocol),
        "teachers": _teachers([r for r in records if r["role"] == "teacher" and r["status"] == "done"]),
        "cells": [_described(cell, found) for cell in done],
        "averages": [_average(average, found) for average in averages(done)],
        "missing": [_missing(r) for r in records if r["status"] != "done"],
        "unexported": [_missing(r) | {"status": "failed"} | r["unexported"] for r in records if r.get("unexported")],
        "provenance": _provenance([r for r in records if r["status"] == "done"]),
    }


def _declared(primary: Sequence[Contrast], protocol: Mapping[str, Any] | None) -> str:
    """Return when the primary contrasts were declared, as a sentence; protocol: of `compare.protocol.declaration`."""
    if not primary:
        return "No contrast was declared as primary: all differences are exploratory and uncorrected."
    if protocol is None:
        return "It is not known whether the primary contrasts were declared before the runs."
    file, day = protocol["file"], protocol["declared_at"][: len("2026-01-31")]
    where = f" in the protocol {Path(file).name} (SHA-256 {protocol['sha256'][:_DIGITS]}…)" if file else " in the grid"
    if protocol["changed_after_first_run"]:
        return f"The primary contrasts, or their protocol, were declared or changed after the first run ({day}{where})."
    return f"The primary contrasts were declared before the first run ({day}{where})."


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation (n − 1), t interval of the mean (both None with one seed), and the values."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    mean = statistics.fmean(values)
    return {"mean": mean, "sd": sd, "interval": mean_interval(mean, sd, len(values)), "values": list(values)}


def _described(cell: CellRuns, found: SignificanceTests) -> dict[str, Any]:
    first, runs = cell.first, list(cell.runs.values())
    exported = next((r for r in runs if r.get("latency_ms")), first)
    return {
        "task": cell.task,
        "student": cell.student,
        "method": cell.method,
        "method_name": first["method_name"],
        "axes": dict(cell.axes),
        "searched": first.get("searched", {}),
        "baseline": found.is_baseline(cell),
        "seeds": list(cell.runs),
        "missing": list(cell.missing),
        "runs": [r["run"] for r in runs],
        "evaluations": [r["evaluation"] for r in runs],
        "in_domain": first["in_domain"],
        "sets": {name: _set(cell, name, found) for name in first["sets"]},
        "parameters": first["parameters"],
        "layers": first["layers"],
        "bytes": first["bytes"],
        "capture_seconds": spread([r["seconds"]["capture"] for r in runs]),
        "train_seconds": spread([r["seconds"]["train"] for r in runs]),
        "latency_ms": exported.get("latency_ms"),
        "artefacts": exported.get("artefacts", []),
        "epoch_chosen_on_reported_rows": any(r.get("epoch_chosen_on_reported_rows", False) for r in runs),
    }


def _set(cell: CellRuns, name: str, differences: SignificanceTests) -> dict[str, Any]:
    """Return the results on one set over seeds."""
    found = [r["sets"][name] for r in cell.runs.values() if name in r["sets"]]
    metrics = {m: spread([f["metrics"][m] for f in found]) for m in found[0]["metrics"]}
    extras = {e: spread([f[e] for f in found]) for e in _EXTRAS if all(e in f for f in found)}
    groups = {
        group: {m: spread([f["groups"][group]["metrics"][m] for f in found]) for m in part["metrics"]}
        for group, part in found[0].get("groups", {}).items()
    }
    against = {c: r for (of, on, c), r in differences.of_set.items() if (of, on) == (cell.name, name)}
    head = {"metric": next(iter(metrics)), "rows": found[0]["rows"], "metrics": metrics}
    return head | extras | {"groups": groups, "against": against}


def _average(average: Average, found: SignificanceTests) -> dict[str, Any]:
    against: dict[str, dict[str, Any]] = {}
    for (key, where, baseline), result in found.of_average.items():
        if key == average.key:
            against.setdefault(where, {})[baseline] = result
    first, seeds = average.cells[0], average.seeds
    return {
        "student": first.student,
        "method": first.method,
        "axes": dict(first.axes),
        "tasks": [c.task for c in average.cells],
        "seeds": seeds,
        **{
            where: spread(average.scores(own, seeds)) if seeds and average.having(own) else None
            for where, own in ((IN_DOMAIN, True), (OUT_OF_DOMAIN, False))
        },
        "against": against,
    }


def _teachers(records: Sequence[Record]) -> dict[str, Any]:
    """Return the teachers by task. With one for each replicate: means, and as `run` the directory that holds all."""
    kept = ("run", "evaluation", "in_domain", "sets", "parameters", "layers", "bytes", "seconds", "latency_ms", "rows")
    found = {}
    for task in dict.fromkeys(r["task"] for r in records):
        mine = [r for r in records if r["task"] == task]
        exported = next((r for r in mine if r.get("artefacts")), mine[0])
        found[task] = {name: _mean([r.get(name) for r in mine]) for name in kept} | {
            "latency_ms": exported.get("latency_ms"),
            "artefacts": exported.get("artefacts", []),
        }
        if len(mine) > 1:
            found[task] |= {"run": str(PurePosixPath(mine[0]["run"]).parent), "evaluation": None}
    return found


def _mean(values: Sequence[Any]) -> Any:
    """Return the mean of numbers, of mappings entry by entry; of anything else the first value."""
    first = values[0]
    if isinstance(first, Mapping):
        return {name: _mean([v[name] for v in values]) for name in first if all(name in v for v in values)}
    if isinstance(first, float) and None not in values:
        return statistics.fmean(values)
    return first


def _provenance(records: Sequence[Record]) -> dict[str, Any]:
    """Return the first and the last day of training; machines, versions and precisions, each once."""
    days = sorted(r["finished"][: len("2026-01-31")] for r in records if r.get("finished"))
    found: dict[str, Any] = {"first": days[0], "last": days[-1]} if days else {}
    for name in ("machine", "versions", "precision"):
        values = [r[name] for r in records if r.get(name)]
        found[name] = [value for i, value in enumerate(values) if value not in values[:i]]
    return found


def _missing(record: Record) -> dict[str, Any]:
    kept = ("task", "student", "method", "seed", "axes", "role", "run", "status", "error")
    return {name: record.get(name) for name in kept}
