"""Training runs: open the run directory, run the loop, save and evaluate the model."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.options import flatten
from demiglace.config.training import TrainConfig, check_options
from demiglace.console import say
from demiglace.data.rows.schema import Dataset
from demiglace.errors import ConfigError, RunError, unknown
from demiglace.methods.base import Method
from demiglace.models.compilation import compile_layers, uncompile_layers
from demiglace.models.loading import largest_dropout, load_config, resolve_model
from demiglace.models.loading import save_model as write_model
from demiglace.models.precision import choose_attention, choose_precision
from demiglace.models.shape import ModelShape
from demiglace.models.vocabulary import TrimmedVocabulary
from demiglace.report.model_card import write_card
from demiglace.runs.directory import Run, open_run, remove_leftovers
from demiglace.runs.processes import processes
from demiglace.signals.online import SignalSource
from demiglace.training.accelerator import check_machine, make_accelerator
from demiglace.training.adversarial_generator import AdversarialGenerator
from demiglace.training.datasets import TrainingData
from demiglace.training.loop import Loop, ModelSelection, TrainerState
from demiglace.training.lora import Adapters
from demiglace.training.objective import Objective


def open_shared(output: Path, stage: str, config: Any, inputs: Mapping[str, str]) -> Run | None:
    """Open the run directory once for all processes of a `torchrun`; return None if the run is complete.

    Raises `RunError` as `open_run` does.
    """
    state = processes()
    identity = flatten(config, result_options_only=True)
    if state.is_main_process:
        run = open_run(output, stage, identity, inputs)
    state.wait_for_everyone()
    if not state.is_main_process:
        run = Run(Path(output), stage, identity, dict(inputs), complete=(Path(output) / "manifest.json").exists())
    if run.complete:
        # the process may have been killed before it wrote the card
        if state.is_main_process and not (run.path / "model" / "README.md").exists():
            write_card(run.path / "model", run.path, trained=run.manifest)
        say(f"{output} is up to date.")
        return None
    return run


def check_training(config: TrainConfig, dataset: Dataset) -> None:
    """Raise `ConfigError` for a metric that the task does not have or a tracker that is not installed."""
    if config.metric is not None and config.metric not in dataset.metrics:
        raise ConfigError(unknown(f"metric of {dataset.name}:", config.metric, dataset.metrics))
    check_options(config)
    check_machine(config)


def selection_criterion(data: TrainingData, config: TrainConfig, precision: str) -> ModelSelection:
    """Return the criterion that selects the best epoch: a validation metric, by default the first of the task."""
    name = config.metric or next(iter(data.selection_metrics))

    def evaluate(model: PreTrainedModel) -> dict[str, float]:
        return data.metrics("validation", model, precision)

    return ModelSelection(evaluate, name, data.selection_metrics[name])


def resolve_precision_and_attention(config: TrainConfig, model: str | PreTrainedConfig) -> tuple[str, str]:
    """Return precision and attention kernel for training `model`, a model's name or the config of a new one."""
    model_config = load_config(resolve_model(model)) if isinstance(model, str) else model
    dropout = largest_dropout(model_config) if config.dropout is None else config.dropout
    device = processes().device
    precision = choose_precision(config.precision, model_config.hidden_size, device)
    return precision, choose_attention(config.attention, precision, dropout, device)


@dataclass(frozen=True)
class TrainingRun:
    """The checked and loaded inputs of a training run."""

    config: TrainConfig
    method_name: str
    method: Method
    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    data: TrainingData
    precision: str
    teacher_shape: ModelShape
    source: SignalSource | None = None
    capture_seconds: float = 0.0  # of the teacher's forward passes that filled the cache
    adversary: AdversarialGenerator | None = None
    findings: Mapping[str, Any] = field(default_factory=dict)  # measured before training, for the manifest
    vocabulary: TrimmedVocabulary | None = None  # which tokens the student has, if they are not all of the teacher's


def train(run: Run, training_run: TrainingRun) -> None:
    """Run the loop to its end, evaluate the best weights, and complete the run directory.

    RUN/model has the weights of the best epoch, RUN/last those of the last one. Checkpoints are removed at the end.
    """
    _check_disk(run.path, training_run.student)
    torch.manual_seed(training_run.config.seed)  # for the initial weights of the terms
    objective = Objective(
        training_run.student,
        training_run.method,
        training_run.teacher_shape,
        training_run.data.task,
        training_run.precision,
    )
    adapters = None if training_run.config.lora_rank is None else Adapters(training_run.student, training_run.config)
    if training_run.config.compile:
        compile_layers(training_run.student)
    # without its logits the student's head gets no gradient
    all_parameters = len(training_run.method.phases) == 1 and objective.requests.student.logits
    accelerator = make_accelerator(training_run.config, run.path, run.config, all_parameters=all_parameters)
    selection = selection_criterion(training_run.data, training_run.config, training_run.precision)
    loop = Loop(
        objective=objective,
        examples=training_run.data.examples["train"],
        source=training_run.source,
        selection=selection,
        config=training_run.config,
        directory=run.path,
        accelerator=accelerator,
        source_locations=training_run.data.lines,
        adversary=training_run.adversary,
        starts_from=training_run.method.starts_from,
    )
    state, student = loop.run(), loop.student()
    if accelerator.is_main_process:
        if training_run.config.compile:
            uncompile_layers(student)
        _finalize_run(run, replace(training_run, student=student), loop, state, adapters)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _check_disk(directory: Path, student: PreTrainedModel) -> None:
    """Raise `RunError` if the disk has no space for RUN/model, RUN/last and a checkpoint with AdamW's two moments."""
    weights = sum(p.numel() * p.element_size() for p in student.parameters())
    trained = sum(p.numel() * p.element_size() for p in student.parameters() if p.requires_grad)
    needed = 3 * weights + 2 * trained
    written = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())  # by a run that resumes
    if needed - written > (free := shutil.disk_usage(directory).free):
        raise RunError(
            f"{directory} needs about {needed / 1e6:,.0f} MB for the model and one checkpoint, and its disk has "
            f"{free / 1e6:,.0f} MB left; free space or give another --output."
        )


def _finalize_run(
    run: Run, training_run: TrainingRun, loop: Loop, state: TrainerState, adapters: Adapters | None
) -> None:
    data, precision = training_run.data, training_run.precision
    if adapters is not None:
        adapters.merge()
    data.fit_decision_rule(training_run.student, precision)
    save_model(training_run, run.path / "last")
    if adapters is None:
        training_run.student.load_state_dict(loop.best_weights())
    else:
        adapters.load(loop.best_weights())
        adapters.merge()
    rule = data.fit_decision_rule(training_run.student, precision)
    save_model(training_run, run.path / "model")
    start = time.perf_counter()
    splits = [s for s in ("validation", "test") if s in data.examples]
    metrics = {s: data.metrics(s, training_run.student, precision) for s in splits}
    shape = ModelShape.of(training_run.student)
    run.finish(
        lambda manifest: write_card(run.path / "model", run.path, trained=manifest),
        **data.manifest_fields,
        **training_run.findings,
        method=training_run.method_name,
        precision=precision,
        layers=shape.num_layers,
        parameters=shape.parameters,
        **({} if adapters is None else {"trained_parameters": adapters.trained_parameters}),
        bytes=(run.path / "model" / "model.safetensors").stat().st_size,
        best_epoch=state.best_epoch,
        **skipped_steps(state),
        **({"decision_rule": rule} if rule else {}),
        metrics=metrics,
        seconds={
            "capture": round(training_run.capture_seconds, 2),
            "train": round(state.seconds, 2),
            "evaluate": round(time.perf_counter() - start, 2),
        },
        rows_per_second=round(state.rows / max(state.seconds, 1e-9), 1),
    )
    remove_leftovers(run.path)
    say(f"{run.path}: {describe(metrics)}; best epoch {state.best_epoch + 1}, {state.seconds:.0f} s of training")


def skipped_steps(state: TrainerState) -> dict[str, int]:
    """Print how many steps fp16 skipped, and return their number for the manifest; {} without any."""
    if not state.skipped_steps:
        return {}
    say(f"fp16: {state.skipped_steps:,} of {state.step:,} steps were skipped, because their gradients overflowed")
    return {"skipped_steps": state.skipped_steps}


def describe(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return the metrics of each split in one line."""
    parts = (f"{split} " + ", ".join(f"{k} {v:.4f}" for k, v in values.items()) for split, values in metrics.items())
    return "; ".join(parts)


def save_model(training_run: TrainingRun, directory: Path) -> None:
    """Write the student and its tokenizer atomically as a Hugging Face directory.

    Raises `RunError` if they cannot be written.
    """
    draft = directory.with_name(directory.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        write_model(training_run.student, draft)
        training_run.tokenizer.save_pretrained(draft)
        if training_run.vocabulary is not None:
            training_run.vocabulary.save(draft)
        shutil.rmtree(directory, ignore_errors=True)
        draft.rename(directory)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the model could not be written to {directory} ({error}); free disk space and repeat the command."
        ) from error
