"""`demiglace truncate`: keep some of a model's layers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.command_options import TruncateConfig
from demiglace.config.options import command, flatten
from demiglace.console import say
from demiglace.data.text.calibration_sample import calibration_rows
from demiglace.data.text.readers import drops, report_left_out
from demiglace.data.text.vocabulary_texts import vocabulary_files, vocabulary_texts
from demiglace.errors import ConfigError, RunError
from demiglace.given_objects import saved_objects
from demiglace.models.layer_kinds import number_of_layers
from demiglace.models.loading import (
    check_tokenizer,
    fingerprint_model,
    load_as_saved,
    load_config,
    load_tokenizer,
    resolve_model,
    save_model,
)
from demiglace.models.measured_layers import ROW_TOKENS, choose_by_text, describe_choice, strategy_for
from demiglace.models.sentence_modules import copy_modules
from demiglace.models.shape import CAUSAL_NAMES, ModelShape
from demiglace.models.trimmed_model import trim_model
from demiglace.models.trimmed_tokenizer import choose_vocabulary, report, trim_tokenizer
from demiglace.models.truncate import ABLATIONS, AUTO, DATA_DRIVEN, Keep, choose_layers, make_student
from demiglace.models.vocabulary import TrimmedVocabulary, check_options
from demiglace.runs.directory import Run, open_run, read_manifest
from demiglace.runs.files import fingerprint
from demiglace.runs.hub import push_to_hub
from demiglace.runs.result import Result


@command(TruncateConfig, objects=saved_objects)
def truncate(config: TruncateConfig) -> Result:
    """Write the truncated model and its tokenizer into the output directory, which is a model directory then.

    Works for classifiers, bare encoders and language models. What a strategy measures on text is printed and kept in
    the manifest. With `vocabulary="trim"` tokens are removed too, and without `layers` and `keep` all layers are kept.
    Raises `ModelError`, `ConfigError`, `DataError` and `RunError`.
    """
    check_options(config.trimming, corpus_needed=True)
    path = resolve_model(config.model)
    strategy = _strategy(config, path)
    keep = _layers(config, path, strategy)
    if strategy in DATA_DRIVEN:
        return _result(_by_text(config, path, strategy), config.push_to_hub)
    run = _open(config, path)
    if not run.complete:
        _finish(run, config, load_as_saved(path, allow_pickle=config.allow_pickle), strategy, keep)
    return _result(run.path, config.push_to_hub)


def _result(path: Path, repository: str | None) -> Result:
    """Return the model's layers and parameters with its directory, which is uploaded to a repository of the hub."""
    push_to_hub(path, repository)
    manifest = read_manifest(path)
    return Result(path, {name: manifest[name] for name in ("keep", "layers", "parameters") if name in manifest})


def _layers(config: TruncateConfig, path: str, strategy: str) -> Keep:
    model = load_config(path)
    needs_number = strategy in (*ABLATIONS, *DATA_DRIVEN)
    if config.trimming.vocabulary == "trim" and config.layers is None and config.keep is None and not needs_number:
        return tuple(range(number_of_layers(model)))
    return choose_layers(model, config.layers, strategy, config.keep)


def _strategy(config: TruncateConfig, path: str) -> str:
    """Return the strategy. Raises `ConfigError` unless calibration text is given exactly where it is measured on."""
    model = load_config(path)
    causal = (model.architectures or [""])[0].endswith(CAUSAL_NAMES)
    text = bool(config.calibration)
    strategy = strategy_for(config.strategy, model, causal=causal, text=text and config.keep is None)
    measured = " or ".join(DATA_DRIVEN)
    if strategy in DATA_DRIVEN and not text:
        raise ConfigError(f"--strategy {strategy} is measured on text; give some files as --calibration.")
    if text and config.keep is not None and strategy not in DATA_DRIVEN:
        raise ConfigError(f"--calibration is text for --strategy {measured}, and --keep names the layers; give one.")
    if text and strategy not in DATA_DRIVEN:
        default = ", the default for this model," if config.strategy == AUTO else ""
        raise ConfigError(f"--calibration is text for --strategy {measured}; {strategy}{default} reads no text.")
    return strategy


def _by_text(config: TruncateConfig, path: str, strategy: str) -> Path:
    model, tokenizer = load_as_saved(path, allow_pickle=config.allow_pickle), load_tokenizer(path)
    check_tokenizer(model, tokenizer)
    size = min(ROW_TOKENS, ModelShape.of(model).max_positions or ROW_TOKENS)
    sources, tokens = config.calibration or (), config.calibration_tokens
    rows = calibration_rows(sources, config.reading, tokenizer, tokens, size, config.seed)
    run = _open(config, path, calibration=rows.fingerprint)
    if not run.complete:
        choice = choose_by_text(model, rows, strategy, config.layers or 0)
        choice.show()
        text = f"{len(rows):,} rows of --calibration ({rows.lengths.sum():,} tokens)"
        say(describe_choice(strategy, choice.keep, text))
        _finish(run, config, model, strategy, choice.keep, importance=choice.measurements)
    return run.path


def _open(config: TruncateConfig, path: str, **inputs: str) -> Run:
    if config.trimming.vocabulary_corpus:
        inputs["vocabulary corpus"] = fingerprint(vocabulary_files(config.trimming.vocabulary_corpus))
    run = open_run(
        config.output,
        "truncate",
        flatten(config, result_options_only=True),
        {"model": fingerprint_model(path), **inputs},
    )
    if run.complete:
        say(f"{run.path} is up to date.")
    return run


def _finish(
    run: Run, config: TruncateConfig, model: PreTrainedModel, strategy: str, chosen: Keep, **found: Any
) -> None:
    tokenizer, vocabulary = load_tokenizer(config.model), None
    if config.trimming.vocabulary == "trim":
        check_tokenizer(model, tokenizer)
        vocabulary, found["vocabulary"] = _vocabulary(config, model, tokenizer)
    student = make_student(model, chosen, strategy, config.seed)
    if vocabulary is not None:
        student, tokenizer = trim_model(student, vocabulary), trim_tokenizer(tokenizer, vocabulary)
    before, after = ModelShape.of(model), ModelShape.of(student)
    modules = _save(student, tokenizer, resolve_model(config.model), run.path)
    if vocabulary is not None:
        vocabulary.save(run.path)
    keep = () if strategy in ABLATIONS else chosen
    sizes = {"layers": len(chosen), "parameters": after.parameters, "before": asdict(before), "after": asdict(after)}
    if modules:
        found["sentence_modules"] = modules
        say(f"Its sentence-transformers modules are kept: {', '.join(modules)}.")
    run.finish(strategy=None if config.keep or config.layers is None else strategy, keep=list(keep), **sizes, **found)
    say(_summary(run.path, keep, before, after))


def _vocabulary(
    config: TruncateConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[TrimmedVocabulary, Mapping[str, Any]]:
    """Return the tokens to keep, after printing what that costs, and the facts for the manifest."""
    left_out: Counter[str] = Counter()
    texts = vocabulary_texts(vocabulary_files(config.trimming.vocabulary_corpus or ()), config.reading, left_out)
    vocabulary, found = choose_vocabulary(tokenizer, texts, model.config, config.trimming.vocabulary_size)
    report_left_out(left_out, "--vocabulary-corpus")
    facts = report(vocabulary, found, "of the texts, with the vocabulary of the others")
    return vocabulary, facts | {"drops": drops(left_out)}


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str, path: Path) -> list[str]:
    """Write the model, its tokenizer, and the modules that a sentence-transformers model has; return their kinds."""
    try:
        save_model(model, path)
        tokenizer.save_pretrained(path)
        return copy_modules(source, path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} could not be written ({error}); make room there and repeat the command.") from error


def _summary(path: Path, keep: tuple[int, ...], before: ModelShape, after: ModelShape) -> str:
    share = after.parameters / before.parameters
    layers = f"layers {', '.join(map(str, keep))} of {before.num_layers} kept" if keep else "no layer's weights kept"
    return (
        f"{path}: {layers}, "
        f"{after.parameters / 1e6:,.1f} of {before.parameters / 1e6:,.1f} million parameters ({share:.0%})."
    )
