"""Charts of a comparison: quality against cost with its Pareto front, learning curves, loss terms, mappings."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.runs.charts import HeatMap, heat_maps_of, loss_terms, merge_identical
from demiglace.report.svg import Chart, Curve, chart
from demiglace.results.comparison import Comparison
from demiglace.results.metric_table import metric_of
from demiglace.results.schema import Key

Option = tuple[float, float]  # cost, quality
_LEAST_SPAN = 4  # of an axis, in half-widths of the noise band
_LEAST_POINTS = 0.05  # least range of a learning curve's axis


def pareto(options: Sequence[Option], sign: int = 1) -> list[Option]:
    """Return the options that no other one beats in cost or quality without losing in the other; the cheapest first.

    sign: 1 where a higher quality is better, −1 where a lower one is.
    """
    front: list[Option] = []
    for cost, quality in sorted(set(options), key=lambda p: (p[0], -sign * p[1])):
        if not front or sign * quality > sign * front[-1][1]:
            front.append((cost, quality))
    return front


def cost_charts(comparison: Comparison) -> tuple[Chart, ...]:
    """Return quality against latency and against file size, where they are known."""
    found = (_against(comparison, "latency"), _against(comparison, "size"))
    return tuple(c for c in found if c is not None)


def _against(comparison: Comparison, cost: Literal["latency", "size"]) -> Chart | None:
    """Return one chart: the students, their exports in lower precision, the teacher and the Pareto front."""
    metric, styles = comparison.metric, labels.series_styles(comparison)
    keys = sorted(comparison.keys, key=lambda key: comparison.baseline_of(key) == "none")  # drawn last, on top
    students = []
    for key in keys:
        price = comparison.latency_of_graph(key) if cost == "latency" else comparison.cost(key, cost)
        name = labels.name_of(key, comparison)
        students += _mark(name, *styles[key], price, comparison.score(key), metric, cost)
    if len(students) < 2:
        return None
    exports = [mark for key in keys for mark in _exports(comparison, key, *styles[key], cost)]
    teacher = _mark(
        "teacher", "teacher", "circle", comparison.teacher_cost(cost), comparison.teacher_score(), metric, cost
    )
    front = pareto([c.data[0][:2] for c in (*students, *exports, *teacher)], comparison.sign)
    line = [Curve("Pareto front", "front", tuple((*p, "") for p in front), shape="")] if len(front) > 1 else []
    artefact = f"latency of the {labels.exported(comparison)}, ms (p50, batch 1)"
    first = f"the export of the first {comparison.unit}"
    small = (
        f" Small marks: exports in lower precision, at the mean plus what {first} gains or loses." if exports else ""
    )
    noise = comparison.noise()
    return chart(
        f"{metric_of(metric).title} against {cost}",
        artefact if cost == "latency" else "file size of the checkpoint, MB",
        [*line, *teacher, *exports, *students],
        _axis(metric),
        from_zero=True,
        least_span=_LEAST_SPAN * (noise or 0.0),
        bands=_noise_bands(comparison, noise),
        note=(_noise_note(comparison, noise) + small).strip(),
    )


def _noise_bands(comparison: Comparison, noise: float | None) -> list[tuple[float, float]]:
    """Return the range around each student without a teacher in which differences are noise."""
    if noise is None:
        return []
    scores = [comparison.score(key) for key in comparison.keys if comparison.baseline_of(key) == "none"]
    return [(score - noise, score + noise) for score in scores if score is not None]


def _noise_note(comparison: Comparison, noise: float | None) -> str:
    if not _noise_bands(comparison, noise) or noise is None:
        return ""
    return f"Grey: ±{format.size_in_words(noise, comparison.metric)} around no teacher, where differences are noise."


def _mark(
    name: str, style: str, shape: str, price: float | None, score: float | None, metric: str, cost: str
) -> list[Curve]:
    if price is None or score is None:
        return []
    written = format.milliseconds(price) if cost == "latency" else format.size(price)
    at = price if cost == "latency" else price / 1e6
    tip = f"{name}: {format.score(score, metric)}, {written}"
    return [Curve(name, style, ((at, score, tip),), joined=False, shape=shape)]


def _exports(comparison: Comparison, key: Key, style: str, shape: str, cost: Literal["latency", "size"]) -> list[Curve]:
    """Return a small mark for each export in lower precision whose own score was measured."""
    found = [comparison.export(key, p) for p in comparison.precisions() if p != "fp32"]
    name = labels.name_of(key, comparison)
    marks = [
        _mark(
            f"{name}, {a.precision}",
            style,
            shape,
            a.latency if cost == "latency" else a.size,
            a.score,
            comparison.metric,
            cost,
        )
        for a in found
    ]
    return [replace(curve, small=True) for curves in marks for curve in curves]


def learning_charts(comparison: Comparison) -> tuple[Chart, ...]:
    """Return for each task the validation score by epoch, means over the seeds."""
    styles = labels.series_styles(comparison)
    found = []
    for task in comparison.tasks:
        cells = [c for c in comparison.cells if c.task == task]
        metric = cells[0].own.metric
        curves = []
        for cell in cells:
            scores = {epoch + 1: s[metric] for epoch, s in cell.curve.items() if metric in s}
            name, (style, shape) = labels.name_of(cell.key, comparison), styles[cell.key]
            points = tuple((e, v, f"{name}, epoch {e}: {format.score(v, metric)}") for e, v in scores.items())
            curves += [Curve(name, style, points, shape=shape)] if points else []
        title = f"{format.shorten(task, 40)}, {metric_of(metric).phrase} on validation rows"
        span = _LEAST_POINTS if metric_of(metric).unit == "points" else 0.0
        found.append(chart(title, "epoch", curves, _axis(metric), integer_x=True, least_span=span))
    return tuple(c for c in found if c is not None)


def term_charts(comparison: Comparison, task: str) -> tuple[Chart, ...]:
    """Return the loss terms of every method of a task, from its first seed."""
    found = [
        loss_terms(labels.name_of(cell.key, comparison), cell.log)
        for cell in comparison.cells
        if cell.task == task and cell.log.losses
    ]
    return tuple(c for c in found if c is not None)


def mappings(comparison: Comparison) -> tuple[HeatMap, ...]:
    """Return the layer mappings of the first seed of every method that drew them repeatedly."""
    return merge_identical(
        [
            found
            for c in comparison.cells
            for found in heat_maps_of(f"{format.shorten(c.task, 40)}, {labels.name_of(c.key, comparison)}", c.log)
        ]
    )


def _axis(metric: str) -> Callable[[float], str]:
    return lambda value: format.score_tick(value, metric)
