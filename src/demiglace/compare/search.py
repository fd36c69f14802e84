"""The search for a method's options: Optuna proposes, an ordinary run on rows held out of the training rows answers."""

import importlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demiglace.compare.cells import with_values
from demiglace.compare.plan import Step
from demiglace.compare.ranges import Range
from demiglace.compare.steps import best_file, claim_file, search_claim
from demiglace.console import say
from demiglace.errors import ConfigError, RunError, UserError
from demiglace.evaluation.metrics import METRICS
from demiglace.manifest import read_manifest, write_json
from demiglace.stages.distill import distill


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


def run_search(step: Step, home: Path) -> None:
    """Spend the step's trials and write its best options to best.json; an interrupted search goes on.

    The value of a trial is the metric that chooses the run's best epoch, on validation rows carved from the training
    rows. A trial that fails counts as one. Raises `RunError` where all fail. The weights of all trials but the best are
    removed.
    """
    optuna, claim = require_optuna(), claim_file(home, step.key)
    claim.parent.mkdir(parents=True, exist_ok=True)
    write_json(claim, search_claim(step, home))
    study = _open(optuna, step, home)
    running, ended = optuna.trial.TrialState.RUNNING, lambda: [t for t in study.trials if t.state.is_finished()]
    while len(ended()) < step.trials:
        # one that was cut off in its middle, or a new one; seeded by its number, so that a search that went on is the
        # same search. Optuna has no public way to take up a trial again, only to count it as failed.
        cut_off = [t for t in study.trials if t.state == running]
        study.sampler = optuna.samplers.TPESampler(seed=cut_off[0].number if cut_off else len(study.trials))
        trial = optuna.trial.Trial(study, cut_off[0]._trial_id) if cut_off else study.ask()
        _run_trial(optuna, study, trial, step, home)
    _finish(study, step, home)


def _open(optuna: Any, step: Step, home: Path) -> Any:
    # one file for each search, which its step's lock lets one process write: disks that machines share lock no SQLite
    storage = optuna.storages.RDBStorage(f"sqlite:///{home / step.key / 'search.db'}")
    return optuna.create_study(storage=storage, study_name=step.key, direction="maximize", load_if_exists=True)


def _run_trial(optuna: Any, study: Any, trial: Any, step: Step, home: Path) -> None:
    values = {name: _suggest(trial, name, within) for name, within in step.ranges.items()}
    directory = home / step.key / f"trial-{trial.number}"
    trial.set_user_attr("directory", str(directory.relative_to(home)))
    say(f"trial {trial.number + 1} of {step.trials}: {values}")
    try:
        distill(**with_values(step.options, values), output=str(directory))
        study.tell(trial, _value(read_manifest(directory)))
    except (UserError, RuntimeError, MemoryError) as error:  # torch tells by RuntimeErrors what fits no memory
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        say(f"trial {trial.number + 1} failed: {error}")
    _remove_losers(study, home)


def _suggest(trial: Any, name: str, within: Range | tuple[Any, ...]) -> Any:
    if not isinstance(within, Range):
        return within[trial.suggest_categorical(name, range(len(within)))]
    if within.whole:
        return trial.suggest_int(name, int(within.low), int(within.high), log=within.log)
    return trial.suggest_float(name, within.low, within.high, log=within.log)


def _value(manifest: Mapping[str, Any]) -> float:
    """The validation metric that the run was chosen by; higher is better."""
    metrics = manifest["metrics"]["validation"]
    name = manifest["config"]["metric"] or next(iter(metrics))
    return metrics[name] if METRICS[name].higher_is_better else -metrics[name]


def _remove_losers(study: Any, home: Path) -> None:
    best = _best(study.trials)
    for trial in study.trials:
        if trial.state.is_finished() and (best is None or trial.number != best.number):
            for name in ("model", "last", "checkpoints", "signals"):
                shutil.rmtree(home / trial.user_attrs["directory"] / name, ignore_errors=True)


def _best(trials: Sequence[Any]) -> Any:
    """The trial of the highest value, the earlier of equal ones; none where all failed."""
    return max((t for t in trials if t.value is not None), key=lambda t: (t.value, -t.number), default=None)


def _finish(study: Any, step: Step, home: Path) -> None:
    best = _best(study.trials)
    if best is None:
        first = next((t.user_attrs["error"] for t in study.trials if "error" in t.user_attrs), "")
        raise RunError(f"none of the {step.trials} trials of {step.key} came to its end; the first said: {first}")
    options = {name: _chosen(step.ranges[name], value) for name, value in best.params.items()}
    content = {"options": options, "value": best.value, "trial": best.number, "trials": step.trials}
    write_json(best_file(home, step.key), content | {"ranges": search_claim(step, home)["ranges"]})
    say(f"the best of {step.trials} trials: {options} ({best.value:.4f})")


def _chosen(within: Range | tuple[Any, ...], value: Any) -> Any:
    return value if isinstance(within, Range) else within[value]
