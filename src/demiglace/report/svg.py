"""Geometry of a small SVG: turn curves into the points and ticks that `charts.html.j2` draws.

Everything is drawn for a width of 360 units, so that text stays readable on a phone; colours are classes that the
style sheet sets for light and dark.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 54, 340, 10, 184  # the plotting area
_MOST_POINTS = 160
_STEEP = 20.0


@dataclass(frozen=True)
class Point:
    """A point of a chart in SVG units, and its tip."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Series:
    """A line or a set of marks."""

    label: str
    style: str  # its class: teacher, baseline, total, front, or s1 to s5
    points: tuple[Point, ...]
    joined: bool = True
    shape: str = "circle"  # of its marks: square, diamond, triangle, down (a triangle on its tip), cross, "" for none
    small: bool = False  # small marks, which the legend leaves to the note

    @property
    def radius(self) -> float:
        """Return the radius of its marks; a baseline is a wide ring, so that no other mark hides it."""
        if self.joined:
            return 3
        return 9 if self.style == "baseline" and not self.small else 4 if self.small else 6

    @property
    def path(self) -> str:
        """Return the points as an SVG polyline takes them."""
        return " ".join(f"{p.x:.1f},{p.y:.1f}" for p in self.points)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A chart in SVG units."""

    title: str
    summary: str  # for screen readers
    x_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
    bands: tuple[tuple[float, float], ...] = ()  # top and bottom of each noise band
    note: str = ""  # below the legend


@dataclass(frozen=True)
class Curve:
    """Data of one series before scaling."""

    label: str
    style: str
    data: tuple[tuple[float, float, str], ...]  # x, y, tip
    joined: bool = True
    shape: str = "circle"
    small: bool = False


def chart(
    title: str,
    x_title: str,
    curves: Sequence[Curve],
    write_y: Callable[[float], str],
    *,
    integer_x: bool = False,
    from_zero: bool = False,
    decades: bool = False,
    least_span: float = 0.0,
    bands: Sequence[tuple[float, float]] = (),
    note: str = "",
) -> Chart | None:
    """Scale curves to one pair of axes; None where there is no curve.

    integer_x: ticks of x are integers. from_zero: x begins at 0. decades: y is logarithmic where the values span more
    than a factor of 20, as losses do. least_span: the least range of y, so that noise does not fill the axis. bands:
    ranges of y to shade. note: a sentence below the legend.
    """
    if not curves:
        return None
    xs, ys = [x for c in curves for x, _, _ in c.data], [y for c in curves for _, y, _ in c.data]
    ys = [*ys, *(end for band in bands for end in band)]
    missing = max(0.0, least_span - (max(ys) - min(ys))) / 2
    ys = [*ys, min(ys) - missing, max(ys) + missing]
    x_ticks = nice_ticks(0 if from_zero else min(xs), max(xs), integers=integer_x)
    logarithmic = decades and min(ys) > 0 and max(ys) > _STEEP * min(ys)
    y_ticks = powers_of_ten(min(ys), max(ys)) if logarithmic else nice_ticks(min(ys), max(ys))
    x_at, y_at = _scale(x_ticks, LEFT, RIGHT), _scale(y_ticks, BOTTOM, TOP, logarithmic)
    return Chart(
        f"{title} (log scale)" if logarithmic else title,
        _summary(curves, write_y),
        x_title,
        tuple(Tick(x_at(x), short(x)) for x in x_ticks),
        tuple(Tick(y_at(y), write_y(y)) for y in y_ticks),
        tuple(
            Series(
                c.label, c.style, tuple(Point(x_at(x), y_at(y), t) for x, y, t in c.data), c.joined, c.shape, c.small
            )
            for c in curves
        ),
        tuple((y_at(high), y_at(low)) for low, high in bands),
        note,
    )


def _scale(ticks: Sequence[float], start: float, end: float, logarithmic: bool = False) -> Callable[[float], float]:
    position = math.log10 if logarithmic else float
    low, high = position(ticks[0]), position(ticks[-1])
    return lambda value: start + (end - start) * (position(value) - low) / (high - low)


def _summary(curves: Sequence[Curve], write_y: Callable[[float], str]) -> str:
    """Return one clause for each series: where it starts and ends, or the text of its mark."""
    clauses = []
    for c in curves:
        first, last = c.data[0], c.data[-1]
        text = f"{c.label} from {write_y(first[1])} to {write_y(last[1])}" if c.joined else last[2]
        clauses += [text] if c.shape else []
    return "; ".join(clauses) + "."


def nice_ticks(low: float, high: float, most: int = 5, integers: bool = False) -> list[float]:
    """Return at most `most` round numbers (1, 2 or 5 times a power of ten) that cover low to high."""
    size = max(abs(low), abs(high))
    span = next(s for s in (high - low, size, 1.0) if s > max(1e-12, 1e-9 * size))  # all but equal: any range around
    power = 10.0 ** math.floor(math.log10(span / most))
    steps = (m * power * scale for scale in (1, 10, 100) for m in (1, 2, 5))
    fits = (s for s in steps if math.ceil(high / s) - math.floor(low / s) < most and (not integers or s >= 1))
    step = next(fits)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def powers_of_ten(low: float, high: float, most: int = 6) -> list[float]:
    """Return powers of ten that cover low to high (both positive), every second or third one where they are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = math.ceil((last - first) / (most - 1)) or 1
    return [10.0**i for i in range(first, max(last, first + 1) + step, step)]


def downsample(data: Sequence[tuple[int, float]], most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """Return at most `most` points: means over equal groups of neighbours."""
    size = math.ceil(len(data) / most) or 1
    runs = [data[i : i + size] for i in range(0, len(data), size)]
    return [(sum(x for x, _ in r) / len(r), sum(y for _, y in r) / len(r)) for r in runs]


def short(value: float) -> str:
    """Return a number for an axis, with four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
