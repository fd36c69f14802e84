"""Which charts a task's runs give, and the layer mappings that changed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from demiglace.report import format
from demiglace.report.runs.schema import Experiment, Model
from demiglace.report.svg import Chart, Curve, chart, downsample, short
from demiglace.results import metrics
from demiglace.results.run_log import Log, MappingChange

_COLOURS = 5  # of the style sheet, for distilled students and loss terms
_MOST_DRAWS = 24


@dataclass(frozen=True)
class HeatMap:
    """Which teacher layer each student layer met: rows of (label, teacher layer by student layer)."""

    title: str
    students: tuple[int, ...]
    rows: tuple[tuple[str, tuple[int | None, ...]], ...]
    deepest: int
    left_out: int


def charts_of(experiment: Experiment) -> tuple[Chart, ...]:
    """All charts of a task, those without data left out."""
    composed = [m for m in experiment.models if len(_terms(m.log)) > 1]
    simple = [m for m in experiment.models if m not in composed]
    found: list[Chart | None] = [_learning(experiment), _against(experiment, "latency"), _against(experiment, "size")]
    found += [
        *(loss_terms(format.shorten(m.name), m.log) for m in composed),
        _losses(simple, styles(experiment.models)),
    ]
    return tuple(c for c in found if c is not None)


def heat_maps(experiment: Experiment) -> tuple[HeatMap, ...]:
    """A map for each model and loss term whose layer mapping changed while it trained."""
    return tuple(found for m in experiment.models for found in heat_maps_of(format.shorten(m.name), m.log))


def heat_maps_of(name: str, log: Log) -> list[HeatMap]:
    """A map for each loss term of one run whose layer mapping changed."""
    terms = {t: [d for d in log.draws if d.term == t] for t in dict.fromkeys(d.term for d in log.draws)}
    changed = {term: draws for term, draws in terms.items() if len({d.pairs for d in draws}) > 1}
    return [_heat_map(f"{name}, {format.shorten(term)}", draws) for term, draws in changed.items()]


def _heat_map(title: str, draws: list[MappingChange]) -> HeatMap:
    students = tuple(sorted({s for d in draws for s, _ in d.pairs}))
    by_epoch = len({d.epoch for d in draws}) == len(draws)
    rows = [
        (f"epoch {d.epoch + 1}" if by_epoch else f"step {d.step}", tuple(dict(d.pairs).get(s) for s in students))
        for d in draws[:_MOST_DRAWS]
    ]
    return HeatMap(title, students, tuple(rows), max(t for d in draws for _, t in d.pairs), len(draws) - len(rows))


def merge_identical(maps: Sequence[HeatMap]) -> tuple[HeatMap, ...]:
    """Maps that show the same are one, with all their names: methods with one seed draw the same layers."""
    titles: dict[HeatMap, list[str]] = {}
    for found in maps:
        titles.setdefault(replace(found, title=""), []).append(found.title)
    return tuple(replace(found, title="; ".join(names)) for found, names in titles.items())


def styles(models: Sequence[Model]) -> dict[str, str]:
    """A class for each model: teacher and control have their own, students and others take turns."""
    found: dict[str, str] = {}
    turn = 0
    for m in models:
        own = m.role in ("teacher", "control") and m.role not in found.values()
        found[m.name] = m.role if own else f"s{turn % _COLOURS + 1}"
        turn += not own
    return found


def _learning(experiment: Experiment) -> Chart | None:
    if not experiment.metrics:
        return None
    metric, style = experiment.metrics[0], styles(experiment.models)
    curves = [Curve(m.name, style[m.name], points) for m in experiment.models if (points := _epoch_points(m, metric))]
    name = metrics.measure(metric).title
    return chart(f"{name} on validation rows", "epoch", curves, _axis(metric), whole_x=True)


def _epoch_points(model: Model, metric: str) -> tuple[tuple[float, float, str], ...]:
    scored = {epoch + 1: s[metric] for epoch, s in model.log.epochs.items() if metric in s}
    return tuple((epoch, value, f"epoch {epoch}: {format.score(value, metric)}") for epoch, value in scored.items())


def _terms(log: Log) -> list[str]:
    return [name for name in log.losses if name != "loss"]


def _losses(models: Sequence[Model], style: Mapping[str, str]) -> Chart | None:
    """The losses of models that have one term, in one chart."""
    curves = [
        Curve(m.name, style[m.name], tuple((x, y, "") for x, y in downsample(m.log.losses["loss"])))
        for m in models
        if "loss" in m.log.losses
    ]
    title = f"Training loss of {format.shorten(curves[0].label)}" if len(curves) == 1 else "Training loss"
    return chart(title, "step", curves, short, decades=True)


def loss_terms(name: str, log: Log) -> Chart | None:
    """The loss of one run and the terms that it weighs and adds up."""
    curves = [
        Curve(format.shorten(term), f"s{i % _COLOURS + 1}", tuple((x, y, "") for x, y in downsample(log.losses[term])))
        for i, term in enumerate(_terms(log))
    ]
    if "loss" in log.losses:
        whole = tuple((x, y, "") for x, y in downsample(log.losses["loss"]))
        curves.insert(0, Curve("whole loss", "whole", whole))
    return chart(f"Loss of {name}, terms before weighting", "step", curves, short, decades=True)


def _against(experiment: Experiment, cost: str) -> Chart | None:
    """Quality of every model against what it costs: latency in ms, or size in MB."""
    if not experiment.metrics:
        return None
    metric, style = experiment.metrics[0], styles(experiment.models)
    curves = []
    for m in experiment.models:
        price = _latency(m) if cost == "latency" else _megabytes(m)
        score = experiment.score(m)
        if price is not None and score is not None:
            written = format.milliseconds(price) if cost == "latency" else format.megabytes(price * 1e6)
            title = f"{format.shorten(m.name)}: {format.score(score, metric)}, {written}"
            curves.append(Curve(m.name, style[m.name], ((price, score, title),), joined=False))
    if len(curves) < 2:
        return None
    unit = "latency, ms (p50, batch 1)" if cost == "latency" else "file size, MB"
    return chart(f"{metrics.measure(metric).title} against {cost}", unit, curves, _axis(metric), from_zero=True)


def _latency(model: Model) -> float | None:
    return None if model.latency is None else model.latency.p50


def _megabytes(model: Model) -> float | None:
    return None if model.size is None else model.size / 1e6


def _axis(metric: str) -> Callable[[float], str]:
    return (lambda v: f"{100 * v:.4g}\u00a0%") if metrics.measure(metric).percent else short
