"""The contrasts that a comparison declares."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demiglace.config.options import build, option
from demiglace.errors import ConfigError, unknown


@dataclass(frozen=True)
class Contrast:
    """A declared difference, method − baseline, for every student that has both."""

    method: str  # the label of a method of the grid
    baseline: str  # the label of another one
    tasks: tuple[str, ...] | None  # task labels; None: every task
    average: bool  # True: the mean over those tasks is the contrast; False: one contrast for each of them
    margin: float | None  # of an equivalence test, in points of the metric (0.7 of 100); None: no such test


@dataclass(frozen=True)
class _Entry:
    """An entry of `primary` as the file gives it; version 0.1 named the baseline `control`."""

    method: str = option("the label of a method of the grid")
    baseline: str = option("the label of the method that it is compared with")
    tasks: tuple[str, ...] = option("each, average, or a list of task labels", ("each",))
    margin: float | None = option("margin of an equivalence test, in points of the metric", None, above=0)


def read_contrasts(
    entries: Sequence[Mapping[str, Any]], tasks: Collection[str], methods: Collection[str]
) -> tuple[Contrast, ...]:
    """Return the contrasts of the section `primary`; tasks, methods: the labels of the grid.

    Raises `ConfigError` for labels that the grid does not have and for a contrast that is given twice.
    """
    found: list[Contrast] = []
    for number, entry in enumerate(entries, start=1):
        try:
            contrast = _contrast(build(_Entry, _renamed(entry)), tasks, methods)
        except ConfigError as error:
            raise ConfigError(f"primary, entry {number}: {error}") from error
        if contrast in found:
            raise ConfigError(f"primary, entry {number}: the same contrast is given twice; remove one.")
        found.append(contrast)
    return tuple(found)


def _renamed(entry: Mapping[str, Any]) -> dict[str, Any]:
    old = "control" if "baseline" not in entry else None
    return {"baseline" if key == old else key: value for key, value in entry.items()}


def _contrast(entry: _Entry, tasks: Collection[str], methods: Collection[str]) -> Contrast:
    for label in (entry.method, entry.baseline):
        if label not in methods:
            raise ConfigError(unknown("method of this grid", label, methods))
    if entry.method == entry.baseline:
        raise ConfigError(f"method and baseline are both {entry.method!r}; a contrast needs two methods.")
    if entry.tasks in (("each",), ("average",)):
        return Contrast(entry.method, entry.baseline, None, entry.tasks == ("average",), entry.margin)
    for label in entry.tasks:
        if label not in tasks:
            raise ConfigError(f"tasks: {unknown('task of this grid', label, (*tasks, 'each', 'average'))}")
    if not entry.tasks or len(set(entry.tasks)) < len(entry.tasks):
        raise ConfigError(f"tasks was given {list(entry.tasks)!r}; expected each, average, or different task labels.")
    return Contrast(entry.method, entry.baseline, entry.tasks, False, entry.margin)
