"""`demiglace truncate`: keep some of a model's layers, and some of their units."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.command_options import TruncateConfig
from demiglace.config.options import command, flatten
from demiglace.console import say
from demiglace.data.text.calibration_sample import calibration_rows
from demiglace.data.text.readers import drops, report_left_out
from demiglace.data.text.vocabulary_texts import vocabulary_files, vocabulary_texts
from demiglace.data.tokenize import TokenizedSplit
from demiglace.errors import ConfigError, ModelError, RunError
from demiglace.given_objects import saved_objects
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
from demiglace.models.narrow_student import BY_GRADIENTS, BY_MAGNITUDE, describe_width, student_units, width_facts
from demiglace.models.prune_width import prune_units
from demiglace.models.sentence_modules import copy_modules, module_directory
from demiglace.models.shape import CAUSAL_NAMES, ModelShape
from demiglace.models.trimmed_model import trim_model
from demiglace.models.trimmed_tokenizer import choose_vocabulary, report, trim_tokenizer
from demiglace.models.truncate import ABLATIONS, AUTO, DATA_DRIVEN, Keep, choose_layers, make_student
from demiglace.models.vocabulary import TrimmedVocabulary, check_options
from demiglace.models.width import HIDDEN, flag, narrow_config
from demiglace.runs.directory import Run, open_run, read_manifest
from demiglace.runs.files import fingerprint, write_json
from demiglace.runs.hub import push_to_hub
from demiglace.runs.result import Result


@command(TruncateConfig, objects=saved_objects)
def truncate(config: TruncateConfig) -> Result:
    """Write the truncated model and its tokenizer into the output directory, which is a model directory then.

    Works for classifiers, bare encoders and language models. What a strategy measures on text is printed and kept in
    the manifest. With sizes of the width units are removed too, and with `vocabulary="trim"` tokens; then all layers
    are kept without `layers` and `keep`. Raises `ModelError`, `ConfigError`, `DataError` and `RunError`.
    """
    check_options(config.trimming, corpus_needed=True)
    path = resolve_model(config.model)
    strategy = _strategy(config, path)
    keep = _layers(config, path, strategy)
    _check_width(load_config(path), config.width.sizes, path)
    if config.calibration:
        return _result(_by_text(config, path, strategy, keep), config.push_to_hub)
    run = _open(config, path)
    if not run.complete:
        _finish(run, config, load_as_saved(path, allow_pickle=config.allow_pickle), strategy, keep)
    return _result(run.path, config.push_to_hub)


def _check_width(model: PreTrainedConfig, sizes: Mapping[str, int], path: str) -> None:
    """Raise `ModelError` for sizes that a model cannot have."""
    if not sizes:
        return
    if HIDDEN in sizes and module_directory(path) is not None:
        raise ModelError(
            f"{flag(HIDDEN)} {sizes[HIDDEN]} was given; {path} is a sentence-transformers model, whose embeddings "
            "would have another width: leave the option out."
        )
    narrow_config(model, **sizes)


def _result(path: Path, repository: str | None) -> Result:
    """Return the model's layers and parameters with its directory, which is uploaded to a repository of the hub."""
    push_to_hub(path, repository)
    manifest = read_manifest(path)
    return Result(path, {name: manifest[name] for name in ("keep", "layers", "parameters") if name in manifest})


def _layers(config: TruncateConfig, path: str, strategy: str) -> Keep:
    trims = config.trimming.vocabulary == "trim" and strategy not in (*ABLATIONS, *DATA_DRIVEN)
    every = trims or bool(config.width.sizes)
    return choose_layers(load_config(path), config.layers, strategy, config.keep, all_by_default=every)


def _strategy(config: TruncateConfig, path: str) -> str:
    """Return the strategy. Raises `ConfigError` unless calibration text is given exactly where it is measured on."""
    model = load_config(path)
    causal = (model.architectures or [""])[0].endswith(CAUSAL_NAMES)
    text = bool(config.calibration)
    strategy = strategy_for(
        config.strategy, model, causal=causal, text=text and config.keep is None and config.layers is not None
    )
    measured = " or ".join(DATA_DRIVEN)
    if strategy in DATA_DRIVEN and not text:
        raise ConfigError(f"--strategy {strategy} is measured on text; give some files as --calibration.")
    if config.width.sizes:
        return strategy
    if text and config.keep is not None and strategy not in DATA_DRIVEN:
        raise ConfigError(f"--calibration is text for --strategy {measured}, and --keep names the layers; give one.")
    if text and strategy not in DATA_DRIVEN:
        default = ", the default for this model," if config.strategy == AUTO else ""
        raise ConfigError(f"--calibration is text for --strategy {measured}; {strategy}{default} reads no text.")
    return strategy


def _by_text(config: TruncateConfig, path: str, strategy: str, keep: Keep) -> Path:
    model, tokenizer = load_as_saved(path, allow_pickle=config.allow_pickle), load_tokenizer(path)
    check_tokenizer(model, tokenizer)
    size = min(ROW_TOKENS, ModelShape.of(model).max_positions or ROW_TOKENS)
    sources, tokens = config.calibration or (), config.calibration_tokens
    rows = calibration_rows(sources, config.reading, tokenizer, tokens, size, config.seed)
    run = _open(config, path, calibration=rows.fingerprint)
    if not run.complete:
        found = dict[str, Any]()
        text = f"{len(rows):,} rows of --calibration ({rows.lengths.sum():,} tokens)"
        if strategy in DATA_DRIVEN:
            choice = choose_by_text(model, rows, strategy, config.layers or 0)
            choice.show()
            say(describe_choice(strategy, choice.keep, text))
            keep, found = choice.keep, {"importance": choice.measurements}
        _finish(run, config, model, strategy, keep, rows, **found)
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
    run: Run,
    config: TruncateConfig,
    model: PreTrainedModel,
    strategy: str,
    chosen: Keep,
    rows: TokenizedSplit | None = None,
    **found: Any,
) -> None:
    tokenizer, vocabulary = load_tokenizer(config.model), None
    if config.trimming.vocabulary == "trim":
        check_tokenizer(model, tokenizer)
        vocabulary, found["vocabulary"] = _vocabulary(config, model, tokenizer)
    student = make_student(model, chosen, strategy, config.seed)
    if config.width.sizes:
        student, facts = _narrow(run, config, model, student, chosen, rows)
        found |= facts
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


def _narrow(
    run: Run,
    config: TruncateConfig,
    model: PreTrainedModel,
    student: PreTrainedModel,
    keep: Keep,
    rows: TokenizedSplit | None,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the student of the given sizes, and the manifest's fields; RUN/width.json has all units that are kept."""
    units = student_units(model, student, keep, config.width.sizes, rows)
    pruned = prune_units(student, units)
    measure = BY_MAGNITUDE if rows is None else BY_GRADIENTS
    text = "" if rows is None else f"{len(rows):,} rows of --calibration ({rows.lengths.sum():,} tokens)"
    say(describe_width(student, pruned, measure, text))
    write_json(run.path / "width.json", units)
    return pruned, width_facts(student, pruned, units, measure)


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
