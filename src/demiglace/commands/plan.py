"""`demiglace plan`: an estimate of what a run will cost."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from demiglace.config.command_options import DistillConfig, FinetuneConfig, PlanConfig, PretrainConfig
from demiglace.config.options import build, command, flatten, options_of
from demiglace.costs.describe import describe
from demiglace.costs.estimate import Estimate, Speed
from demiglace.costs.measure_speed import measure_speed
from demiglace.costs.run_spec import RunSpec, language_run_spec, models_of, run_spec, token_lengths
from demiglace.errors import ConfigError
from demiglace.given_objects import saved_for_now
from demiglace.methods.registry import method_value

C = TypeVar("C")
Planned = DistillConfig | FinetuneConfig | PretrainConfig


@command(PlanConfig, objects=saved_for_now, method=method_value)
def plan(config: PlanConfig) -> Estimate:
    """Return an estimate of the cost of `distill`, `finetune` or `pretrain` with these options; write nothing.

    Needs the models' configs, a tokenizer, and the rows or the corpus; no weights. The speed is measured on this
    machine, or `flops` a second are assumed; the time is not known where the models do not fit into its memory. Raises
    those `UserError`s of the run that need no weights, so a run that could be planned may still be refused.
    """
    wanted = run_of(config)
    spec = _run_spec(wanted, config.devices)
    assumed = None if config.flops is None else Speed(config.flops, config.flops)
    speed = assumed or measure_speed(spec, config.calibration_seconds)
    found = spec.estimate(speed)
    return replace(found, lines=tuple(describe(found, spec, speed, _signals_at(wanted))))


def run_of(config: PlanConfig) -> Planned:
    """The config of the run that is planned. Raises `ConfigError` unless it is that of one command."""
    given = [name for name in ("teacher", "model", "architecture") if getattr(config, name)]
    if len(given) != 1:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given) or "none of them"
        raise ConfigError(
            "plan takes --teacher, as distill does, or --model, as finetune and pretrain do, or --architecture, as "
            f"pretrain does; given: {named}. To plan a compression: demiglace plan compress MODEL --data ROWS ..."
        )
    if config.teacher:
        return _to_run_config(DistillConfig, config)
    if config.architecture or config.text.corpus:
        return _to_run_config(PretrainConfig, config)
    return _to_run_config(FinetuneConfig, config)


def _run_spec(wanted: Planned, devices: int) -> RunSpec:
    if isinstance(wanted, PretrainConfig) or (isinstance(wanted, DistillConfig) and wanted.text.corpus):
        return language_run_spec(wanted, devices)
    distilled = isinstance(wanted, DistillConfig)
    rows = token_lengths(wanted.source, wanted.location, *models_of(wanted), distilled=distilled)
    return run_spec(wanted, rows, devices)


def _to_run_config(kind: type[C], config: PlanConfig) -> C:
    """A config of that kind with the plan's options."""
    values, names = flatten(config), {o.name for o in options_of(kind)}
    return build(kind, {k: v for k, v in values.items() if k in names} | {"output": config.output or Path("run")})


def _signals_at(config: Planned) -> Path:
    if not isinstance(config, DistillConfig) or config.cache in ("auto", "off"):
        return config.output
    return Path(config.cache)
