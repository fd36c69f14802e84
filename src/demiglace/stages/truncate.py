"""`demiglace truncate`: keep some of a model's layers."""

from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config import command, flatten
from demiglace.console import say
from demiglace.errors import ModelError, RunError
from demiglace.manifest import open_run
from demiglace.models.loading import (
    fingerprint_model,
    load_as_saved,
    load_config,
    load_tokenizer,
    resolve_model,
    save_model,
)
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import choose_layers, truncate_model
from demiglace.stages.config import TruncateConfig


@command(TruncateConfig)
def truncate(config: TruncateConfig) -> Path:
    """Write the truncated model and its tokenizer into the output directory, which is a model directory then.

    Works for classifiers, bare encoders and language models. Raises `ModelError`, `ConfigError` and `RunError`.
    """
    path = resolve_model(config.model)
    keep = choose_layers(_num_layers(path), config.layers, config.strategy, config.keep)
    inputs = {"model": fingerprint_model(path)}
    run = open_run(config.output, "truncate", flatten(config, deciding_only=True), inputs)
    if run.complete:
        say(f"{run.path} is up to date.")
        return run.path
    model = load_as_saved(path, allow_pickle=config.allow_pickle)
    student = truncate_model(model, keep)
    _save(student, load_tokenizer(path), run.path)
    before, after = ModelShape.of(model), ModelShape.of(student)
    run.finish(
        keep=list(keep), layers=len(keep), parameters=after.parameters, before=asdict(before), after=asdict(after)
    )
    say(_summary(run.path, keep, before, after))
    return run.path


def _num_layers(path: str) -> int:
    config = load_config(path)
    count = getattr(config, "num_hidden_layers", None)  # not every config of transformers has it
    if count is None:
        raise ModelError(f"{path} is a {config.model_type} model, which has no stack of layers to truncate.")
    return count


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    try:
        save_model(model, path)
        tokenizer.save_pretrained(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} could not be written ({error}); make room there and repeat the command.") from error


def _summary(path: Path, keep: tuple[int, ...], before: ModelShape, after: ModelShape) -> str:
    share = after.parameters / before.parameters
    return (
        f"{path}: layers {', '.join(map(str, keep))} of {before.num_layers} kept, "
        f"{after.parameters / 1e6:,.1f} of {before.parameters / 1e6:,.1f} million parameters ({share:.0%})."
    )
