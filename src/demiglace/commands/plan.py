"""`demiglace plan`: what a run will cost, before it is run."""

# ruff: noqa: T201  (what is printed is what was asked for)
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from demiglace.config.commands import DistillConfig, FinetuneConfig, PlanConfig, PretrainConfig
from demiglace.config.options import build, command, flatten, options_of
from demiglace.console import say
from demiglace.costs.estimate import Estimate, Speed
from demiglace.costs.flops import Memory
from demiglace.costs.measure_speed import calibrate
from demiglace.costs.run_spec import Subject, read_lengths, subject_of
from demiglace.errors import ConfigError
from demiglace.models.shape import ModelShape
from demiglace.signals.fill import free_disk
from demiglace.stages.text_subject import text_subject
from demiglace.training.run import processes

C = TypeVar("C")
Planned = DistillConfig | FinetuneConfig | PretrainConfig


@command(PlanConfig)
def plan(config: PlanConfig) -> Estimate:
    """Print and return what a run of `distill`, `finetune` or `pretrain` with these options costs; nothing is written.

    Needs the models' configs, not their weights, a tokenizer, and the rows or the corpus. The speed is measured on
    this machine, or `flops` a second are assumed; where the models do not fit its memory, no time is told. Raises
    those `UserError`s of the run that need no weights: that it was planned is no promise that it will run.
    """
    wanted = run_of(config)
    subject = _subject(wanted, config.devices)
    assumed = None if config.flops is None else Speed(config.flops, config.flops)
    speed = assumed or speed_here(subject, config.calibration_seconds)
    found = subject.estimate(speed)
    for line in describe(found, subject, speed, _signals_at(wanted)):
        print(line)
    return found


def run_of(config: PlanConfig) -> Planned:
    """The config of the run that is planned. Raises `ConfigError` unless it is that of one command."""
    given = [name for name in ("teacher", "model", "config_of") if getattr(config, name)]
    if len(given) != 1:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given) or "none of them"
        raise ConfigError(
            "plan takes --teacher, as distill does, or --model, as finetune and pretrain do, or --config-of, as "
            f"pretrain does; given: {named}."
        )
    if config.teacher:
        return _as(DistillConfig, config)
    if config.config_of or config.text.corpus:
        return _as(PretrainConfig, config)
    return _as(FinetuneConfig, config)


def _subject(wanted: Planned, devices: int) -> Subject:
    if isinstance(wanted, PretrainConfig) or (isinstance(wanted, DistillConfig) and wanted.text.corpus):
        return text_subject(wanted, devices)
    model = wanted.model if isinstance(wanted, FinetuneConfig) else wanted.teacher
    return subject_of(wanted, read_lengths(wanted.source, wanted.location, model), devices)


def _as(kind: type[C], config: PlanConfig) -> C:
    """A config of that kind with the plan's options."""
    values, names = flatten(config), {o.name for o in options_of(kind)}
    return build(kind, {k: v for k, v in values.items() if k in names} | {"output": config.output or Path("run")})


def speed_here(subject: Subject, seconds: float) -> Speed | None:
    """This machine's speed at a run, measured for about `seconds`; none, and said so, where the run does not fit."""
    needed = subject.estimate().memory.total
    if needed > free_memory():
        say(f"{size(needed)} do not fit the memory here, so no time can be told; `plan --flops` assumes a speed.")
        return None
    return calibrate(subject, seconds)


def free_memory() -> int:
    """Bytes that are free on the device of this process."""
    device = processes().device
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _signals_at(config: Planned) -> Path:
    if not isinstance(config, DistillConfig) or config.cache in ("auto", "off"):
        return config.output
    return Path(config.cache)


def describe(found: Estimate, subject: Subject, speed: Speed | None, signals: Path) -> list[str]:
    """An estimate in lines; signals: the directory where a cache would lie."""
    facts = {
        "teacher": "asked nothing" if found.teacher is None else _model(found.teacher),
        "student": _model(found.student) + _share(found),
        "blocks" if subject.is_language else "rows": _rows(found, subject),
        "steps": f"{found.steps:,} an epoch, {found.epochs} epochs",
        "teacher FLOPs": _teacher_flops(found),
        "student FLOPs": _student_flops(found),
        "cache": _cache(found, signals, "block" if subject.is_language else "row"),
        "memory": _memory(found.memory),
        "speed": _speed_line(subject, speed),
        "time": _time(found),
    }
    return [f"{name:<15}{fact}" for name, fact in facts.items()]


def _model(shape: ModelShape) -> str:
    return (
        f"{shape.architecture}, {shape.num_layers} layers of {shape.hidden_size}, {shape.parameters:,} parameters, "
        f"{shape.embedding_parameters:,} of them only looked up"
    )


def _rows(found: Estimate, subject: Subject) -> str:
    if subject.is_language:
        return f"{found.rows:,} for training, {found.tokens // found.rows} tokens each, {found.tokens:,} in all"
    return (
        f"{found.rows:,} for training, {found.tokens / found.rows:.1f} tokens each, "
        f"{found.padded_tokens / found.rows:.1f} with padding"
    )


def _share(found: Estimate) -> str:
    return "" if found.teacher is None else f" ({found.student.parameters / found.teacher.parameters:.1%})"


def _teacher_flops(found: Estimate) -> str:
    if found.teacher is None:
        return "none"
    times = "once" if found.cache_bytes else f"an epoch, in {found.teacher_passes} epochs"
    more = f"; with the generator {found.perturbed_flops:.3g} an epoch, in {found.perturbed_passes} epochs"
    return f"{found.teacher_flops:.3g} {times}" + (more if found.perturbed_passes else "")


def _student_flops(found: Estimate) -> str:
    more = f"; as many on perturbed text in {found.perturbed_passes} epochs" if found.perturbed_passes else ""
    return f"{found.student_flops:.3g} an epoch, the backward pass twice the forward one{more}"


def _cache(found: Estimate, signals: Path, row: str) -> str:
    if not found.cache_bytes:
        return "none" if found.teacher is None else "none, the teacher answers anew for every batch"
    free, place = free_disk(signals)
    short = "" if found.cache_bytes <= free else "; too little: give --cache DIR on a larger disk, or --cache off"
    return (
        f"{size(found.cache_bytes)} ({found.cache_bytes / found.rows:,.0f} B a {row}); "
        f"{size(free)} free at {place}{short}"
    )


def _memory(memory: Memory) -> str:
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "AdamW": memory.moments,
        "activations": memory.activations,
        "teacher": memory.teacher,
        "generator": memory.generator,
        "while the cache is filled": memory.capture,
    }
    shown = ", ".join(f"{name} {size(part)}" for name, part in parts.items() if part)
    return f"{size(memory.total)} at most beside Python's own, of {size(free_memory())} free ({shown})"


def _speed_line(subject: Subject, speed: Speed | None) -> str:
    setup = subject.setup
    if speed is None:
        return "not known"
    update = f", {speed.update:.3f} s an update" if speed.update else ""
    many = f", {setup.devices} devices" if setup.devices > 1 else ""
    return (
        f"{speed.forward:.3g} FLOP/s forward, {speed.training:.3g} in training{update}{many} "
        f"({setup.precision}, {setup.attention} attention)"
    )


def _time(found: Estimate) -> str:
    if found.seconds is None:
        return "not known"
    seconds = found.seconds
    parts = {"asking the teacher": seconds.capture, "training": seconds.training, "validation": seconds.validation}
    shown = ", ".join(f"{name} {duration(part)}" for name, part in parts.items() if part)
    return f"{duration(seconds.total)} ({shown})"


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Bytes in words: 1.5 MiB, 7.2 GiB."""
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
