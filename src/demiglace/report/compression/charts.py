"""Charts of a compression: quality of every exported file against latency and against size, with the Pareto front."""

from collections.abc import Mapping
from typing import Any, Literal

from demiglace.report import format
from demiglace.report.comparison.charts import pareto
from demiglace.report.svg import Chart, Curve, chart
from demiglace.results.metric_table import metric_of

_SHAPES = {"fp32": "circle", "int8": "square", "fp16": "triangle", "int4": "diamond"}
_COLOURS = 5  # of the style sheet
_LEAST_POINTS = 0.02  # least range of the axis


def quality_charts(manifest: Mapping[str, Any]) -> tuple[Chart, ...]:
    """Return quality on the validation rows against latency and against size."""
    found = (_against(manifest, "latency"), _against(manifest, "size"))
    return tuple(c for c in found if c is not None)


def styles(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return a class of the style sheet for each model."""
    found: dict[str, str] = {}
    for file in manifest["model_files"]:
        if file["model"] not in found:
            students = sum(style.startswith("s") for style in found.values())
            role = file["role"]
            found[file["model"]] = role if role == "teacher" else f"s{students % _COLOURS + 1}"
    return found


def _against(manifest: Mapping[str, Any], cost: Literal["latency", "size"]) -> Chart | None:
    metric, style = manifest["metric"], styles(manifest)
    marks, points = [], []
    named: set[str] = set()
    for file in manifest["model_files"]:
        price = file["cost"]["latency_ms"] if cost == "latency" else file["cost"]["bytes"] / 1e6
        quality = file["validation"][metric]
        points.append((price, quality))
        written = format.milliseconds(price) if cost == "latency" else format.size(file["cost"]["bytes"])
        tip = f"{file['model']}, {file['precision']}: {format.score(quality, metric)}, {written}"
        shape = _SHAPES.get(file["precision"], "cross")
        chosen = manifest["chosen"] is not None and file["file"] == manifest["chosen"]["file"]
        first = file["model"] not in named
        named.add(file["model"])
        label = file["model"]
        marks.append(Curve(label, style[label], ((price, quality, tip),), joined=False, shape=shape, small=not first))
        if chosen:
            marks.insert(0, Curve("to ship", "baseline", ((price, quality, tip),), joined=False))
    if len(points) < 2:
        return None
    front = pareto(points, metric_of(metric).sign)
    lines = [Curve("Pareto front", "front", tuple((*p, "") for p in front), shape="")] if len(front) > 1 else []
    limit = manifest["limits"]["max_latency_ms" if cost == "latency" else "max_mb"]
    if limit is not None:
        low, high = min(q for _, q in points), max(q for _, q in points)
        lines.append(Curve("limit", "total", ((limit, low, ""), (limit, high, "")), shape=""))
    used = dict.fromkeys(file["precision"] for file in manifest["model_files"])
    shapes = ", ".join(f"{p} {_SHAPES.get(p, 'cross')}" for p in used)
    return chart(
        f"{metric_of(metric).title} against {cost}, validation rows",
        "latency, ms (median of one row)" if cost == "latency" else "size of the file, MB",
        [*lines, *marks],
        lambda value: format.score_tick(value, metric),
        from_zero=True,
        least_span=_LEAST_POINTS if metric_of(metric).unit == "points" else 0.0,
        note=f"Marks: {shapes}.",
    )
