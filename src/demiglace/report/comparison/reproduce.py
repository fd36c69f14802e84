"""How to reproduce a comparison: its command, the commands of its runs, machines and versions."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from demiglace.config.aliases import renamed
from demiglace.config.options import Option
from demiglace.report import format
from demiglace.report.commands import PortablePaths, command_line
from demiglace.report.runs.schema import Record
from demiglace.results.comparison import Comparison


def compare_command(comparison: Comparison) -> str:
    """Return the command of the comparison, with the options that decide its results."""
    config, portable = renamed(comparison.config), PortablePaths.around([comparison.root])
    words = ["demiglace", "compare", "GRID.yaml", "-o", portable(str(comparison.root))]
    words += ["--search", str(config["search"])] if config.get("search", "none") != "none" else []
    words += ["--no-baselines"] if config.get("no_baselines") else []
    words += ["--data-dir", portable(str(config["data_dir"]))] if config.get("data_dir") else []
    return format.shorten(shlex.join(words), 2000)


def grid_file(comparison: Comparison) -> str | None:
    """Return the grid as YAML, where it is known."""
    grid = comparison.config.get("grid")
    if grid is None:
        return None
    portable = PortablePaths.around([comparison.root]).everywhere(json.loads(json.dumps(grid)))
    return str(yaml.safe_dump(portable, sort_keys=False, allow_unicode=True, width=100))


def step_commands(comparison: Comparison, options: Mapping[str, Sequence[Option]]) -> list[str]:
    """Return one line for each finished run, in order of execution; a search, which has no command, as a comment."""
    portable = PortablePaths.around([comparison.root])
    location = {name: value for name, value in comparison.config.items() if name == "data_dir"}  # decides no result
    found = [_command(_record(path, m, location), options, portable) for path, m in comparison.manifests.items()]
    searched = [f"# {portable(str(path))}: {_choice(best)}" for path, best in comparison.searches.items()]
    return [format.shorten(" ".join(line.splitlines()), 2000) for line in (*searched, *filter(None, found))]


def _record(path: Path, manifest: Mapping[str, Any], location: Mapping[str, Any]) -> Record:
    config = {**location, **(manifest.get("config") or {})}
    return Record(path, str(manifest.get("stage")), {**manifest, "config": config})


def _command(record: Record, options: Mapping[str, Sequence[Option]], portable: PortablePaths) -> str:
    return command_line(record, options[record.stage], portable) if record.stage in options else ""


def _choice(best: Mapping[str, Any]) -> str:
    chosen = ", ".join(f"{name} {value}" for name, value in (best.get("options") or {}).items())
    return f"the best of {best.get('trials')} trials: {chosen}"


def facts(manifests: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return machines and versions, each once."""
    machines = [m.get("machine") or {} for m in manifests]
    written = [", ".join(f"{k.replace('_', ' ')} {v}" for k, v in machine.items()) for machine in machines]
    versions = [", ".join(f"{k} {v}" for k, v in (m.get("versions") or {}).items()) for m in manifests]
    found = [("Machine", text) for text in dict.fromkeys(written) if text]
    found += [("Versions", text) for text in dict.fromkeys(versions) if text]
    return [(what, format.shorten(text, 600)) for what, text in found]
