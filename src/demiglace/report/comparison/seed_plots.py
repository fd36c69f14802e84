"""Seeds as dots on a line, with mean and interval, and bars for other sets. Positions are in percent of the width."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.svg import nice_ticks
from demiglace.results.comparison import Comparison
from demiglace.results.metric_table import metric_of
from demiglace.results.schema import Cell, SeedStats

_MARGIN = 0.5  # of the values' range; t intervals of two seeds would else squeeze the dots into one
_LEAST_POINTS = 0.04  # least range of an axis of points, so that seeds that hardly differ do not fill it
_MOST_GROUPS = 12  # figures of one set's parts; the tables have all of them


@dataclass(frozen=True)
class Strip:
    """One row of a figure."""

    label: str
    style: str
    dots: tuple[tuple[float, str], ...]  # position and tip of each seed
    mean: float
    interval: tuple[float, float] | None
    cut: bool  # whether the interval leaves the axis
    text: str
    tip: str


@dataclass(frozen=True)
class StripFigure:
    """Rows on one axis."""

    title: str
    note: str
    rows: tuple[Strip, ...]
    ticks: tuple[tuple[float, str], ...]
    reference: float | None  # position of the baseline's mean
    band: tuple[float, float] | None  # of the interval of the baseline's mean
    bars: bool
    origin: float  # position of zero


@dataclass(frozen=True)
class _Entry:
    label: str
    style: str
    spread: SeedStats
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class _Subject:
    """The subject of a figure: a student on a set of a task."""

    task: str
    name: str
    own: bool
    student: str


def seed_figures(comparison: Comparison) -> tuple[StripFigure, ...]:
    """Return for each task and student its sets: every seed of every method."""
    return tuple(_whole(comparison, subject, bars=False) for subject in _subjects(comparison) if subject.own)


def domain_figures(comparison: Comparison) -> tuple[StripFigure, ...]:
    """Return for each task and student the out-of-domain sets, as bars from zero."""
    return tuple(_whole(comparison, subject, bars=True) for subject in _subjects(comparison) if not subject.own)


def group_figures(comparison: Comparison) -> tuple[StripFigure, ...]:
    """Return a figure for each part of a set, such as the heuristics of HANS; of many parts, for the first ones."""
    found = []
    for subject in _subjects(comparison):
        cells = _cells(comparison, subject)
        groups = dict.fromkeys(g for c in cells for g in c.sets[subject.name].groups)
        for group in itertools.islice(groups, _MOST_GROUPS):
            spreads = [(c, c.sets[subject.name].groups.get(group)) for c in cells]
            title = f"{_title(comparison, subject)}: {format.shorten(group, 60)}"
            found.append(_figure(comparison, subject, _entries(comparison, spreads), title, bars=True))
    return tuple(found)


def _subjects(comparison: Comparison) -> list[_Subject]:
    found = [_Subject(c.task, s.name, s.own, c.student) for c in comparison.cells for s in c.sets.values()]
    return list(dict.fromkeys(found))


def _cells(comparison: Comparison, subject: _Subject) -> list[Cell]:
    own = [c for c in comparison.cells if (c.task, c.student) == (subject.task, subject.student)]
    return [c for c in own if subject.name in c.sets]


def _whole(comparison: Comparison, subject: _Subject, bars: bool) -> StripFigure:
    spreads = [(c, c.sets[subject.name].score) for c in _cells(comparison, subject)]
    return _figure(comparison, subject, _entries(comparison, spreads), _title(comparison, subject), bars)


def _title(comparison: Comparison, subject: _Subject) -> str:
    name = labels.set_name(subject.name, subject.own, subject.task)
    return f"{name}, {format.shorten(subject.student, 40)}" if labels.has_students(comparison) else name


def _note(comparison: Comparison, subject: _Subject) -> str:
    """Return the metric, and the task where the set's name does not imply it."""
    metric = metric_of(_metric(comparison, subject)).phrase
    return metric if subject.own or len(comparison.tasks) == 1 else f"{metric}, of {format.shorten(subject.task, 40)}"


def _metric(comparison: Comparison, subject: _Subject) -> str:
    return _cells(comparison, subject)[0].sets[subject.name].metric


def _entries(comparison: Comparison, spreads: Sequence[tuple[Cell, SeedStats | None]]) -> list[_Entry]:
    styles = labels.series_styles(comparison)
    return [
        _Entry(format.shorten(cell.method, 40), styles[cell.key][0], spread, cell.seeds)
        for cell, spread in spreads
        if spread is not None
    ]


@dataclass(frozen=True)
class _Axis:
    """An axis from values to percent of the width; values outside are put at the edge."""

    ticks: tuple[float, ...]
    metric: str

    def at(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return 100 * min(1.0, max(0.0, (value - low) / (high - low)))

    def leaves(self, interval: tuple[float, float]) -> bool:
        return interval[0] < self.ticks[0] or interval[1] > self.ticks[-1]

    def write(self, value: float) -> str:
        return format.score(value, self.metric)


def _figure(
    comparison: Comparison, subject: _Subject, entries: Sequence[_Entry], title: str, bars: bool
) -> StripFigure:
    metric = _metric(comparison, subject)
    axis = _Axis(_ticks([v for e in entries for v in e.spread.values], metric, bars), metric)
    baseline = next((e for e in entries if e.style == "baseline"), None)
    band = None if baseline is None else baseline.spread.interval
    return StripFigure(
        title=title,
        note=_note(comparison, subject),
        rows=tuple(_strip(e, axis, comparison.unit) for e in entries),
        ticks=tuple((axis.at(t), format.score_tick(t, metric)) for t in axis.ticks),
        reference=None if baseline is None else axis.at(baseline.spread.mean),
        band=None if band is None else (axis.at(band[0]), axis.at(band[1])),
        bars=bars,
        origin=axis.at(0),
    )


def _ticks(values: Sequence[float], metric: str, from_zero: bool) -> tuple[float, ...]:
    low, high = min(values), max(values)
    if from_zero:
        return tuple(nice_ticks(min(0.0, low), max(0.0, high)))
    least = _LEAST_POINTS if metric_of(metric).unit == "points" else 0.0
    margin = max(_MARGIN * (high - low), least - (high - low)) / 2
    top = min(1.0, high + margin) if high <= 1 else high + margin  # the axis of a share ends at 1
    return tuple(nice_ticks(low - margin, top))


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
