"""Parse the JSON of a comparison's summary."""

from collections.abc import Mapping, Sequence
from typing import Any

from demiglace.results.metrics import finite
from demiglace.results.run_log import numbers
from demiglace.results.schema import (
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
    is_own,
)

_CONTROLS = ("none", "vanilla-kd")


def controls(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Student -> label -> control: the label that is its name, or else the first one whose method it is."""
    found: dict[str, dict[str, str]] = {}
    for control in _CONTROLS:
        labels: dict[str, list[str]] = {}
        for c in cells:
            if c["control"] and c["method_name"] == control:
                labels.setdefault(c["student"], []).append(c["method"])
        for student, names in labels.items():
            found.setdefault(student, {})[control if control in names else names[0]] = control
    return found


def label(described: Mapping[str, Any]) -> str:
    """The name of a method with its axes: ``rail-kd-l, learning_rate 0.0001``."""
    axes = described["axes"].items()
    return ", ".join([described["method"], *(f"{k.removeprefix('method_options.')} {_value(v)}" for k, v in axes)])


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _spread(found: Mapping[str, Any]) -> SeedStats:
    interval = found.get("interval")
    low_high = (float(interval[0]), float(interval[1])) if interval else None
    return SeedStats(float(found["mean"]), finite(found["sd"]), tuple(map(float, found["values"])), low_high)


def _optional_stats(found: Mapping[str, Any] | None) -> SeedStats | None:
    return None if found is None else _spread(found)


def _latency(found: Mapping[str, Any]) -> float | None:
    """In ms, p50 of one row."""
    return finite(((found.get("latency_ms") or {}).get("1") or {}).get("p50"))


def _artefacts(found: Mapping[str, Any]) -> dict[str, Artefact]:
    return {
        str(a["precision"]): Artefact(finite(a.get("bytes")), _latency(a), finite(a.get("agreement")))
        for a in found.get("artefacts") or ()
    }


def cell(found: Mapping[str, Any], controls: Mapping[str, Mapping[str, str]]) -> Cell:
    """One of `cells`; controls: as `controls` finds them."""
    return Cell(
        task=found["task"],
        student=found["student"],
        method=label(found),
        control=controls.get(found["student"], {}).get(found["method"], ""),
        seeds=tuple(found["seeds"]),
        missing=tuple(found["missing"]),
        runs=tuple(found["runs"]),
        evaluations=tuple(found["evaluations"]),
        in_domain=found["in_domain"],
        sets={name: _set(name, s, is_own(name, found["in_domain"])) for name, s in found["sets"].items()},
        parameters=finite(found["parameters"]),
        size=finite(found["bytes"]),
        capture=_spread(found["capture_seconds"]),
        train=_spread(found["train_seconds"]),
        latency=_latency(found),
        artefacts=_artefacts(found),
        axes=found["axes"],
        selected_on_test_rows=bool(found.get("epoch_chosen_on_reported_rows")),
    )


def _set(name: str, found: Mapping[str, Any], own: bool) -> SetResult:
    metric = found["metric"]
    return SetResult(
        name=name,
        metric=metric,
        own=own,
        score=_spread(found["metrics"][metric]),
        further={name: _spread(s) for name, s in found["metrics"].items() if name != metric},
        agreement=_optional_stats(found.get("agreement")),
        ece=_optional_stats(found.get("ece")),
        worst_class_f1=_optional_stats(found.get("worst_class_f1")),
        groups={group: _spread(metrics[metric]) for group, metrics in found["groups"].items() if metric in metrics},
        against={control: _difference(d) for control, d in found["against"].items()},
    )


def _difference(found: Mapping[str, Any]) -> Difference:
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


def primary(found: Mapping[str, Any]) -> Primary:
    """Return one of the tests that the grid declares."""
    test = found["test"]
    equivalence = test and test["equivalence"]
    return Primary(
        student=found["student"],
        method=label(found),
        control=found["control"],
        tasks=tuple(found["tasks"]),
        average=bool(found["average"]),
        metric=found["metric"],
        test=_difference(test) if test else None,
        equivalence=Equivalence(equivalence["margin"], finite(equivalence["p_corrected"]), equivalence["verdict"])
        if equivalence
        else None,
    )


def teacher(found: Mapping[str, Any]) -> Teacher:
    """One of `teachers`."""
    sets = found["sets"] or {}
    return Teacher(
        run=str(found["run"]),
        in_domain=str(found["in_domain"]),
        scores={name: numbers(s["metrics"]) for name, s in sets.items()},
        measures={n: v for n, v in numbers(sets.get(found["in_domain"])).items() if n in ("ece", "worst_class_f1")},
        parameters=finite(found["parameters"]),
        size=finite(found["bytes"]),
        latency=_latency(found),
        train=finite((found.get("seconds") or {}).get("train")),
        artefacts=_artefacts(found),
    )


def missing(found: Mapping[str, Any]) -> Missing:
    """One of `missing`."""
    method = label(found) if found.get("role") == "student" else None
    return Missing(str(found["run"]), found["status"], str(found["error"] or ""), str(found.get("task", "")), method)


def average(found: Mapping[str, Any]) -> Average:
    """One of `averages`."""
    against = found.get("against") or {}
    inside, outside = (
        {control: _difference(d) for control, d in (against.get(where) or {}).items()}
        for where in ("in_domain", "out_of_domain")
    )
    spreads = _optional_stats(found["in_domain"]), _optional_stats(found["out_of_domain"])
    return Average(tuple(found["tasks"]), *spreads, inside, outside)
