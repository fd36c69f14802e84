"""Seeds as dots on a line, with mean and interval; and bars where sets are compared. Places in percent of the width."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.svg import nice_ticks
from demiglace.results import metrics
from demiglace.results.comparison import Comparison
from demiglace.results.schema import Cell, SeedStats

_MARGIN = 0.5  # of the values' range; t intervals of two seeds would else squeeze the dots into one

_MOST_GROUPS = 12  # figures of one set's parts; the tables have all of them


@dataclass(frozen=True)
class Strip:
    """One row: dots (place, what they say), the mean, its interval (cut where it leaves the axis), and the text."""

    label: str
    style: str
    dots: tuple[tuple[float, str], ...]
    mean: float
    interval: tuple[float, float] | None
    cut: bool
    text: str
    tip: str


@dataclass(frozen=True)
class StripFigure:
    """Rows on one axis. reference: place of the control's mean; origin: of the bars' foot."""

    title: str
    note: str
    rows: tuple[Strip, ...]
    ticks: tuple[tuple[float, str], ...]
    reference: float | None
    bars: bool
    origin: float


@dataclass(frozen=True)
class _Entry:
    label: str
    style: str
    spread: SeedStats
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class _Place:
    """What one figure is about: a student on a set of a task."""

    task: str
    name: str
    own: bool
    student: str


def seed_figures(comparison: Comparison) -> tuple[StripFigure, ...]:
    """For each task and student its own sets: every seed of every method."""
    return tuple(_whole(comparison, place, bars=False) for place in _places(comparison) if place.own)


def domain_figures(comparison: Comparison) -> tuple[StripFigure, ...]:
    """For each task and student the out-of-domain sets, as bars from zero."""
    return tuple(_whole(comparison, place, bars=True) for place in _places(comparison) if not place.own)


def group_figures(comparison: Comparison) -> tuple[StripFigure, ...]:
    """For each set with parts, as HANS has its heuristics, a figure of each part; of very many, of the first ones."""
    found = []
    for place in _places(comparison):
        cells = _cells(comparison, place)
        groups = dict.fromkeys(g for c in cells for g in c.sets[place.name].groups)
        for group in itertools.islice(groups, _MOST_GROUPS):
            spreads = [(c, c.sets[place.name].groups.get(group)) for c in cells]
            title = f"{_title(comparison, place)}: {format.shorten(group, 60)}"
            found.append(_figure(comparison, place, _entries(comparison, spreads), title, bars=True))
    return tuple(found)


def _places(comparison: Comparison) -> list[_Place]:
    found = [_Place(c.task, s.name, s.own, c.student) for c in comparison.cells for s in c.sets.values()]
    return list(dict.fromkeys(found))


def _cells(comparison: Comparison, place: _Place) -> list[Cell]:
    own = [c for c in comparison.cells if (c.task, c.student) == (place.task, place.student)]
    return [c for c in own if place.name in c.sets]


def _whole(comparison: Comparison, place: _Place, bars: bool) -> StripFigure:
    spreads = [(c, c.sets[place.name].score) for c in _cells(comparison, place)]
    return _figure(comparison, place, _entries(comparison, spreads), _title(comparison, place), bars)


def _title(comparison: Comparison, place: _Place) -> str:
    name = labels.set_name(place.name, place.own, place.task)
    return f"{name}, {format.shorten(place.student, 40)}" if labels.has_students(comparison) else name


def _note(comparison: Comparison, place: _Place) -> str:
    """The metric; and the task, where the set's name alone does not say it."""
    metric = format.metric_title(_metric(comparison, place))
    return metric if place.own or len(comparison.tasks) == 1 else f"{metric}, of {format.shorten(place.task, 40)}"


def _metric(comparison: Comparison, place: _Place) -> str:
    return _cells(comparison, place)[0].sets[place.name].metric


def _entries(comparison: Comparison, spreads: Sequence[tuple[Cell, SeedStats | None]]) -> list[_Entry]:
    styles = labels.series_styles(comparison)
    return [
        _Entry(format.shorten(cell.method, 40), styles[cell.key][0], spread, cell.seeds)
        for cell, spread in spreads
        if spread is not None
    ]


@dataclass(frozen=True)
class _Axis:
    """From values to places in percent of the width; what lies outside is put at the edge."""

    ticks: tuple[float, ...]
    metric: str

    def at(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return 100 * min(1.0, max(0.0, (value - low) / (high - low)))

    def leaves(self, interval: tuple[float, float]) -> bool:
        return interval[0] < self.ticks[0] or interval[1] > self.ticks[-1]

    def write(self, value: float) -> str:
        return format.points(value, self.metric)


def _figure(comparison: Comparison, place: _Place, entries: Sequence[_Entry], title: str, bars: bool) -> StripFigure:
    metric = _metric(comparison, place)
    axis = _Axis(_ticks([v for e in entries for v in e.spread.values], bars), metric)
    control = next((e for e in entries if e.style == "control"), None)
    return StripFigure(
        title=title,
        note=_note(comparison, place),
        rows=tuple(_strip(e, axis, comparison.unit) for e in entries),
        ticks=tuple((axis.at(t), _tick(t, metric)) for t in axis.ticks),
        reference=None if control is None else axis.at(control.spread.mean),
        bars=bars,
        origin=axis.at(0),
    )


def _ticks(values: Sequence[float], from_zero: bool) -> tuple[float, ...]:
    low, high = min(values), max(values)
    if from_zero:
        return tuple(nice_ticks(min(0.0, low), max(0.0, high)))
    margin = _MARGIN * (high - low) / 2
    top = min(1.0, high + margin) if high <= 1 else high + margin  # of what is a share, no axis beyond the whole
    return tuple(nice_ticks(low - margin, top))


def _tick(value: float, metric: str) -> str:
    return f"{100 * value:.4g}" if metrics.in_points(metric) else f"{value:.4g}"


def _strip(entry: _Entry, axis: _Axis, unit: str) -> Strip:
    spread, interval, label = entry.spread, entry.spread.interval, entry.label
    text = format.mean_and_deviation(spread, axis.metric)
    ends = "" if interval is None else f", interval of the mean {axis.write(interval[0])} to {axis.write(interval[1])}"
    pairs = [*zip(entry.seeds, spread.values, strict=False)]  # a set added later may lack some seeds
    pairs = [] if len(pairs) == 1 else pairs  # one alone is its mean
    return Strip(
        label=label,
        style=entry.style,
        dots=tuple((axis.at(value), f"{label}, {unit} {seed}: {axis.write(value)}") for seed, value in pairs),
        mean=axis.at(spread.mean),
        interval=None if interval is None else (axis.at(interval[0]), axis.at(interval[1])),
        cut=interval is not None and axis.leaves(interval),
        text=text,
        tip=f"{label}: mean {text}{ends}",
    )
