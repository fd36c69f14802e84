"""Read RUN/log.jsonl, which has one JSON object on each line."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demiglace.results.metric_table import finite

Scores = Mapping[str, float]  # metric -> value


@dataclass(frozen=True)
class MappingChange:
    """A layer mapping that applies from `step` of `epoch` on."""

    epoch: int
    step: int
    term: str
    pairs: tuple[tuple[int, int], ...]  # (student layer, teacher layer)


@dataclass(frozen=True)
class Log:
    """The log of a training run."""

    epochs: Mapping[int, Scores] = field(default_factory=dict)  # epoch from 0 -> validation scores
    losses: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)  # term or "loss" -> (step, value)
    draws: tuple[MappingChange, ...] = ()  # layer mappings in order
    unreadable: int = 0  # damaged lines


def read_log(file: Path) -> Log:
    """Return the log of a training run; an empty one where there is no file.

    A run that was interrupted and resumed may have written a step twice: the later line counts. A damaged line is
    skipped and counted.
    """
    if not file.is_file():
        return Log()
    entries: list[Mapping[str, Any]] = []
    unreadable = 0
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        entry = _parse(line)
        if entry is not None:
            entries.append(entry)
        elif line.strip():
            unreadable += 1
    return Log(_epochs(entries), _losses(entries), _draws(entries), unreadable)


def read_epochs(file: Path) -> Mapping[int, Scores]:
    """Return the validation scores by epoch, without parsing the many lines about steps."""
    if not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return _epochs([e for line in lines if '"kind": "step"' not in line and (e := _parse(line)) is not None])


def _parse(line: str) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _of_kind(entries: list[Mapping[str, Any]], kind: str, key: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for entry in entries:
        number = finite(entry.get(key))
        if entry.get("kind") == kind and number is not None:
            yield int(number), entry


def _epochs(entries: list[Mapping[str, Any]]) -> dict[int, Scores]:
    found = {epoch: numbers(entry.get("metrics")) for epoch, entry in _of_kind(entries, "epoch", "epoch")}
    return dict(sorted(found.items()))


def _losses(entries: list[Mapping[str, Any]]) -> dict[str, tuple[tuple[int, float], ...]]:
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for step, entry in _of_kind(entries, "step", "step"):
        for name, value in numbers({"loss": entry.get("loss")} | dict(entry.get("terms") or {})).items():
            curves[name][step] = value
    return {name: tuple(sorted(curve.items())) for name, curve in curves.items()}


def _draws(entries: list[Mapping[str, Any]]) -> tuple[MappingChange, ...]:
    found: dict[tuple[str, int, int], MappingChange] = {}
    for step, entry in _of_kind(entries, "mapping", "step"):
        epoch, term = int(finite(entry.get("epoch")) or 0), str(entry.get("term", ""))
        pairs = tuple((int(student), int(teacher)) for student, teacher in entry.get("pairs") or ())
        found[term, epoch, step] = MappingChange(epoch, step, term, pairs)
    return tuple(found[key] for key in sorted(found))


def numbers(values: Any) -> dict[str, float]:
    """Return the finite numbers of a mapping, by name."""
    if not isinstance(values, Mapping):
        return {}
    found = {str(name): finite(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}
