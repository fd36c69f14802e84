"""The search space of a hyper-parameter search: a range or list of values per option, and the number of trials."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scipy.stats import qmc

from demiglace.config.aliases import canonical_values, unknown_option
from demiglace.config.options import build, option
from demiglace.errors import ConfigError, unknown

_PER = ("task", "student")
_POINTS = 4096  # of the Halton sequence; combinations that it does not reach follow in order
FEW_TRIALS = 9  # fewer do not cover a learning rate and one other option


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float = option("the smallest value")
    high: float = option("the largest value")
    log: bool = option("sample uniformly on a log scale", False)
    whole: bool = option("integers only", False)


@dataclass(frozen=True)
class Search:
    """The search of a grid, which every method has alike."""

    trials: int  # per search
    ranges: Mapping[str, Range | tuple[Any, ...]]  # option -> range, or the values to choose from
    per: tuple[str, ...] = _PER  # axes searched separately; for another axis, the search on its first value is shared


@dataclass(frozen=True)
class _Section:
    """The section `search` of a grid file."""

    trials: int = option("trials per method", at_least=1)
    ranges: dict[str, Any] = option("option -> {low, high, log} or a list of values")
    per: tuple[str, ...] = option("axes that are searched separately: task, student", _PER)


def read_search(content: Mapping[str, Any], types: Mapping[str, Any]) -> Search:
    """Parse the section `search` of a grid.

    Args:
        content: the section.
        types: option -> type, for the options that can be searched.

    Raises:
        ConfigError: the section is invalid.
    """
    try:
        section = build(_Section, content)
        for part in section.per:
            if part not in _PER:
                raise ConfigError(unknown("part of a grid in `per`", part, _PER))
        if not section.ranges:
            raise ConfigError("ranges: nothing was given; at least one range is needed.")
        ranges = canonical_values(section.ranges, types)
        return Search(section.trials, {k: _range(k, v, types) for k, v in ranges.items()}, section.per)
    except ConfigError as error:
        raise ConfigError(f"search: {error}") from error


def trial_options(ranges: Mapping[str, Range | tuple[Any, ...]], count: int) -> list[dict[str, Any]]:
    """Return the options of the first `count` trials, all different, or of all combinations if there are fewer.

    The trials follow a scrambled Halton sequence (Owen 2017), which covers all ranges jointly and evenly. With as many
    trials as combinations they are the full grid. A larger `count` extends the same sequence.
    """
    trials: list[dict[str, Any]] = []
    points = qmc.Halton(len(ranges), seed=0).random(_POINTS)
    sampled = ({n: _at(r, u) for (n, r), u in zip(ranges.items(), point, strict=True)} for point in points.tolist())
    for options in itertools.chain(sampled, _all_combinations(ranges)):
        if len(trials) == count:
            break
        if options not in trials:
            trials.append(options)
    return trials


def _at(values: Range | tuple[Any, ...], fraction: float) -> Any:
    """Return the value at a fraction in [0, 1) of a range or list; numbers are rounded to four digits."""
    if not isinstance(values, Range):
        return values[int(fraction * len(values))]
    low, high = (math.log(end) if values.log else end for end in (values.low, values.high))
    if values.whole and not values.log:
        return int(low + fraction * (high - low + 1))
    value = low + fraction * (high - low)
    value = math.exp(value) if values.log else value
    return round(value) if values.whole else min(max(float(f"{value:.4g}"), values.low), values.high)


def _all_combinations(ranges: Mapping[str, Range | tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield all combinations, or nothing if a range is continuous."""
    if not any(isinstance(r, Range) and not r.whole for r in ranges.values()):
        values = [range(int(r.low), int(r.high) + 1) if isinstance(r, Range) else r for r in ranges.values()]
        yield from (dict(zip(ranges, each, strict=True)) for each in itertools.product(*values))


def _range(name: str, value: Any, types: Mapping[str, Any]) -> Range | tuple[Any, ...]:
    if name not in types:
        raise ConfigError(unknown_option(name, types))
    if isinstance(value, list) and value:
        return tuple(value)
    if not isinstance(value, dict):
        raise ConfigError(f"{name} was given {value!r}; expected a list of values, or {{low: …, high: …}}.")
    parsed = build(Range, {"whole": types[name] in (int, int | None), **value})
    if parsed.whole and not (parsed.low.is_integer() and parsed.high.is_integer()):
        raise ConfigError(f"{name} was given {value!r}; expected integers as `low` and `high`.")
    if not parsed.low < parsed.high or (parsed.log and parsed.low <= 0):
        raise ConfigError(f"{name} was given {value!r}; low must be below high, and above 0 with `log`.")
    return parsed
