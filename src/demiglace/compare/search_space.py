"""What a hyper-parameter search looks through: a range for each option, and how many trials it has."""

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
_POINTS = 4096  # of the sequence; the combinations that none of them meets follow in order
FEW_TRIALS = 9  # fewer do not cover a learning rate and one more option


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `log`: by their magnitude; `whole`: as the option's are."""

    low: float = option("the smallest value")
    high: float = option("the largest value")
    log: bool = option("draw by magnitude", False)
    whole: bool = option("whole numbers only", False)


@dataclass(frozen=True)
class Search:
    """A search: `trials` for every method alike; ranges: option -> `Range`, or the values to choose from.

    per: what has a search of its own; a part that is not named takes the result found on the grid's first one.
    """

    trials: int
    ranges: Mapping[str, Range | tuple[Any, ...]]
    per: tuple[str, ...] = _PER


@dataclass(frozen=True)
class _Section:
    """The section `search` of a grid."""

    trials: int = option("trials of each method", at_least=1)
    ranges: dict[str, Any] = option("option -> {low, high, log} or a list of values")
    per: tuple[str, ...] = option("what has a search of its own: task, student", _PER)


def read_search(content: Mapping[str, Any], types: Mapping[str, Any]) -> Search:
    """The section `search` of a grid; types: of the options that can have a range. Raises `ConfigError`."""
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
    """Return the options of the first `count` trials, all different; fewer where the ranges have fewer combinations.

    The trials follow a scrambled Halton sequence (Owen 2017), which is spread evenly over all ranges together. With as
    many trials as combinations they are the full grid. More trials begin with the same ones.
    """
    found: list[dict[str, Any]] = []
    points = qmc.Halton(len(ranges), seed=0).random(_POINTS)
    spread = ({n: _at(r, u) for (n, r), u in zip(ranges.items(), point, strict=True)} for point in points.tolist())
    for options in itertools.chain(spread, _all(ranges)):
        if len(found) == count:
            break
        if options not in found:
            found.append(options)
    return found


def _at(within: Range | tuple[Any, ...], share: float) -> Any:
    """The value at a share, from 0 to below 1, of a range; numbers to four digits."""
    if not isinstance(within, Range):
        return within[int(share * len(within))]
    low, high = (math.log(end) if within.log else end for end in (within.low, within.high))
    if within.whole and not within.log:
        return int(low + share * (high - low + 1))
    value = low + share * (high - low)
    value = math.exp(value) if within.log else value
    return round(value) if within.whole else min(max(float(f"{value:.4g}"), within.low), within.high)


def _all(ranges: Mapping[str, Range | tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """All combinations, where they can be counted."""
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
    found = build(Range, {"whole": types[name] in (int, int | None), **value})
    if found.whole and not (found.low.is_integer() and found.high.is_integer()):
        raise ConfigError(f"{name} was given {value!r}; expected whole numbers as ends.")
    if not found.low < found.high or (found.log and found.low <= 0):
        raise ConfigError(f"{name} was given {value!r}; low must be below high, and above 0 with `log`.")
    return found
