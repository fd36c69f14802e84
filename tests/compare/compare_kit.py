"""Helpers: small grids, and functions that run them."""

from pathlib import Path
from typing import Any

import yaml
from command_kit import arguments

from demiglace.cli import main
from demiglace.runs.files import read_json

QUICK = {"epochs": 1, "batch_size": 8, "learning_rate": 2e-3, "checkpoint_seconds": 0}


def grid_of(place: Path) -> dict[str, Any]:
    """One task, one student, the two controls, two seeds."""
    rows = place / "rows"
    files = {"data": rows / "data.csv", "validation": rows / "validation.csv", "test": rows / "test.csv"}
    return {
        "tasks": {"mood": {name: str(file) for name, file in files.items()}},
        "teacher": {"model": str(place / "base"), **QUICK},
        "students": {"half": {"layers": 2}},
        "methods": {"none": {}, "vanilla-kd": {}},
        "defaults": dict(QUICK),
        "seeds": [0, 1],
    }


def replicated(content: dict[str, Any], *numbers: int, **sections: Any) -> dict[str, Any]:
    """The same grid with replicates instead of seeds, and other sections."""
    return {k: v for k, v in content.items() if k != "seeds"} | {"replicates": list(numbers)} | sections


def line_of(content: dict[str, Any], home: Path, **options: Any) -> list[str]:
    """The command line that runs a grid."""
    file = home.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return ["compare", str(file), *arguments("compare", output=home, **options)[1:]]


def compare(content: dict[str, Any], home: Path, **options: Any) -> int:
    """Run a grid; the exit code."""
    return main(line_of(content, home, **options))


def results(home: Path) -> list[dict[str, Any]]:
    """The records of a comparison's student runs."""
    return [r for r in read_json(home / "results.json")["records"] if r["role"] == "student"]


def weights_of(home: Path) -> dict[str, bytes]:
    """The bytes of all models of a comparison."""
    return {str(f.relative_to(home)): f.read_bytes() for f in sorted(home.rglob("model/model.safetensors"))}


def made(home: Path) -> dict[str, int]:
    """When each manifest below a directory was written."""
    return {str(f.parent.relative_to(home)): f.stat().st_mtime_ns for f in home.rglob("*/manifest.json")}
