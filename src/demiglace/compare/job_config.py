"""The config of a job's command, with the options that its search found."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demiglace.compare.cells import with_values
from demiglace.compare.grid import READING_OPTIONS
from demiglace.compare.job_graph import OF_EXPORT, Job
from demiglace.compare.search_space import Range
from demiglace.config import commands as configs
from demiglace.config.aliases import renamed
from demiglace.config.options import build, flatten
from demiglace.errors import ConfigError
from demiglace.runs.files import read_json

_CONFIGS = {
    "finetune": configs.FinetuneConfig,
    "truncate": configs.TruncateConfig,
    "search": configs.DistillConfig,
    "distill": configs.DistillConfig,
    "evaluate": configs.EvaluateConfig,
    "export": configs.ExportConfig,
}


_FOUND = {"evaluate": READING_OPTIONS, "export": OF_EXPORT}  # of the options that a search found, those they have


def config_of(step: Job, home: Path) -> Any:
    """The config of a step's stage, with the best options of its search. Raises `ConfigError`, naming the step."""
    options = dict(step.options)
    if step.search is not None and (file := best_file(home, step.search)).exists():
        best = renamed(read_json(file)["options"])
        if step.stage != "distill":
            best = {k: v for k, v in best.items() if k in _FOUND[step.stage]}
        options = with_values(options, best)
    if step.stage == "search":
        options["output"] = str(home / step.key)
    try:
        return build(_CONFIGS[step.stage], options)
    except ConfigError as error:
        raise ConfigError(f"{step.key}: {error}") from error


def best_file(home: Path, search: str) -> Path:
    """Where a search writes the best options that it found."""
    return home / search / "best.json"


def search_identity(step: Job, home: Path) -> dict[str, Any]:
    """What a search is made of: its trials, its ranges, and the `base` options of all its trials."""
    ranges = {k: asdict(r) if isinstance(r, Range) else list(r) for k, r in step.ranges.items()}
    base = flatten(config_of(step, home), result_options_only=True)
    return json.loads(json.dumps({"trials": step.trials, "ranges": ranges, "base": base}, default=str))


def claim_file(home: Path, search: str) -> Path:
    """Where a search writes its claim when it begins."""
    return home / search / "search.json"
