"""Parse the JSON of a comparison's summary, of this version or of an earlier one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demiglace.results.comparison import Comparison
from demiglace.results.metric_table import finite
from demiglace.results.run_log import numbers
from demiglace.results.schema import (
    BASELINES,
    Artefact,
    Average,
    Cell,
    Difference,
    Equivalence,
    Missing,
    Primary,
    SeedStats,
    SetResult,
    Teacher,
    find_artefact,
    is_own,
)

Json = Mapping[str, Any]


def parse_summary(summary: Json, root: Path = Path(), title: str = "") -> Comparison:
    """Return the comparison of a summary, without what the files of its runs hold.

    Raises `KeyError`, `TypeError`, `AttributeError` or `ValueError` where the summary is not what any version writes.
    """
    found = upgrade(summary)
    baselines = _baselines(found["cells"])
    return Comparison(
        root=root,
        title=title,
        cells=tuple(_cell(c, baselines) for c in found["cells"]),
        teachers={task: _teacher(t) for task, t in found["teachers"].items()},
        averages={(a["student"], label(a)): _average(a) for a in found["averages"]},
        missing=tuple(map(_missing, found["missing"])),
        unexported=tuple(map(_missing, found.get("unexported", ()))),
        test=_test(found),
        primary=tuple(map(_primary, found.get("primary", ()))),
        provenance=found.get("provenance", {}),
    )


def upgrade(summary: Json) -> dict[str, Any]:
    """Return a summary with today's keys; version 0.1 wrote `control` and `controls` for baselines."""
    found = dict(summary)
    if "controls" in found:
        found["baselines"] = found.pop("controls")
    for part in ("cells", "primary"):
        if part in found:
            found[part] = [{_NEW_KEYS.get(k, k): v for k, v in entry.items()} for entry in found[part]]
    return found


_NEW_KEYS = {"control": "baseline"}


def label(described: Json) -> str:
    """Return the name of a method with its axes: ``rail-kd-l, lr 0.0001``."""
    return ", ".join([described["method"], *axes_in_words(described["axes"])])


def axes_in_words(axes: Json) -> list[str]:
    """Return the values of axes: ``["lr 0.0001", "sampling step"]``."""
    return [f"{name.removeprefix('method_options.')} {_value(value)}" for name, value in axes.items()]


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def latency_of(found: Json) -> float | None:
    """Return the median latency of one row in ms; None where nothing was exported."""
    return finite(((found.get("latency_ms") or {}).get("1") or {}).get("p50"))


def _baselines(cells: Sequence[Json]) -> dict[str, dict[str, str]]:
    """Return student -> label -> baseline: the label that is its name, or else the first one whose method it is."""
    found: dict[str, dict[str, str]] = {}
    for baseline in BASELINES:
        labels: dict[str, list[str]] = {}
        for c in cells:
            if c["baseline"] and c["method_name"] == baseline:
                labels.setdefault(c["student"], []).append(c["method"])
        for student, names in labels.items():
            found.setdefault(student, {})[baseline if baseline in names else names[0]] = baseline
    return found


def _test(summary: Json) -> dict[str, Any]:
    """Return how differences were tested; power is None in a summary by an earlier version, whose tests differ."""
    known = {k: summary[k] for k in ("level", "alpha", "correction", "least_seeds")}
    unit, declared = summary.get("unit", "seed"), summary.get("declared", "")
    return known | {"power": summary.get("power"), "unit": unit, "declared": declared}


def _stats(found: Json) -> SeedStats:
    interval = found.get("interval")
    low_high = (float(interval[0]), float(interval[1])) if interval else None
    return SeedStats(float(found["mean"]), finite(found["sd"]), tuple(map(float, found["values"])), low_high)


def _optional_stats(found: Json | None) -> SeedStats | None:
    return None if found is None else _stats(found)


def _artefacts(found: Sequence[Json]) -> tuple[Artefact, ...]:
    """Return the exported files of a cell; the change of a score is from the first file in fp32."""
    parsed = [_artefact(a) for a in found]
    full = find_artefact(parsed, "fp32")
    if full is None or full.score is None:
        return tuple(parsed)
    return tuple(replace(a, change=None if a.score is None else a.score - full.score) for a in parsed)


def _artefact(found: Json) -> Artefact:
    return Artefact(
        format=str(found.get("format", "onnx")),
        precision=str(found["precision"]),
        size=finite(found.get("bytes")),
        latency=latency_of(found),
        agreement=finite(found.get("agreement")),
        score=next(iter(numbers(found.get("metrics")).values()), None),
    )


def _cell(found: Json, baselines: Mapping[str, Mapping[str, str]]) -> Cell:
    """Return one of `cells`; baselines: as `_baselines` returns them."""
    return Cell(
        task=found["task"],
        student=found["student"],
        method=label(found),
        label=found["method"],
        baseline=baselines.get(found["student"], {}).get(found["method"], ""),
        seeds=tuple(found["seeds"]),
        missing=tuple(found["missing"]),
        runs=tuple(found["runs"]),
        evaluations=tuple(found["evaluations"]),
        in_domain=found["in_domain"],
        sets={name: _set(name, s, is_own(name, found["in_domain"])) for name, s in found["sets"].items()},
        parameters=finite(found["parameters"]),
        size=finite(found["bytes"]),
        capture=_stats(found["capture_seconds"]),
        train=_stats(found["train_seconds"]),
        latency=latency_of(found),
        artefacts=_artefacts(found.get("artefacts") or ()),
        axes=found["axes"],
        searched=found.get("searched") or {},
        selected_on_test_rows=bool(found.get("epoch_chosen_on_reported_rows")),
    )


def _set(name: str, found: Json, own: bool) -> SetResult:
    metric = found["metric"]
    return SetResult(
        name=name,
        metric=metric,
        own=own,
        rows=found.get("rows"),
        score=_stats(found["metrics"][metric]),
        further={name: _stats(s) for name, s in found["metrics"].items() if name != metric},
        agreement=_optional_stats(found.get("agreement")),
        ece=_optional_stats(found.get("ece")),
        worst_class_f1=_optional_stats(found.get("worst_class_f1")),
        groups={group: _stats(metrics[metric]) for group, metrics in found["groups"].items() if metric in metrics},
        against={baseline: _difference(d) for baseline, d in found["against"].items()},
    )


def _difference(found: Json) -> Difference:
    interval = found["ci"]
    return Difference(
        difference=float(found["difference"]),
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        p=finite(found.get("p")),
        p_corrected=finite(found["p_corrected"]),
        verdict=found["verdict"],
        family=found.get("family", "corrected"),
        mde=finite(found.get("mde")),
        mcnemar=tuple(found.get("mcnemar") or ()),
    )


def _primary(found: Json) -> Primary:
    test = found["test"]
    equivalence = test and test["equivalence"]
    return Primary(
        student=found["student"],
        method=label(found),
        baseline=found["baseline"],
        tasks=tuple(found["tasks"]),
        average=bool(found["average"]),
        metric=found["metric"],
        test=_difference(test) if test else None,
        equivalence=Equivalence(equivalence["margin"], finite(equivalence["p_corrected"]), equivalence["verdict"])
        if equivalence
        else None,
    )


def _teacher(found: Json) -> Teacher:
    sets = found["sets"] or {}
    return Teacher(
        run=str(found["run"]),
        in_domain=str(found["in_domain"]),
        scores={name: numbers(s["metrics"]) for name, s in sets.items()},
        measures={n: v for n, v in numbers(sets.get(found["in_domain"])).items() if n in ("ece", "worst_class_f1")},
        parameters=finite(found["parameters"]),
        size=finite(found["bytes"]),
        latency=latency_of(found),
        train=finite((found.get("seconds") or {}).get("train")),
        artefacts=_artefacts(found.get("artefacts") or ()),
    )


def _missing(found: Json) -> Missing:
    method = label(found) if found.get("role") == "student" else None
    return Missing(str(found["run"]), found["status"], str(found["error"] or ""), str(found.get("task", "")), method)


def _average(found: Json) -> Average:
    against = found.get("against") or {}
    inside, outside = (
        {baseline: _difference(d) for baseline, d in (against.get(where) or {}).items()}
        for where in ("in_domain", "out_of_domain")
    )
    stats = _optional_stats(found["in_domain"]), _optional_stats(found["out_of_domain"])
    return Average(tuple(found["tasks"]), tuple(found["seeds"]), *stats, inside, outside)
