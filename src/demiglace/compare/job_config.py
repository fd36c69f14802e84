"""The config of a job: its options, overridden by the best options of its search. Also the files of a search."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demiglace.compare.grid import READING_OPTIONS
from demiglace.compare.grid_cells import with_values
from demiglace.compare.job_graph import EXPORT_ROW_OPTIONS, Job
from demiglace.compare.search_space import Range
from demiglace.config import command_options as configs
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
_SEARCHED_OPTIONS = {"evaluate": READING_OPTIONS, "export": EXPORT_ROW_OPTIONS}  # searched options they share


def config_of(job: Job, root: Path) -> Any:
    """Build the config of a job's command, with the best options of its search if there are any.

    Raises:
        ConfigError: an option is invalid; the message names the job.
    """
    options = dict(job.options)
    if job.search is not None and (file := best_file(root, job.search)).exists():
        best = renamed(read_json(file)["options"])
        if job.stage != "distill":
            best = {k: v for k, v in best.items() if k in _SEARCHED_OPTIONS[job.stage]}
        options = with_values(options, best)
    if job.stage == "search":
        options["output"] = str(root / job.key)
    try:
        return build(_CONFIGS[job.stage], options)
    except ConfigError as error:
        raise ConfigError(f"{job.key}: {error}") from error


def best_file(root: Path, search: str) -> Path:
    """Return the file to which a search writes the best options."""
    return root / search / "best.json"


def search_identity(job: Job, root: Path) -> dict[str, Any]:
    """Return the identity of a search: its trials, its ranges, and the options shared by all trials (`base`)."""
    ranges = {k: asdict(r) if isinstance(r, Range) else list(r) for k, r in job.ranges.items()}
    base = flatten(config_of(job, root), result_options_only=True)
    return json.loads(json.dumps({"trials": job.trials, "ranges": ranges, "base": base}, default=str))


def search_file(root: Path, search: str) -> Path:
    """Return the file to which a search writes its identity when it begins."""
    return root / search / "search.json"
