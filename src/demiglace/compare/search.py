"""Hyper-parameter search for a method: a fixed sequence of trials, each an ordinary run, stored in an Optuna study."""

import importlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.commands.distill import distill
from demiglace.compare.grid_cells import with_values
from demiglace.compare.job_config import best_file, search_file, search_identity
from demiglace.compare.job_graph import Job
from demiglace.compare.search_space import Range, trial_options
from demiglace.config.command_options import DistillConfig
from demiglace.config.options import build
from demiglace.console import say
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.tokenize import tokenize
from demiglace.errors import ConfigError, RunError, UserError, install_command
from demiglace.evaluation.predict import predict
from demiglace.evaluation.scores import METRICS, predictions_of
from demiglace.evaluation.significance import influence, variance_over_rows
from demiglace.models.labels import task_of_config
from demiglace.models.loading import load_classifier, load_tokenizer
from demiglace.models.max_length import trained_max_length
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import write_json
from demiglace.runs.processes import processes
from demiglace.training.datasets import with_problem_of


def require_optuna() -> Any:
    """Import Optuna and silence its log. Raises `ConfigError` if it is not installed."""
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise ConfigError(
            f"--search optuna needs Optuna: {install_command('search')}, or leave --search out."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def run_search(job: Job, root: Path) -> None:
    """Run the trials of a search and write the best options to best.json; an interrupted search resumes.

    The options of trial i depend only on the ranges and i (`compare.search_space.trial_options`), so a resumed search,
    or one with more trials, continues the same sequence. The value of a trial is the metric that selects the run's best
    epoch, on validation rows held out of the training rows. A failed trial counts as a trial. Only the weights of the
    best trial are kept.

    Raises:
        RunError: all trials failed, or earlier trials do not follow the sequence.
    """
    optuna, identity_file = require_optuna(), search_file(root, job.key)
    identity_file.parent.mkdir(parents=True, exist_ok=True)
    write_json(identity_file, search_identity(job, root))
    study, sequence = _open(optuna, job, root), trial_options(job.ranges, job.trials)
    if any(t.user_attrs.get("options") != o for t, o in zip(study.trials, sequence, strict=False)):
        raise RunError(
            f"{root / job.key} was begun by an earlier version, whose trials follow another sequence. Give another "
            f"--output, or remove {root / job.key}."
        )
    for number in range(len(study.trials), len(sequence)):
        study.add_trial(_trial(optuna, number, sequence[number], job, root))
        _remove_other_weights(study, root)
    _finish(study, job, root)


def _open(optuna: Any, job: Job, root: Path) -> Any:
    # One SQLite file per search, written by the one process that holds the job's lock: SQLite's own locks do not work
    # on network file systems.
    storage = optuna.storages.RDBStorage(f"sqlite:///{root / job.key / 'search.db'}")
    return optuna.create_study(storage=storage, study_name=job.key, direction="maximize", load_if_exists=True)


def _trial(optuna: Any, number: int, options: Mapping[str, Any], job: Job, root: Path) -> Any:
    """Run one trial and return it as an Optuna trial, failed or complete."""
    directory = root / job.key / f"trial-{number}"
    fields: dict[str, Any] = {"user_attrs": {"directory": str(directory.relative_to(root)), "options": options}}
    say(f"trial {number + 1} of {job.trials}: {options}")
    try:
        values = with_values(job.options, options) | {"output": str(directory)}
        distill(**values)
        _predict(build(DistillConfig, values), directory)
        fields["value"] = _value(read_manifest(directory))
    except (UserError, RuntimeError, MemoryError) as error:  # torch raises RuntimeError when memory runs out
        fields["user_attrs"]["error"] = str(error)
        say(f"trial {number + 1} failed: {error}")
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if "value" in fields else optuna.trial.TrialState.FAIL,
        params={name: _param(job.ranges[name], value) for name, value in options.items()},
        distributions={name: _distribution(optuna, job.ranges[name]) for name in options},
        **fields,
    )


def _param(values: Range | tuple[Any, ...], value: Any) -> Any:
    """Convert a value for Optuna: its index if the option has a list of values, which may be lists themselves."""
    return value if isinstance(values, Range) else values.index(value)


def _distribution(optuna: Any, values: Range | tuple[Any, ...]) -> Any:
    if not isinstance(values, Range):
        return optuna.distributions.CategoricalDistribution(range(len(values)))
    if values.whole:
        return optuna.distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)


def _predict(config: DistillConfig, directory: Path) -> None:
    """Save the labels of a trial's validation rows, and what its metric compares with them, as an array [2, N, ...]."""
    dataset = load_dataset(with_problem_of(config.source, config.teacher), config.location)
    held = dataset.splits["validation"]
    model = load_classifier(str(directory), None).to(processes().device)  # type: ignore[arg-type] # its decorator
    logits = predict(model, tokenize(held, load_tokenizer(str(directory)), trained_max_length(str(directory))))
    task = task_of_config(model.config).with_names(dataset.labels.names)
    decided = METRICS[_metric(read_manifest(directory))].of == "predictions"
    compared = task.readable(predictions_of(logits, task)) if decided else logits
    np.save(_predictions(directory), np.stack([task.readable(held.labels), compared]))


def _predictions(directory: Path) -> Path:
    return directory.with_name(f"predictions-{directory.name}.npy")


def _metric(manifest: Mapping[str, Any]) -> str:
    """Return the validation metric that selected the best epoch."""
    return str(manifest["config"]["metric"] or next(iter(manifest["metrics"]["validation"])))


def _value(manifest: Mapping[str, Any]) -> float:
    """Return the value of that metric, negated if lower is better."""
    name = _metric(manifest)
    value = float(manifest["metrics"]["validation"][name])
    return value if METRICS[name].higher_is_better else -value


def _remove_other_weights(study: Any, root: Path) -> None:
    best = _ranked(study.trials)[:1]
    for trial in study.trials:
        if trial.number not in [t.number for t in best]:
            for name in ("model", "last", "checkpoints", "signals"):
                shutil.rmtree(root / trial.user_attrs["directory"] / name, ignore_errors=True)


def _ranked(trials: Sequence[Any]) -> list[Any]:
    """Return the trials that did not fail, best first; of equal values, the earlier trial first."""
    return sorted((t for t in trials if t.value is not None), key=lambda t: (-t.value, t.number))


def _finish(study: Any, job: Job, root: Path) -> None:
    best, *others = _ranked(study.trials) or [None]
    if best is None:
        first = next((t.user_attrs["error"] for t in study.trials if "error" in t.user_attrs), "")
        raise RunError(f"all {job.trials} trials of {job.key} failed; the first error: {first}")
    options = best.user_attrs["options"]
    content = {"options": options, "value": best.value, "trial": best.number, "trials": job.trials}
    content["runner_up"] = _runner_up(best, others[0], root) if others else None
    write_json(best_file(root, job.key), content | {"ranges": search_identity(job, root)["ranges"]})
    say(f"best of {job.trials} trials: {options} ({best.value:.4f}){_lead(content['runner_up'])}")


def _runner_up(best: Any, second: Any, root: Path) -> dict[str, Any]:
    """Return the second best trial, its difference from the best one and the standard error of that difference.

    The standard error is over the validation rows, by the jackknife. It does not include the variance over seeds.
    """
    directories = [root / trial.user_attrs["directory"] for trial in (best, second)]
    (labels, best_predictions), (_, second_predictions) = (
        np.load(_predictions(directory)) for directory in directories
    )
    metric = _metric(read_manifest(directories[0]))
    difference = influence(metric, labels, best_predictions) - influence(metric, labels, second_predictions)
    variance = variance_over_rows(difference)
    return {
        "options": second.user_attrs["options"],
        "trial": second.number,
        "difference": best.value - second.value,
        "standard_error": float(np.sqrt(variance)),
        "rows": len(labels),
    }


def _lead(runner_up: Mapping[str, Any] | None) -> str:
    if runner_up is None:
        return ""
    return (
        f", {runner_up['difference']:.4f} above the runner-up, {runner_up['options']}; the standard error of that "
        f"difference over the {runner_up['rows']:,} validation rows is {runner_up['standard_error']:.4f}"
    )
