"""The search for a method's options: a fixed design of trials, each an ordinary run, kept in an Optuna study."""

import importlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.commands.distill import distill
from demiglace.compare.cells import with_values
from demiglace.compare.job_config import best_file, claim_file, search_identity
from demiglace.compare.job_graph import Job
from demiglace.compare.search_space import Range, trial_options
from demiglace.config.commands import DistillConfig
from demiglace.config.options import build
from demiglace.console import say
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.tokenise import tokenise
from demiglace.errors import ConfigError, RunError, UserError
from demiglace.evaluation.metrics import METRICS, predictions_of
from demiglace.evaluation.predict import predict
from demiglace.evaluation.significance import influence, variance_over_rows
from demiglace.models.loading import load_classifier, load_tokenizer
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import write_json
from demiglace.runs.processes import processes


def require_optuna() -> Any:
    """Optuna, with its own lines turned off. Raises `ConfigError` where it is not installed."""
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise ConfigError(
            "--search optuna needs Optuna: pip install 'demiglace[search]', or leave --search out."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def run_search(step: Job, home: Path) -> None:
    """Run the step's trials and write the best options to best.json; an interrupted search resumes.

    The options of trial i are a function of the ranges and i alone (`compare.ranges.trial_options`), so a search that
    resumes, or that is given more trials, is the same search. The value of a trial is the metric that chooses the run's
    best epoch, on validation rows held out of the training rows. A trial that fails counts as one. The weights of all
    trials but the best are removed. Raises `RunError` where all fail, or where the trials are of another design.
    """
    optuna, claim = require_optuna(), claim_file(home, step.key)
    claim.parent.mkdir(parents=True, exist_ok=True)
    write_json(claim, search_identity(step, home))
    study, design = _open(optuna, step, home), trial_options(step.ranges, step.trials)
    if any(t.user_attrs.get("options") != o for t, o in zip(study.trials, design, strict=False)):
        raise RunError(
            f"{home / step.key} was begun by an earlier version, which drew its trials in another way. Give another "
            f"--output, or remove {home / step.key}."
        )
    for number in range(len(study.trials), len(design)):
        study.add_trial(_trial(optuna, number, design[number], step, home))
        _remove_losers(study, home)
    _finish(study, step, home)


def _open(optuna: Any, step: Job, home: Path) -> Any:
    # one file for each search, which its step's lock lets one process write: disks that machines share lock no SQLite
    storage = optuna.storages.RDBStorage(f"sqlite:///{home / step.key / 'search.db'}")
    return optuna.create_study(storage=storage, study_name=step.key, direction="maximize", load_if_exists=True)


def _trial(optuna: Any, number: int, options: Mapping[str, Any], step: Job, home: Path) -> Any:
    """Run a trial, and return it as Optuna keeps it."""
    directory = home / step.key / f"trial-{number}"
    found: dict[str, Any] = {"user_attrs": {"directory": str(directory.relative_to(home)), "options": options}}
    say(f"trial {number + 1} of {step.trials}: {options}")
    try:
        values = with_values(step.options, options) | {"output": str(directory)}
        distill(**values)
        _predict(build(DistillConfig, values), directory)
        found["value"] = _value(read_manifest(directory))
    except (UserError, RuntimeError, MemoryError) as error:  # torch raises RuntimeErrors where memory is too small
        found["user_attrs"]["error"] = str(error)
        say(f"trial {number + 1} failed: {error}")
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if "value" in found else optuna.trial.TrialState.FAIL,
        params={name: _param(step.ranges[name], value) for name, value in options.items()},
        distributions={name: _distribution(optuna, step.ranges[name]) for name in options},
        **found,
    )


def _param(within: Range | tuple[Any, ...], value: Any) -> Any:
    """A value as Optuna keeps it: of a list, whose entries may be lists themselves, its position."""
    return value if isinstance(within, Range) else within.index(value)


def _distribution(optuna: Any, within: Range | tuple[Any, ...]) -> Any:
    if not isinstance(within, Range):
        return optuna.distributions.CategoricalDistribution(range(len(within)))
    if within.whole:
        return optuna.distributions.IntDistribution(int(within.low), int(within.high), log=within.log)
    return optuna.distributions.FloatDistribution(within.low, within.high, log=within.log)


def _predict(config: DistillConfig, directory: Path) -> None:
    """Keep the labels of a trial's validation rows and its predictions for them beside it, [2, N]."""
    dataset = load_dataset(config.source, config.location)
    held = dataset.splits["validation"]
    model = load_classifier(str(directory), None).to(processes().device)  # type: ignore[arg-type] # its decorator
    logits = predict(model, tokenise(held, load_tokenizer(str(directory)), config.source.max_length))
    np.save(_predictions(directory), np.stack([held.labels, predictions_of(logits, dataset.labels.task)]))


def _predictions(directory: Path) -> Path:
    return directory.with_name(f"predictions-{directory.name}.npy")


def _metric(manifest: Mapping[str, Any]) -> str:
    """The validation metric that the run was chosen by."""
    return str(manifest["config"]["metric"] or next(iter(manifest["metrics"]["validation"])))


def _value(manifest: Mapping[str, Any]) -> float:
    """That metric; higher is better."""
    name = _metric(manifest)
    value = float(manifest["metrics"]["validation"][name])
    return value if METRICS[name].higher_is_better else -value


def _remove_losers(study: Any, home: Path) -> None:
    best = _ranked(study.trials)[:1]
    for trial in study.trials:
        if trial.number not in [t.number for t in best]:
            for name in ("model", "last", "checkpoints", "signals"):
                shutil.rmtree(home / trial.user_attrs["directory"] / name, ignore_errors=True)


def _ranked(trials: Sequence[Any]) -> list[Any]:
    """The trials that did not fail, the highest value first, the earlier of equal ones."""
    return sorted((t for t in trials if t.value is not None), key=lambda t: (-t.value, t.number))


def _finish(study: Any, step: Job, home: Path) -> None:
    best, *others = _ranked(study.trials) or [None]
    if best is None:
        first = next((t.user_attrs["error"] for t in study.trials if "error" in t.user_attrs), "")
        raise RunError(f"none of the {step.trials} trials of {step.key} came to its end; the first said: {first}")
    options = best.user_attrs["options"]
    content = {"options": options, "value": best.value, "trial": best.number, "trials": step.trials}
    content["runner_up"] = _runner_up(best, others[0], home) if others else None
    write_json(best_file(home, step.key), content | {"ranges": search_identity(step, home)["ranges"]})
    say(f"the best of {step.trials} trials: {options} ({best.value:.4f}){_lead(content['runner_up'])}")


def _runner_up(best: Any, second: Any, home: Path) -> dict[str, Any]:
    """Return the second best trial, and how far the best one is above it.

    standard_error: of that difference over the validation rows, by the jackknife; another seed is not part of it.
    """
    directories = [home / trial.user_attrs["directory"] for trial in (best, second)]
    (labels, ours), (_, theirs) = (np.load(_predictions(directory)) for directory in directories)
    metric = _metric(read_manifest(directories[0]))
    variance = variance_over_rows(influence(metric, labels, ours) - influence(metric, labels, theirs))
    return {
        "options": second.user_attrs["options"],
        "trial": second.number,
        "difference": best.value - second.value,
        "standard_error": float(np.sqrt(variance)),
        "rows": len(labels),
    }


def _lead(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return (
        f", {found['difference']:.4f} above the runner-up, {found['options']}; the standard error of that difference "
        f"over the {found['rows']:,} validation rows is {found['standard_error']:.4f}"
    )
