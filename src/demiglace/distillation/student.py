"""What both kinds of `distill` share: fingerprints of the inputs, and the training run of the truncated student."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from demiglace.config.command_options import STATIC, DistillConfig
from demiglace.console import say
from demiglace.data.text.blocks import Blocks
from demiglace.data.text.calibration_sample import drawn_rows
from demiglace.data.tokenize import TokenizedSplit, select
from demiglace.distillation.vocabulary import StudentTokens
from demiglace.errors import ConfigError
from demiglace.methods.base import Method
from demiglace.methods.from_yaml import describe_method
from demiglace.methods.registry import METHODS, fingerprint_method, is_file
from demiglace.models.loading import fingerprint_model
from demiglace.models.measured_layers import ROW_TOKENS, choose_by_text, describe_choice, strategy_for
from demiglace.models.narrow_student import BY_GRADIENTS, describe_width, student_units, width_facts
from demiglace.models.prune_width import Units, prune_units
from demiglace.models.shape import CAUSAL_NAMES, ModelShape
from demiglace.models.truncate import (
    ABLATIONS,
    DATA_DRIVEN,
    Keep,
    build_truncated,
    check_fit,
    choose_layers,
    make_student,
)
from demiglace.models.width import SIZES, flag, narrow_config
from demiglace.runs.directory import Run
from demiglace.runs.files import fingerprint, read_json, write_json
from demiglace.runs.processes import processes
from demiglace.signals.request import SignalRequest
from demiglace.training.datasets import TaskData, TrainingData
from demiglace.training.prepare import prepare_model
from demiglace.training.run import TrainingRun

CALIBRATION_TOKENS = 20_000  # of the training examples, to measure layers on


def fingerprint_inputs(config: DistillConfig) -> dict[str, str]:
    """Return fingerprints of the teacher, of a named student, and of a method that is not demiglace's."""
    inputs = {"teacher": fingerprint_model(config.teacher)}
    if is_file(config.method):
        inputs["method"] = fingerprint([config.method])
    elif digest := fingerprint_method(config.method, config.method_options):
        inputs["method"] = digest
    if config.student and config.student != STATIC:
        inputs["student"] = fingerprint_model(config.student)
    return inputs


def check_compile(config: DistillConfig, requests: Sequence[SignalRequest]) -> None:
    """Raise `ConfigError` for --compile with a method that needs signals from inside of the layers."""
    if config.training.compile and any(request.attention for request in requests):
        raise ConfigError(
            f"method {config.method} compares queries, keys and values, which --compile hides inside of the compiled "
            "layers; leave --compile out."
        )


def warn_of_first_token(name: str, method: Method, student: ModelShape, teacher: ModelShape) -> None:
    """Warn if a method compares the first token's hidden states and the student is causal."""
    if student.causal and "first" in method.requests(student, teacher).student.poolings:
        say(
            f"warning: {name} compares the hidden states of the first token, which in a causal model depend on that "
            "token alone and hold nothing of the text after it; take a method that pools all tokens, such as rail-kd-l."
        )


@dataclass(frozen=True)
class Cut:
    """How a student is truncated from its teacher."""

    strategy: str | None  # None: --keep names the layers
    layers: Keep  # kept layers; for a strategy of `MEASURED` only their number counts
    sizes: Mapping[str, int] = field(default_factory=dict)  # of the width, each smaller than the teacher's

    def shape(self, model: PreTrainedModel) -> ModelShape:
        """Return the shape of the student of a model as deep as the teacher; no weight is copied.

        Raises `ModelError` as `narrow_config` does, and as `check_fit` except for a strategy of `DATA_DRIVEN`.
        """
        if self.strategy not in DATA_DRIVEN:
            student = check_fit(model, self.layers)
        else:
            with torch.device("meta"):
                student = build_truncated(model, self.layers)
        if self.sizes:
            with torch.device("meta"):
                student = type(model)(narrow_config(student.config, **self.sizes))
        return ModelShape.of(student)


def cut_of(config: DistillConfig, model: PreTrainedModel) -> Cut | None:
    """Return how --layers, --strategy and --keep truncate a model as deep as the teacher; None with --student.

    Raises `ConfigError` and `ModelError` as `choose_layers` does.
    """
    if config.student:
        return None
    sizes = config.width.sizes
    causal = type(model).__name__.endswith(CAUSAL_NAMES)
    text = bool(config.text.corpus) and config.keep is None and config.layers is not None
    strategy = strategy_for(config.strategy, model.config, causal=causal, text=text)
    layers = choose_layers(model.config, config.layers, strategy, config.keep, all_by_default=bool(sizes))
    return Cut(None if config.keep else strategy, layers, sizes)


def student_run(
    config: DistillConfig,
    run: Run,
    method: Method,
    cut: Cut | None,
    model: PreTrainedModel,
    tokens: StudentTokens,
    data: TrainingData,
    precision: str,
    teacher_shape: ModelShape,
) -> TrainingRun:
    """Return the training run of a student, without a source of signals; its findings are the facts about its start.

    model: the student, or what it is truncated from. Raises `ModelError` as `_truncate_student` does.
    """
    student, facts = _truncate_student(cut, model, data, run, config.training.seed)
    prepare_model(student, config.training)
    facts |= {} if config.method in METHODS else {"method_terms": describe_method(method)["terms"]}
    return TrainingRun(
        config.training,
        config.method,
        method,
        student,
        tokens.tokenizer,
        data,
        precision,
        teacher_shape,
        findings=facts | dict(tokens.facts),
        vocabulary=tokens.vocabulary,
    )


def _truncate_student(
    cut: Cut | None, model: PreTrainedModel, data: TrainingData, run: Run, seed: int
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the student truncated from a model, or the model itself, and the manifest's fields about its layers.

    A strategy of `DATA_DRIVEN`, and the units of a narrower student, are measured once, on some of the training
    examples: a resumed run, and all processes of a `torchrun`, read RUN/layers.json and RUN/width.json. Units are
    measured on labelled examples where there are any, so that runs with and without --unlabelled keep the same ones.
    Raises `ModelError` if the model's outputs are not finite.
    """
    if cut is None:
        return model, {}
    examples, keep, facts, text = data.examples["train"], cut.layers, dict[str, Any](), ""
    if cut.strategy in DATA_DRIVEN:
        measured = _measured(cut.strategy, len(cut.layers), model, examples, run)
        keep, facts = tuple(measured.pop("keep")), {"importance": measured}
        kind = "blocks of the corpus" if isinstance(examples, Blocks) else "rows"
        text = f"{measured['rows']:,} {kind} ({measured['tokens']:,} tokens)"
    say(describe_choice(cut.strategy, keep, text))
    facts |= {"strategy": cut.strategy, "keep": [] if cut.strategy in ABLATIONS else list(keep)}
    student = make_student(model, keep, cut.strategy or "", seed)
    if not cut.sizes:
        return student, facts
    if isinstance(data, TaskData) and data.unlabelled:
        examples = select(data.examples["train"], range(len(examples) - data.unlabelled))
    units = _measured_units(cut, model, student, keep, examples, run)
    pruned = prune_units(student, units)
    say(describe_width(student, pruned, BY_GRADIENTS))
    return pruned, facts | width_facts(student, pruned, units, BY_GRADIENTS)


def _measured_units(
    cut: Cut, model: PreTrainedModel, student: PreTrainedModel, keep: Keep, examples: TokenizedSplit | Blocks, run: Run
) -> Units:
    """Return the units that the student keeps, measured once as the layers are: they are kept in RUN/width.json."""
    state, file = processes(), run.path / "width.json"
    if state.is_main_process and not file.exists():
        rows = drawn_rows(examples, CALIBRATION_TOKENS, ROW_TOKENS)
        write_json(file, student_units(model, student, keep, cut.sizes, rows))
    state.wait_for_everyone()
    units: Units = read_json(file)
    return units


def _measured(
    strategy: str, count: int, model: PreTrainedModel, examples: TokenizedSplit | Blocks, run: Run
) -> dict[str, Any]:
    state, file = processes(), run.path / "layers.json"
    if state.is_main_process and not file.exists():
        choice = choose_by_text(model, drawn_rows(examples, CALIBRATION_TOKENS, ROW_TOKENS), strategy, count)
        choice.show()
        write_json(file, {"keep": choice.keep, **choice.measurements})
    state.wait_for_everyone()
    return read_json(file)


def check_student_choice(config: DistillConfig) -> None:
    """Raise `ConfigError` unless exactly one is given: --student, or --layers, --keep or a size of the width.

    Also raised for options that exclude a static student, and for --embedding-size with another one.
    """
    ways = [bool(config.student), config.layers is not None or config.keep is not None or bool(config.width.sizes)]
    if sum(ways) != 1:
        given = "both were given" if all(ways) else "neither was given"
        raise ConfigError(
            "the student is either --student MODEL or made from the teacher by --layers, --keep or sizes of its width "
            f"({', '.join(map(flag, SIZES))}); {given}."
        )
    if config.student == STATIC:
        _check_static(config)
    elif config.embedding_size is not None:
        raise ConfigError(
            f"--embedding-size {config.embedding_size} is the width of a static student's vectors; give --student "
            "static, or leave it out."
        )


def _check_static(config: DistillConfig) -> None:
    wrong = {
        f"--strategy {config.strategy}": config.strategy != "auto",
        f"--lora-rank {config.training.lora_rank}": config.training.lora_rank is not None,
        "--compile": config.training.compile,
        "--gradient-checkpointing": config.training.gradient_checkpointing,
    }
    if given := [name for name, is_given in wrong.items() if is_given]:
        raise ConfigError(f"{', '.join(given)}: a static student has no layers; leave it out.")
    if config.text.corpus:
        raise ConfigError(
            "--student static was given with --corpus: a static student is a classifier or regressor of texts, not a "
            "language model. Give rows (--data), or another student."
        )
