"""How to make a comparison again: its one command, those of its steps, machines and versions."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from demiglace.config.options import Option
from demiglace.report import format
from demiglace.report.commands import command_line
from demiglace.report.runs.schema import Record
from demiglace.results.comparison import Comparison


def compare_command(comparison: Comparison) -> str:
    """The command that makes all of it, with the options that decide what it makes."""
    config = comparison.config
    words = ["demiglace", "compare", "GRID.yaml", "-o", str(comparison.home)]
    words += ["--search", str(config["search"])] if config.get("search", "none") != "none" else []
    words += ["--no-controls"] if config.get("no_controls") else []
    words += ["--data-dir", str(config["data_dir"])] if config.get("data_dir") else []
    return format.shorten(shlex.join(words), 2000)


def grid_file(comparison: Comparison) -> str | None:
    """The grid as YAML, where it is known."""
    grid = comparison.config.get("grid")
    if grid is None:
        return None
    return str(yaml.safe_dump(json.loads(json.dumps(grid)), sort_keys=False, allow_unicode=True, width=100))


def step_commands(comparison: Comparison, options: Mapping[str, Sequence[Option]]) -> list[str]:
    """A line a step that stands, in an order in which they work; a search, which has no command alone, as a comment."""
    place = {name: value for name, value in comparison.config.items() if name == "data_dir"}  # decides no result
    found = [_command(_record(path, m, place), options) for path, m in comparison.steps.items()]
    searched = [f"# {path}: {_choice(best)}" for path, best in comparison.searches.items()]
    return [format.shorten(" ".join(line.splitlines()), 2000) for line in (*searched, *filter(None, found))]


def _record(path: Path, manifest: Mapping[str, Any], place: Mapping[str, Any]) -> Record:
    config = {**place, **(manifest.get("config") or {})}
    return Record(path, str(manifest.get("stage")), {**manifest, "config": config})


def _command(record: Record, options: Mapping[str, Sequence[Option]]) -> str:
    return command_line(record, options[record.stage]) if record.stage in options else ""


def _choice(best: Mapping[str, Any]) -> str:
    chosen = ", ".join(f"{name} {value}" for name, value in (best.get("options") or {}).items())
    return f"the best of {best.get('trials')} trials: {chosen}"


def facts(manifests: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Machines and versions, each once, however many runs share it."""
    machines = [m.get("machine") or {} for m in manifests]
    written = [", ".join(f"{k.replace('_', ' ')} {v}" for k, v in machine.items()) for machine in machines]
    versions = [", ".join(f"{k} {v}" for k, v in (m.get("versions") or {}).items()) for m in manifests]
    found = [("Machine", text) for text in dict.fromkeys(written) if text]
    found += [("Versions", text) for text in dict.fromkeys(versions) if text]
    return [(what, format.shorten(text, 600)) for what, text in found]
