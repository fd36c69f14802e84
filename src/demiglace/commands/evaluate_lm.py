"""`demiglace evaluate --corpus`: evaluate a language model on text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.command_options import EvaluateConfig
from demiglace.config.options import flatten
from demiglace.console import say
from demiglace.data.text.readers import counted, drops, read_texts, report_left_out
from demiglace.data.text.sources import corpus_files
from demiglace.data.text.text_bounds import TextBounds, text_bounds
from demiglace.data.text.token_shards import load_corpus
from demiglace.errors import ConfigError, DataError
from demiglace.evaluation.perplexity import (
    LastWord,
    LogitsModel,
    PerplexityResult,
    last_word,
    last_words,
    perplexity,
)
from demiglace.export.base import Artefact, address_of, format_at
from demiglace.export.exported import export_directory, exported_artefact
from demiglace.models.files import fingerprint_tokenizer, load_config
from demiglace.models.from_config import shape_of_config
from demiglace.models.language_model import load_causal
from demiglace.models.loading import fingerprint_model, resolve_model
from demiglace.models.shape import ModelShape
from demiglace.models.tokenizer import load_text_tokenizer
from demiglace.runs.directory import Run, open_run, remove_leftovers
from demiglace.runs.files import fingerprint
from demiglace.runs.result import Result, ResultTable
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING
from demiglace.training.lm_datasets import block_size

_USUAL_BLOCK = 1024
# metric -> its title in the table; empty: not shown
METRICS = {
    "loss": "",
    "perplexity": "perplexity",
    "word_perplexity": "by word",
    "bits_per_byte": "bits per byte",
    "accuracy": "last words right",
}


def evaluate_lm(config: EvaluateConfig) -> Result:
    """Perplexity on each corpus, and the last words of LAMBADA.

    Returns the run directory: manifest.json with the protocol and the scores of `evaluation.perplexity`, and their
    summands for intervals and paired tests: N-losses.npy and N-tokens.npy of the N-th corpus by window,
    lambada-losses.npy and lambada-right.npy by text.
    """
    if config.data or config.suite or config.teacher:
        raise ConfigError(
            "--corpus and --lambada evaluate a language model; give them without --data, --suite and --teacher."
        )
    exported = exported_artefact(config.model)
    runner = None if exported is None or format_at(address_of(exported.format)).for_transformers else exported
    if runner is None:
        path = resolve_model(config.model if exported is None else _loaded_by_transformers(Path(exported.path)))
        fingerprints = {"model": fingerprint_model(path)}
    else:
        path = str(export_directory(config.model))
        fingerprints = {"model": fingerprint(runner.files), "tokenizer": fingerprint_tokenizer(path)}
    texts = {name: corpus_files([name]) for name in config.corpus}
    inputs = fingerprints | {f"corpus {n}": fingerprint(f) for n, f in texts.items()}
    lambada = corpus_files([config.lambada]) if config.lambada else []
    if lambada:
        inputs["lambada"] = fingerprint(lambada)
    run = open_run(str(config.output), "evaluate", flatten(config, result_options_only=True), inputs)
    if run.complete:
        say(f"{run.path} is up to date.")
        return _run_result(run)
    model, tokenizer, shape = _opened(config, runner, path)
    size, stride = _window(config, shape)
    bounds = text_bounds(tokenizer, config.add_bos)
    words, left_out = _last_words(lambada, config, tokenizer, size, bounds)
    results = _corpora(run, config, texts, model, tokenizer, bounds, size, stride)
    if config.lambada:
        found = last_words(model, words)
        _save(run, "lambada", found)
        name = f"{config.lambada} (last words)" if config.lambada in results else config.lambada
        results[name] = _result(name, found.scores, left_out)
    overlap = "windows that do not overlap" if stride == size else f"windows {stride} tokens apart"
    protocol = f"{overlap}, {size} tokens each; every token predicted once, in fp32; {bounds.describe()}"
    run.finish(
        task="language modelling",
        problem=LANGUAGE_MODELLING.name,
        protocol=protocol,
        add_bos=bounds.begin is not None,
        sets=results,
    )
    remove_leftovers(run.path)
    return _run_result(run)


def _run_result(run: Run) -> Result:
    results, protocol = run.manifest["sets"], run.manifest["protocol"]
    return Result(run.path, {name: r["metrics"] for name, r in results.items()}, (_table(results, protocol),))


def _opened(
    config: EvaluateConfig, runner: Artefact | None, path: str
) -> tuple[PreTrainedModel | LogitsModel, PreTrainedTokenizerBase, ModelShape]:
    """Return the model at a path, or an exported model that runs outside of it; its tokenizer and shape."""
    if runner is None:
        model, tokenizer = load_causal(path, config.allow_pickle)
        return model, tokenizer, ModelShape.of(model)
    return (
        runner.open(torch.get_num_threads()),
        load_text_tokenizer(path),
        shape_of_config(load_config(path), language=True),
    )


def _loaded_by_transformers(file: Path) -> Path:
    """Return what transformers opens for a file of an export: a GGUF file, or the directory of safetensors."""
    return file.parent if file.suffix == ".safetensors" else file


def _window(config: EvaluateConfig, shape: ModelShape) -> tuple[int, int]:
    size = block_size(config.block_size, [shape], _USUAL_BLOCK)
    stride = config.stride or size
    if stride > size:
        raise ConfigError(
            f"--stride {stride} is longer than the window of {size} tokens; some would be skipped. Give at most {size}."
        )
    return size, stride


def _corpora(
    run: Run,
    config: EvaluateConfig,
    texts: Mapping[str, list[str]],
    model: PreTrainedModel | LogitsModel,
    tokenizer: PreTrainedTokenizerBase,
    bounds: TextBounds,
    size: int,
    stride: int,
) -> dict[str, dict[str, Any]]:
    results = {}
    for number, (name, files) in enumerate(texts.items(), 1):
        corpus = load_corpus(run.path / "tokens", files, tokenizer, config.reading)
        found = perplexity(model, corpus, bounds, size, stride, Path(name).name)
        _save(run, str(number), found)
        results[name] = _result(name, found.scores, corpus.left_out)
    return results


def _save(run: Run, stem: str, found: PerplexityResult) -> None:
    for name, values in found.parts.items():
        np.save(run.path / f"{stem}-{name}.npy", values)


def _result(text: str, scores: Mapping[str, float], left_out: Mapping[str, int]) -> dict[str, Any]:
    """Return the scores as metrics, and what was left out of the text, which is also printed."""
    report_left_out(left_out, text)
    metrics = {name: scores[name] for name in METRICS if name in scores}
    result = {"rows": scores.get("documents", scores.get("texts")), "metrics": metrics} | {
        name: value for name, value in scores.items() if name not in metrics
    }
    return result | ({"left_out": drops(left_out)} if drops(left_out) else {})


def _last_words(
    files: Sequence[str], config: EvaluateConfig, tokenizer: PreTrainedTokenizerBase, size: int, bounds: TextBounds
) -> tuple[list[LastWord], Counter[str]]:
    """Return the texts of --lambada, and the documents left out by reason. Raises `DataError` for a bad text."""
    left_out: Counter[str] = Counter()
    try:
        words = [last_word(tokenizer, text, size, bounds.begin) for text in read_texts(files, config.reading, left_out)]
    except DataError as error:
        raise DataError(f"--lambada {config.lambada}: {error}") from error
    if files and not words:
        reasons = counted(left_out) or "no document"
        raise DataError(f"--lambada {config.lambada} holds no text ({reasons}); look at --text-key and --unit.")
    return words, left_out


def _table(results: Mapping[str, Mapping[str, Any]], protocol: str) -> ResultTable:
    flat = {name: result | result["metrics"] for name, result in results.items()}
    columns = METRICS | {"tokens_per_second": "tokens/s"}
    used = {key: title for key, title in columns.items() if title and any(key in r for r in flat.values())}
    rows = [
        (name, f"{r.get('tokens', r.get('texts')):,}", *(_shown(key, r.get(key)) for key in used))
        for name, r in flat.items()
    ]
    return ResultTable(f"Evaluation: {protocol}", ("text", "tokens (texts)", *used.values()), tuple(rows))


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    forms = {"accuracy": "{:.2%}", "tokens_per_second": "{:,.0f}", "bits_per_byte": "{:.4f}"}
    return forms.get(key, "{:,.2f}").format(value)
