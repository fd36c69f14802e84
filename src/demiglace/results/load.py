"""Load a comparison from its directory. Reads JSON only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demiglace.errors import RunError
from demiglace.results.comparison import Comparison
from demiglace.results.parse import parse_summary
from demiglace.results.run_log import Scores, read_epochs, read_log
from demiglace.results.schema import Cell, run_directory
from demiglace.runs.files import file_name, read_json

STAGE = "compare"
_OUTLINE = ("summary.json", "results.json")


def is_comparison(path: Path) -> bool:
    """Return whether a directory is one of `demiglace compare`, complete or not."""
    claim = path / "run.json"
    return claim.exists() and read_json(claim).get("stage") == STAGE


def read_comparison(root: Path, title: str) -> Comparison:
    """Load a comparison, with its failed and missing runs.

    Raises `RunError` where the comparison has no summary yet, and where no version of demiglace wrote the files.
    """
    absent = [name for name in _OUTLINE if not (root / name).exists()]
    if absent:
        raise RunError(
            f"{root} has no {absent[0]} yet: the comparison was interrupted. Repeat its `demiglace compare` command."
        )
    summary, results = read_json(root / "summary.json"), read_json(root / "results.json")
    try:
        return _comparison(root, title, summary, results)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OSError) as error:  # the last for long names
        raise RunError(
            f"{root / 'summary.json'} is not what this version writes ({type(error).__name__}: {error}); "
            "repeat the `demiglace compare` command with this version."
        ) from error


def _comparison(root: Path, title: str, summary: Mapping[str, Any], results: Mapping[str, Any]) -> Comparison:
    manifest = read_json(root / "manifest.json") if (root / "manifest.json").exists() else {}
    directories = _directories(root, results["records"])
    found = parse_summary(summary, root, title)
    return replace(
        found,
        cells=tuple(_with_runs(cell, root) for cell in found.cells),
        config=results.get("config") or manifest.get("config") or {},
        manifests=_contents(directories, "manifest.json"),
        searches=_contents(directories, "best.json"),
    )


def _directories(root: Path, records: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Return the directories of the runs that the records come from, each before those that need it."""
    found: dict[Path, None] = {}
    for r in records:
        run = root / r["run"]
        starts = []
        if r["role"] == "student":
            student = root / r["task"] / r["student"]
            starts = [student / "start", student / "start" / run.name, student / r["method"] / "search"]
        else:
            run = run_directory(root, r["run"])
        made = [root / r[kind] for kind in ("evaluation", "export") if r[kind]]
        found |= dict.fromkeys([*starts, run, *made])
    return list(found)


def _contents(directories: Iterable[Path], name: str) -> dict[Path, Mapping[str, Any]]:
    return {d: read_json(d / name) for d in directories if (d / name).exists()}


def _with_runs(cell: Cell, root: Path) -> Cell:
    """Return the cell with what the files of its runs hold: curves, layer mappings, changes against the teacher."""
    first, *others = [root / run / "log.jsonl" for run in cell.runs]
    log = read_log(first)
    curve = _mean_curve([log.epochs, *map(read_epochs, others)])
    changes = [_changes(root / directory, cell.in_domain) for directory in cell.evaluations if directory]
    return replace(cell, log=log, curve=curve, changes=tuple(filter(None, changes)))


def _mean_curve(curves: Sequence[Mapping[int, Scores]]) -> dict[int, Scores]:
    """Return means over the seeds, at the epochs that all of them have."""
    epochs = [e for e in curves[0] if all(e in c for c in curves)]
    return {
        e: {m: sum(c[e][m] for c in curves) / len(curves) for m in curves[0][e] if all(m in c[e] for c in curves)}
        for e in epochs
    }


def _changes(evaluation: Path, in_domain: str) -> Mapping[str, Any]:
    """Return the changes on the task's set; empty for regression, which has none."""
    file = evaluation / f"{file_name(in_domain)}.changes.json"
    return read_json(file) if file.exists() else {}
