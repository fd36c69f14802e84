"""Charts of a task's runs, and the layer mappings that changed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from demiglace.report import format
from demiglace.report.runs.schema import Artefact, Experiment, Model
from demiglace.report.runs.verdict import noise_of_experiment
from demiglace.report.svg import Chart, Curve, chart, downsample, short
from demiglace.results.metric_table import metric_of
from demiglace.results.run_log import Log, MappingChange

_COLOURS = 5  # of the style sheet, for distilled students and loss terms
_MOST_DRAWS = 24
_LEAST_SPAN = 4  # of an axis, in half-widths of the noise band
_LEAST_POINTS = 0.05  # least range of a learning curve's axis


@dataclass(frozen=True)
class HeatMap:
    """The teacher layer of each student layer over time."""

    title: str
    students: tuple[int, ...]
    rows: tuple[tuple[str, tuple[int | None, ...]], ...]  # (label, teacher layer by student layer)
    deepest: int
    left_out: int


def charts_of(experiment: Experiment, artefacts: Sequence[Artefact] = ()) -> tuple[Chart, ...]:
    """Return all charts of a task that have data."""
    composed = [m for m in experiment.models if len(_terms(m.log)) > 1]
    simple = [m for m in experiment.models if m not in composed]
    found: list[Chart | None] = [_learning(experiment)]
    found += [_against(experiment, artefacts, "latency"), _against(experiment, artefacts, "size")]
    found += [
        *(loss_terms(format.shorten(m.name), m.log) for m in composed),
        _losses(simple, styles(experiment.models)),
    ]
    return tuple(c for c in found if c is not None)


def heat_maps(experiment: Experiment) -> tuple[HeatMap, ...]:
    """Return a map for each model and loss term whose layer mapping changed during training."""
    return tuple(found for m in experiment.models for found in heat_maps_of(format.shorten(m.name), m.log))


def heat_maps_of(name: str, log: Log) -> list[HeatMap]:
    """Return a map for each loss term of one run whose layer mapping changed."""
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
    """Return equal maps as one, with all their names: methods with the same seed draw the same layers."""
    titles: dict[HeatMap, list[str]] = {}
    for found in maps:
        titles.setdefault(replace(found, title=""), []).append(found.title)
    return tuple(replace(found, title="; ".join(names)) for found, names in titles.items())


def styles(models: Sequence[Model]) -> dict[str, str]:
    """Return a class for each model: one for the teacher, one for the baseline, five for all others in turn."""
    found: dict[str, str] = {}
    turn = 0
    for m in models:
        own = m.role in ("teacher", "baseline") and m.role not in found.values()
        found[m.name] = m.role if own else f"s{turn % _COLOURS + 1}"
        turn += not own
    return found


def _learning(experiment: Experiment) -> Chart | None:
    if not experiment.metrics:
        return None
    metric, style = experiment.metrics[0], styles(experiment.models)
    curves = [Curve(m.name, style[m.name], points) for m in experiment.models if (points := _epoch_points(m, metric))]
    name = metric_of(metric).title
    return chart(
        f"{name} on validation rows", "epoch", curves, _axis(metric), integer_x=True, least_span=_least_points(metric)
    )


def _epoch_points(model: Model, metric: str) -> tuple[tuple[float, float, str], ...]:
    scored = {epoch + 1: s[metric] for epoch, s in model.log.epochs.items() if metric in s}
    return tuple((epoch, value, f"epoch {epoch}: {format.score(value, metric)}") for epoch, value in scored.items())


def _terms(log: Log) -> list[str]:
    return [name for name in log.losses if name != "loss"]


def _losses(models: Sequence[Model], style: Mapping[str, str]) -> Chart | None:
    """Return the losses of models with one term, in one chart."""
    curves = [
        Curve(m.name, style[m.name], tuple((x, y, "") for x, y in downsample(m.log.losses["loss"])))
        for m in models
        if "loss" in m.log.losses
    ]
    title = f"Training loss of {format.shorten(curves[0].label)}" if len(curves) == 1 else "Training loss"
    return chart(title, "step", curves, short, decades=True)


def loss_terms(name: str, log: Log) -> Chart | None:
    """Return the loss of one run and the terms of its weighted sum."""
    curves = [
        Curve(format.shorten(term), f"s{i % _COLOURS + 1}", tuple((x, y, "") for x, y in downsample(log.losses[term])))
        for i, term in enumerate(_terms(log))
    ]
    if "loss" in log.losses:
        total = tuple((x, y, "") for x, y in downsample(log.losses["loss"]))
        curves.insert(0, Curve("total loss", "total", total))
    return chart(f"Loss of {name}, terms before weighting", "step", curves, short, decades=True)


def _against(experiment: Experiment, artefacts: Sequence[Artefact], cost: Literal["latency", "size"]) -> Chart | None:
    """Return the quality of every model and exported file against latency in ms, or size in MB."""
    if not experiment.metrics:
        return None
    metric, style = experiment.metrics[0], styles(experiment.models)
    marks = []
    for m in sorted(experiment.models, key=lambda m: m.role == "baseline"):  # drawn last, on top
        price = _latency(m) if cost == "latency" else m.size
        marks += _mark(format.shorten(m.name), style[m.name], price, experiment.score(m), metric, cost)
    if len(marks) < 2:
        return None
    exports = _exports(experiment, artefacts, style, cost)
    noise, reference = noise_of_experiment(experiment), _reference(experiment)
    bands = [] if noise is None or reference is None else [(reference - noise, reference + noise)]
    note = f"Grey: ±{format.size_in_words(noise or 0, metric)}, where differences are noise." if bands else ""
    small = " Small marks: exported files, with their own scores." if exports else ""
    return chart(
        f"{metric_of(metric).title} against {cost}",
        "latency, ms (p50, batch 1)" if cost == "latency" else "file size, MB",
        [*exports, *marks],
        _axis(metric),
        from_zero=True,
        least_span=_LEAST_SPAN * (noise or 0.0),
        bands=bands,
        note=(note + small).strip(),
    )


def _mark(
    name: str, style: str, price: float | None, score: float | None, metric: str, cost: Literal["latency", "size"]
) -> list[Curve]:
    """Return the mark of a model or file; price: in ms, or in bytes."""
    if price is None or score is None:
        return []
    at, written = (price, format.milliseconds(price)) if cost == "latency" else (price / 1e6, format.size(price))
    tip = f"{name}: {format.score(score, metric)}, {written}"
    return [Curve(name, style, ((at, score, tip),), joined=False)]


def _exports(
    experiment: Experiment, artefacts: Sequence[Artefact], style: dict[str, str], cost: Literal["latency", "size"]
) -> list[Curve]:
    """Return a small mark for each exported file whose own score was measured."""
    marks = []
    for a in artefacts:
        if a.model in style and a.scores:
            one_row = a.latency.get(1)
            price = (None if one_row is None else one_row.p50) if cost == "latency" else a.size
            score, metric = a.scores.get(experiment.metrics[0]), experiment.metrics[0]
            name = f"{a.name} · {format.shorten(a.model)}"
            marks += [replace(c, small=True) for c in _mark(name, style[a.model], price, score, metric, cost)]
    return marks


def _reference(experiment: Experiment) -> float | None:
    """Return the score around which the noise band is drawn: of a baseline, else of a student."""
    for role in ("baseline", "distilled"):
        found = [s for m in experiment.models if m.role == role and (s := experiment.score(m)) is not None]
        if found:
            return found[0]
    return None


def _least_points(metric: str) -> float:
    return _LEAST_POINTS if metric_of(metric).unit == "points" else 0.0


def _latency(model: Model) -> float | None:
    return None if model.latency is None else model.latency.p50


def _axis(metric: str) -> Callable[[float], str]:
    return lambda value: format.score_tick(value, metric)
