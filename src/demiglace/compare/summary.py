"""What the records of a comparison say: means over seeds, and what differs from the controls by more than chance."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.evaluation.significance import (
    ALPHA,
    LEAST_SEEDS,
    LEVEL,
    RESAMPLES,
    corrected,
    interval,
    mcnemar,
    mean_interval,
    resampled,
    seed_test,
    verdict,
)
from demiglace.stages.evaluate import file_name

CONTROLS = ("none", "vanilla-kd")
CORRECTION = "holm"
_LOWER_IS_BETTER = ("mse",)
_EXTRAS = ("agreement", "ece", "worst_class_f1", "teacher_difference")
Record = Mapping[str, Any]
Name = tuple[str, str, str, tuple[tuple[str, Any], ...]]  # task, student, method, axes


@dataclass(frozen=True)
class _Cell:
    """The finished runs of one cell, by seed, and the seeds that are missing."""

    name: Name
    runs: Mapping[int, Record]
    missing: tuple[int, ...]

    @property
    def first(self) -> Record:
        return next(iter(self.runs.values()))


def summarise(records: Sequence[Record], home: Path) -> dict[str, Any]:
    """The summary of a comparison's records (see `compare.records`), ready to be written as JSON.

    cells: one for each task, student, method and axes: its seeds, the missing ones, and for each set `metrics` (mean,
    sd and values by seed), the other measures, `groups`, and `against` for each control: the difference of the deciding
    metric, its interval, p of the seeds' paired t-test, p corrected, McNemar's p by seed, and the verdict. Corrected
    are all comparisons of one set and one student with one control. averages: over the tasks, in domain (GLUE's macro
    average: the mean over tasks of the mean of a task's metrics) and out of domain. teachers: by task.
    """
    cells = _cells([r for r in records if r["role"] == "student"])
    done = [c for c in cells if c.runs]
    described = [_described(cell) for cell in done]
    for group in _groups_of(done):
        _compare(group, dict(zip([c.name for c in done], described, strict=True)), home)
    return {
        "level": LEVEL,
        "alpha": ALPHA,
        "resamples": RESAMPLES,
        "correction": CORRECTION,
        "least_seeds": LEAST_SEEDS,
        "controls": list(CONTROLS),
        "teachers": {r["task"]: _teacher(r) for r in records if r["role"] == "teacher" and r["status"] == "done"},
        "cells": described,
        "averages": _averages(done),
        "missing": [_missing(r) for r in records if r["status"] != "done"],
    }


def _name(record: Record) -> Name:
    return record["task"], record["student"], record["method"], tuple(sorted(record["axes"].items()))


def _cells(records: Sequence[Record]) -> list[_Cell]:
    names = list(dict.fromkeys(map(_name, records)))
    of = {name: [r for r in records if _name(r) == name] for name in names}
    return [
        _Cell(
            name,
            {r["seed"]: r for r in rows if r["status"] == "done"},
            tuple(r["seed"] for r in rows if r["status"] != "done"),
        )
        for name, rows in of.items()
    ]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation over seeds (n − 1), the mean's t interval (none of both for one seed), the values."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    mean = statistics.fmean(values)
    return {"mean": mean, "sd": sd, "interval": mean_interval(mean, sd, len(values)), "values": list(values)}


def _described(cell: _Cell) -> dict[str, Any]:
    first, runs = cell.first, list(cell.runs.values())
    task, student, method, axes = cell.name
    latencies = [r["latency_ms"] for r in runs if r.get("latency_ms")]
    return {
        "task": task,
        "student": student,
        "method": method,
        "method_name": first["method_name"],
        "axes": dict(axes),
        "control": first["method_name"] in CONTROLS,
        "seeds": list(cell.runs),
        "missing": list(cell.missing),
        "runs": [r["run"] for r in runs],
        "evaluations": [r["evaluation"] for r in runs],
        "in_domain": first["in_domain"],
        "sets": {name: _set(name, runs) for name in first["sets"]},
        "parameters": first["parameters"],
        "layers": first["layers"],
        "bytes": first["bytes"],
        "capture_seconds": spread([r["seconds"]["capture"] for r in runs]),
        "train_seconds": spread([r["seconds"]["train"] for r in runs]),
        "latency_ms": latencies[0] if latencies else None,
    }


def _set(name: str, runs: Sequence[Record]) -> dict[str, Any]:
    """One set's results over seeds."""
    found = [r["sets"][name] for r in runs if name in r["sets"]]
    metrics = {m: spread([f["metrics"][m] for f in found]) for m in found[0]["metrics"]}
    extras = {e: spread([f[e] for f in found]) for e in _EXTRAS if all(e in f for f in found)}
    groups = {
        group: {m: spread([f["groups"][group]["metrics"][m] for f in found]) for m in part["metrics"]}
        for group, part in found[0].get("groups", {}).items()
    }
    return (
        {"metric": next(iter(metrics)), "rows": found[0]["rows"], "metrics": metrics}
        | extras
        | {
            "groups": groups,
            "against": {},
        }
    )


def _teacher(record: Record) -> dict[str, Any]:
    kept = ("run", "evaluation", "in_domain", "sets", "parameters", "layers", "bytes", "seconds", "latency_ms", "rows")
    return {name: record.get(name) for name in kept}


def _missing(record: Record) -> dict[str, Any]:
    kept = ("task", "student", "method", "seed", "axes", "role", "run", "status", "error")
    return {name: record.get(name) for name in kept}


def _groups_of(cells: Sequence[_Cell]) -> list[list[_Cell]]:
    """The cells that are compared with one another: those of one task and one student."""
    keys = dict.fromkeys(c.name[:2] for c in cells)
    return [[c for c in cells if c.name[:2] == key] for key in keys]


def _compare(cells: Sequence[_Cell], described: Mapping[Name, dict[str, Any]], home: Path) -> None:
    """Put what differs from the controls into the descriptions of the cells of one task and student."""
    for name in dict.fromkeys(s for c in cells for s in c.first["sets"]):
        having = [c for c in cells if all(name in r["sets"] for r in c.runs.values())]
        predictions = _Predictions(having, name, home)
        for control in CONTROLS:
            pairs = [(c, other) for c in having if (other := _control_of(c, having, control)) is not None]
            found = [_difference(c, other, name, predictions) for c, other in pairs]
            for (cell, _), result, p in zip(pairs, found, corrected([f["p"] for f in found]), strict=True):
                result["p_corrected"] = p
                higher = described[cell.name]["sets"][name]["metric"] not in _LOWER_IS_BETTER
                result["verdict"] = verdict(result["ci"], p, len(result["seeds"]), higher)
                described[cell.name]["sets"][name]["against"][control] = result


def _control_of(cell: _Cell, cells: Sequence[_Cell], control: str) -> _Cell | None:
    """The control's cell with the same axes, as far as it has them."""
    axes = dict(cell.name[3])
    for other in cells:
        same = all(axes.get(k) == v for k, v in other.name[3])
        if other.first["method_name"] == control and same and other is not cell and set(other.runs) & set(cell.runs):
            return other
    return None


class _Predictions:
    """The predictions of all runs on one set, and their metric on the same bootstrap samples."""

    def __init__(self, cells: Sequence[_Cell], name: str, home: Path):
        keys = [(c.name, seed) for c in cells for seed in c.runs]
        stems = [home / c.runs[seed]["evaluation"] / file_name(name) for c in cells for seed in c.runs]
        self._column = {key: i for i, key in enumerate(keys)}
        self.labels = np.load(stems[0].with_name(f"{stems[0].name}.labels.npy"))
        self._said = [np.load(stem.with_name(f"{stem.name}.predictions.npy")) for stem in stems]
        self.metric = next(iter(cells[0].first["sets"][name]["metrics"]))
        self._values = resampled(self.metric, self.labels, self._said)

    def of(self, cell: _Cell, seed: int) -> np.ndarray:
        """What a run predicts [N]."""
        return self._said[self._column[cell.name, seed]]

    def values(self, cell: _Cell, seeds: Sequence[int]) -> np.ndarray:
        """The metric on every bootstrap sample [resamples, seeds]."""
        return self._values[:, [self._column[cell.name, seed] for seed in seeds]]


def _difference(cell: _Cell, control: _Cell, name: str, predictions: _Predictions) -> dict[str, Any]:
    seeds = [s for s in cell.runs if s in control.runs]
    ours, theirs = ([c.runs[s]["sets"][name]["metrics"][predictions.metric] for s in seeds] for c in (cell, control))
    classes = np.issubdtype(predictions.labels.dtype, np.integer)
    tests = [mcnemar(predictions.labels, predictions.of(cell, s), predictions.of(control, s)) for s in seeds]
    return {
        "seeds": seeds,
        "difference": statistics.fmean(np.subtract(ours, theirs).tolist()),
        "ci": list(interval(predictions.values(cell, seeds), predictions.values(control, seeds))),
        "p": seed_test(ours, theirs),
        "mcnemar": tests if classes else None,
    }


def _averages(cells: Sequence[_Cell]) -> list[dict[str, Any]]:
    """For each student, method and axes the average over tasks, on the seeds that all its tasks have."""
    names = dict.fromkeys(c.name[1:] for c in cells)
    return [_average(*name, [c for c in cells if c.name[1:] == name]) for name in names]


def _average(student: str, method: str, axes: tuple[tuple[str, Any], ...], cells: list[_Cell]) -> dict[str, Any]:
    seeds = [s for s in cells[0].runs if all(s in c.runs for c in cells)]
    outside = [c for c in cells if len(c.first["sets"]) > 1]
    return {
        "student": student,
        "method": method,
        "axes": dict(axes),
        "tasks": [c.name[0] for c in cells],
        "seeds": seeds,
        "in_domain": spread([_mean_score(cells, s, inside=True) for s in seeds]) if seeds else None,
        "out_of_domain": spread([_mean_score(outside, s, inside=False) for s in seeds]) if seeds and outside else None,
    }


def _mean_score(cells: Sequence[_Cell], seed: int, inside: bool) -> float:
    """The mean over tasks of the mean over a task's sets of the mean of a set's metrics.

    In domain are the sets that carry the task's own name: MNLI's two validation splits are one task, as in GLUE.
    """
    return statistics.fmean(_task_score(cell.runs[seed], inside) for cell in cells)


def _task_score(record: Record, inside: bool) -> float:
    own = record["in_domain"].split(":")[0]
    sets = [s for name, s in record["sets"].items() if (name.split(":")[0] == own) == inside]
    return statistics.fmean(statistics.fmean(s["metrics"].values()) for s in sets)
