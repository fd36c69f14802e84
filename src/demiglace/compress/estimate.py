"""Estimate how long the training of a compression takes."""

from collections.abc import Sequence
from dataclasses import replace

from demiglace.compress.candidates import Student
from demiglace.compress.halving import FINALISTS, rung_epochs
from demiglace.compress.inputs import CompressionInputs
from demiglace.config.command_options import CompressConfig, DistillConfig, FinetuneConfig
from demiglace.config.options import build, flatten
from demiglace.costs.describe import duration
from demiglace.costs.measure_speed import measure_speed
from demiglace.costs.run_spec import models_of, run_spec, token_lengths

_SECONDS = 3.0  # for measuring the speed of this machine


def training_time(config: CompressConfig, inputs: CompressionInputs, students: Sequence[Student]) -> str:
    """Return a sentence with the time of all trainings on this machine, one after another.

    The teacher has no weights for the task yet where it is fine-tuned here; its config is enough.
    """
    if not students:
        return ""
    shared = flatten(config.source) | {"max_length": inputs.max_length, "problem": inputs.task.name}
    shared |= {"batch_size": config.batch_size, "output": config.output, "data_dir": config.location.data_dir}
    method = "vanilla-kd" if config.method == "auto" else config.method
    largest = build(
        DistillConfig, shared | {"teacher": config.model, "method": method, "epochs": 1} | students[0].options
    )
    rows = token_lengths(largest.source, largest.location, *models_of(largest), distilled=True)
    speed = measure_speed(run_spec(largest, rows), _SECONDS)
    seconds, capture = 0.0, 0.0
    for place, student in enumerate(students):
        epochs = _epochs(config, place, len(students))
        options = shared | {"teacher": config.model, "method": method, "epochs": epochs} | student.options
        found = run_spec(build(DistillConfig, options), rows).estimate(speed).seconds
        if found is None:
            return "The models do not fit into the memory of this machine."
        seconds, capture = seconds + found.total - found.capture, max(capture, found.capture)
    if not inputs.is_classifier:
        given = replace(config.source, unlabelled=None)
        teacher = build(
            FinetuneConfig, shared | flatten(given) | {"model": config.model, "epochs": config.teacher_epochs}
        )
        found = run_spec(teacher, token_lengths(teacher.source, teacher.location, config.model)).estimate(speed).seconds
        seconds += 0.0 if found is None else found.total
    return f"Training takes about {duration(seconds + capture)} here, plus export."


def _epochs(config: CompressConfig, place: int, students: int) -> int:
    """Return how many epochs a student trains if the largest ones are the best; the first one's baseline included."""
    epochs, left = 0, students
    for rung in rung_epochs(config.students, config.epochs):
        epochs += rung if place < left else 0
        left = max(-(-left // 2), FINALISTS)
    return epochs + (config.epochs if place == 0 else 0)
