"""Describe an estimate as lines of text, and format durations and sizes. Also the free memory of a device."""

from pathlib import Path

import psutil
import torch

from demiglace.costs.estimate import CostInputs, Estimate, Speed
from demiglace.costs.flops import Memory
from demiglace.costs.run_spec import RunSpec
from demiglace.models.shape import ModelShape
from demiglace.runs.processes import processes
from demiglace.signals.shard_store import free_disk


def describe(estimate: Estimate, spec: RunSpec, speed: Speed | None, signals: Path) -> list[str]:
    """Return an estimate as lines "name  value".

    Args:
        estimate: of the run.
        spec: of the run.
        speed: of the machine, None if it is not known.
        signals: directory in which the cache would be.
    """
    facts = {
        "teacher": "not used" if estimate.teacher is None else _model(estimate.teacher),
        "student": _model(estimate.student) + _share(estimate),
        "blocks" if spec.is_language else "rows": _rows(estimate, spec),
        "steps": f"{estimate.steps:,} per epoch, {estimate.epochs:.3g} epochs",
        "teacher FLOPs": _teacher_flops(estimate),
        "student FLOPs": _student_flops(estimate, spec.inputs),
        "cache": _cache(estimate, signals, "block" if spec.is_language else "row"),
        "memory": _memory(estimate.memory),
        "speed": _speed_line(spec, speed),
        "time": _time(estimate),
    }
    return [f"{name:<15}{fact}" for name, fact in facts.items()]


def _model(shape: ModelShape) -> str:
    return (
        f"{shape.architecture}, {shape.num_layers} layers of {shape.hidden_size}, {shape.parameters:,} parameters, "
        f"{shape.embedding_parameters:,} of them in embedding tables"
    )


def _rows(estimate: Estimate, spec: RunSpec) -> str:
    if spec.is_language:
        length = estimate.tokens // estimate.rows
        return f"{estimate.rows:,} for training, {length} tokens each, {estimate.tokens:,} in all"
    return (
        f"{estimate.rows:,} for training, {estimate.tokens / estimate.rows:.1f} tokens each, "
        f"{estimate.padded_tokens / estimate.rows:.1f} with padding"
    )


def _share(estimate: Estimate) -> str:
    return "" if estimate.teacher is None else f" ({estimate.student.parameters / estimate.teacher.parameters:.1%})"


def _teacher_flops(estimate: Estimate) -> str:
    if estimate.teacher is None:
        return "none"
    times = "once" if estimate.cache_bytes else f"per epoch, in {estimate.teacher_passes:.3g} epochs"
    epochs = f"{estimate.perturbed_passes:.3g} epochs"
    more = f"; generator and perturbed text {estimate.perturbed_flops:.3g} per epoch, {epochs}"
    return f"{estimate.teacher_flops:.3g} {times}" + (more if estimate.perturbed_passes else "")


def _student_flops(estimate: Estimate, inputs: CostInputs) -> str:
    more = (
        f"; the same again on perturbed text in {estimate.perturbed_passes:.3g} epochs"
        if estimate.perturbed_passes
        else ""
    )
    backward = "the backward pass twice" + (
        " and the recomputed layers once" if inputs.training.gradient_checkpointing else ""
    )
    return f"{estimate.student_flops:.3g} per epoch, {backward} the forward pass{more}"


def _cache(estimate: Estimate, signals: Path, row: str) -> str:
    if not estimate.cache_bytes:
        return "none" if estimate.teacher is None else "none, the teacher runs for every batch"
    free, existing = free_disk(signals)
    short = "" if estimate.cache_bytes <= free else "; too little: give --cache DIR on a larger disk, or --cache off"
    return (
        f"{size(estimate.cache_bytes)} ({estimate.cache_bytes / estimate.rows:,.0f} B per {row}); "
        f"{size(free)} free at {existing}{short}"
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
    return f"{size(memory.total)} at most, without Python and libraries, of {size(free_memory())} free ({shown})"


def _speed_line(spec: RunSpec, speed: Speed | None) -> str:
    inputs = spec.inputs
    if speed is None:
        return "unknown"
    update = f", {speed.update:.3f} s per update" if speed.update else ""
    many = f", {inputs.devices} devices" if inputs.devices > 1 else ""
    return (
        f"{speed.forward:.3g} FLOP/s forward, {speed.training:.3g} in training{update}{many} "
        f"({inputs.precision}, {inputs.attention} attention)"
    )


def _time(estimate: Estimate) -> str:
    if estimate.seconds is None:
        return "unknown"
    seconds = estimate.seconds
    parts = {
        "caching the teacher's signals": seconds.capture,
        "training": seconds.training,
        "validation": seconds.validation,
    }
    shown = ", ".join(f"{name} {duration(part)}" for name, part in parts.items() if part)
    return f"{duration(seconds.total)} ({shown})"


def duration(seconds: float) -> str:
    """Format seconds: 42 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Format bytes: 1.5 MiB, 7.2 GiB."""
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def free_memory() -> int:
    """Return the free bytes on the device of this process."""
    device = processes().device
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
