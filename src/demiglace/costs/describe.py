"""Describe the estimated cost of a run in lines of text."""

from pathlib import Path

import psutil
import torch

from demiglace.costs.estimate import Estimate, Speed
from demiglace.costs.flops import Memory
from demiglace.costs.run_spec import RunSpec
from demiglace.models.shape import ModelShape
from demiglace.runs.processes import processes
from demiglace.signals.shard_store import free_disk


def describe(found: Estimate, subject: RunSpec, speed: Speed | None, signals: Path) -> list[str]:
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


def _rows(found: Estimate, subject: RunSpec) -> str:
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


def _speed_line(subject: RunSpec, speed: Speed | None) -> str:
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


def free_memory() -> int:
    """Bytes that are free on the device of this process."""
    device = processes().device
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
