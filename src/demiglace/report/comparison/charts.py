"""The drawings of a comparison: quality against cost with its Pareto front, learning curves, loss terms, mappings."""

from collections.abc import Callable, Sequence
from typing import Literal

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.runs.charts import HeatMap, heat_maps_of, loss_terms, merge_identical
from demiglace.report.svg import Chart, Curve, chart, short
from demiglace.results import metrics
from demiglace.results.comparison import Comparison

Place = tuple[float, float]  # cost, quality


def pareto(places: Sequence[Place], sign: int = 1) -> list[Place]:
    """The places that no other beats in one thing without losing in the other; the cheapest first.

    sign: 1 where a higher quality is better, −1 where a lower one is.
    """
    front: list[Place] = []
    for cost, quality in sorted(set(places), key=lambda p: (p[0], -sign * p[1])):
        if not front or sign * quality > sign * front[-1][1]:
            front.append((cost, quality))
    return front


def cost_charts(comparison: Comparison) -> tuple[Chart, ...]:
    """Quality against latency and against size, for those that are known."""
    found = (_against(comparison, "latency"), _against(comparison, "size"))
    return tuple(c for c in found if c is not None)


def _against(comparison: Comparison, cost: Literal["latency", "size"]) -> Chart | None:
    metric, styles = comparison.metric, labels.series_styles(comparison)
    curves = []
    for key in comparison.keys:
        style, shape = styles[key]
        name = labels.name_of(key, comparison)
        price = comparison.latency_of_graph(key) if cost == "latency" else comparison.cost(key, cost)
        curves += _mark(name, style, shape, price, comparison.score(key), metric, cost)
    if len(curves) < 2:
        return None
    curves += _mark(
        "teacher", "teacher", "circle", comparison.teacher_cost(cost), comparison.teacher_score(), metric, cost
    )
    front = pareto([c.data[0][:2] for c in curves], metrics.sign(metric))
    if len(front) > 1:
        curves.insert(0, Curve("Pareto front", "front", tuple((*p, "") for p in front), shape=""))
    latency = f"latency of the {labels.exported(comparison)}, ms (p50, batch 1)"
    unit = latency if cost == "latency" else "file size of the checkpoint, MB"
    return chart(
        f"{metrics.measure(metric).title.capitalize()} against {cost}", unit, curves, _axis(metric), from_zero=True
    )


def _mark(
    name: str, style: str, shape: str, price: float | None, score: float | None, metric: str, cost: str
) -> list[Curve]:
    if price is None or score is None:
        return []
    written = format.milliseconds(price) if cost == "latency" else format.megabytes(price)
    at = price if cost == "latency" else price / 1e6
    tip = f"{name}: {format.points(score, metric)}, {written}"
    return [Curve(name, style, ((at, score, tip),), joined=False, shape=shape)]


def learning_charts(comparison: Comparison) -> tuple[Chart, ...]:
    """For each task the validation score by epoch, means over the seeds."""
    styles = labels.series_styles(comparison)
    found = []
    for task in comparison.tasks:
        cells = [c for c in comparison.cells if c.task == task]
        metric = cells[0].own.metric
        curves = []
        for cell in cells:
            scores = {epoch + 1: s[metric] for epoch, s in cell.curve.items() if metric in s}
            name, (style, shape) = labels.name_of(cell.key, comparison), styles[cell.key]
            points = tuple((e, v, f"{name}, epoch {e}: {format.points(v, metric)}") for e, v in scores.items())
            curves += [Curve(name, style, points, shape=shape)] if points else []
        title = f"{format.shorten(task, 40)}, {format.metric_title(metric)} on validation rows"
        found.append(chart(title, "epoch", curves, _axis(metric), whole_x=True))
    return tuple(c for c in found if c is not None)


def term_charts(comparison: Comparison, task: str) -> tuple[Chart, ...]:
    """The loss terms of every method of a task, from its first seed."""
    found = [
        loss_terms(labels.name_of(cell.key, comparison), cell.log)
        for cell in comparison.cells
        if cell.task == task and cell.log.losses
    ]
    return tuple(c for c in found if c is not None)


def mappings(comparison: Comparison) -> tuple[HeatMap, ...]:
    """Which layers met, for the first seed of every method that drew them anew."""
    return merge_identical(
        [
            found
            for c in comparison.cells
            for found in heat_maps_of(f"{format.shorten(c.task, 40)}, {labels.name_of(c.key, comparison)}", c.log)
        ]
    )


def _axis(metric: str) -> Callable[[float], str]:
    return (lambda v: f"{100 * v:.4g}") if metrics.in_points(metric) else short
