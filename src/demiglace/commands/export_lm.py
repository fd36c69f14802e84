"""`demiglace export` of a causal language model: write it, compare its next tokens with PyTorch's, and time it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.cleaning.references import fingerprint_texts
from demiglace.config.command_options import ExportConfig
from demiglace.config.data import DataConfig
from demiglace.config.options import flatten
from demiglace.console import say
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.text.readers import read_texts
from demiglace.data.text.sources import corpus_files
from demiglace.errors import ConfigError, DataError, ModelError
from demiglace.export.base import Artefact, Exporter, Inputs, Runner, address_of, format_at, title_of
from demiglace.export.decoding import Decoder, Load, generate_greedily
from demiglace.export.measure import DecodingMeasurement, measure_decoding
from demiglace.export.parity import (
    Continuations,
    TokenParity,
    assert_continuations,
    assert_token_parity,
    compare_continuations,
    compare_tokens,
)
from demiglace.export.pytorch import TorchDecoder, TorchRunner, checkpoint
from demiglace.models.files import load_config
from demiglace.models.language_model import is_masked, load_causal
from demiglace.models.loading import fingerprint_model, resolve_model
from demiglace.models.shape import ModelShape
from demiglace.report.model_card import write_card
from demiglace.runs.artefacts import EXPORT, ORIGINAL
from demiglace.runs.directory import Run, open_run
from demiglace.runs.result import Result, ResultTable
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING

_TOKENS = 64  # of each text
_CONTINUED = 20  # texts that are continued with the KV cache
_CONTEXT, _CONTINUATION = 16, 16  # tokens that are read and written of each
_PROMPT_TOKENS, _NEW_TOKENS = 128, 32  # of a round of the measurement, where the model has so many positions
_ROUNDS_PER_REPEAT = 0.05  # a round takes about a hundred times as long as a call of a classifier
_WARN_BELOW = 0.9  # same next tokens of a quantised model


def export_lm(config: ExportConfig, exporter: Exporter, precisions: Sequence[str]) -> Result:
    """Write a causal language model in each precision, and compare every file's next tokens with the model's.

    The texts are those of --corpus, else rows of Banking77, which come with the package: the check is about the file,
    not about the text. The manifest has for each file its bytes, the share of tokens after which it predicts the same
    next token, the mean KL divergence from the model in nats, the tokens per second of prefill and decoding, and the
    peak memory. Raises `ModelError` for a masked language model, and `UserError` if the first precision does not
    reproduce the model.
    """
    exporter.require_support(LANGUAGE_MODELLING)
    if config.data or config.teacher:
        raise ConfigError("--data and --teacher are for classifiers; give --corpus for the export of a language model.")
    path = resolve_model(config.model)
    if is_masked(load_config(path)):
        raise ModelError(f"{config.model} is a masked language model; {exporter.title} is for models that write text.")
    texts = _texts(config)
    inputs = {"model": fingerprint_model(path), "texts": fingerprint_texts(texts)}
    run = open_run(config.output, "export", flatten(config, result_options_only=True), inputs)
    if run.complete:
        say(f"{run.path} is up to date.")
        return _result(run)
    model, tokenizer = load_causal(path, config.allow_pickle)
    model.cpu()
    batches = _batches(texts, model, tokenizer)
    reference = _logits(TorchRunner(model), batches)
    target = exporter.model_directory(run.path)
    tokenizer.save_pretrained(target)
    model.config.save_pretrained(target)
    parameters = ModelShape.of(model).parameters
    continued = _continuations(TorchDecoder(model), model, batches)
    load = _load(config, model, batches)
    entries = [_entry(run.path, ORIGINAL, checkpoint(path, config.allow_pickle), parameters, None, None, load)]
    full = None
    for precision in precisions:
        say(f"writing {exporter.title} {precision} …")
        artefact = exporter.write(model, tokenizer, LANGUAGE_MODELLING, run.path, precision, full)
        full = full or artefact
        parity = compare_tokens(reference, _logits(artefact.open(torch.get_num_threads()), batches))
        decoder = artefact.open_decoder(torch.get_num_threads())
        same_texts = None
        if decoder is not None:
            same_texts = compare_continuations(continued, _continuations(decoder, model, batches))
        if artefact is full:
            assert_token_parity(parity, artefact.path)
            if same_texts:
                assert_continuations(same_texts, artefact.path)
        elif parity.agreement < _WARN_BELOW:
            say(
                f"warning: the {precision} model predicts the model's next token after only {parity.agreement:.1%} of "
                f"{parity.tokens:,} tokens; evaluate it before you use it."
            )
        entries.append(_entry(run.path, EXPORT, artefact, parameters, parity, same_texts, load))
    tokens = sum(batch["input_ids"].size for batch in batches)
    size: dict[str, Any] = {"rows": len(texts), "tokens": tokens, "threads": config.threads}
    size |= {"prompt_tokens": len(load.prompt), "new_tokens": load.new_tokens, "problem": LANGUAGE_MODELLING.name}
    card = partial(write_card, target, config.model)
    run.finish(lambda manifest: card(exported=manifest), artefacts=entries, **size)
    return _result(run)


def _texts(config: ExportConfig) -> list[str]:
    """Return the texts of the check."""
    if not config.corpus:
        rows = load_dataset(DataConfig(data="banking77"), config.location).splits["test"]
        return list(rows.texts[: config.rows])
    files = corpus_files(list(config.corpus))
    found = [text for text, _ in zip(read_texts(files, config.reading, Counter()), range(config.rows), strict=False)]
    if not found:
        raise DataError(f"{', '.join(config.corpus)} holds no text to check the exported model on; give other files.")
    return found


def _batches(texts: Sequence[str], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[Inputs]:
    """Return the first tokens of each text as a batch of one row, since decoders run so on a device."""
    limit = min(_TOKENS, ModelShape.of(model).max_positions or _TOKENS)
    ids = [tokenizer(text).input_ids[:limit] for text in texts]
    return [{"input_ids": np.array([row], dtype=np.int64)} for row in ids if row]


def _logits(runner: Runner, batches: Sequence[Inputs]) -> list[np.ndarray]:
    return [runner.logits(batch) for batch in batches]


def _continuations(decoder: Decoder, model: PreTrainedModel, batches: Sequence[Inputs]) -> list[list[int]]:
    """Return the greedy continuations of the first texts."""
    limit = ModelShape.of(model).max_positions or _CONTEXT + _CONTINUATION
    context = min(_CONTEXT, limit // 2)
    prompts = [batch["input_ids"][0, :context].tolist() for batch in batches[:_CONTINUED]]
    return [generate_greedily(decoder, prompt, min(_CONTINUATION, limit - context)) for prompt in prompts]


def _load(config: ExportConfig, model: PreTrainedModel, batches: Sequence[Inputs]) -> Load:
    """Return the work of the speed measurement: its prompt are the first tokens of all texts in a row."""
    ids = np.concatenate([batch["input_ids"][0] for batch in batches])
    limit = ModelShape.of(model).max_positions or _PROMPT_TOKENS + _NEW_TOKENS
    new_tokens = min(_NEW_TOKENS, limit // 2)
    prompt = np.resize(ids, min(_PROMPT_TOKENS, limit - new_tokens))
    return Load(tuple(prompt.tolist()), new_tokens, max(1, round(_ROUNDS_PER_REPEAT * config.repeats)), config.threads)


def _entry(
    directory: Path,
    role: str,
    artefact: Artefact,
    parameters: int,
    parity: TokenParity | None,
    same_texts: Continuations | None,
    load: Load,
) -> dict[str, Any]:
    """Measure an artefact and return its entry of the manifest; `runs.artefacts` reads it."""
    title = title_of(artefact.format)
    name = title if role == ORIGINAL else f"{title} {artefact.precision}"
    measured = _measured(artefact, name, load)
    return {
        "name": name,
        "format": artefact.format,
        "precision": artefact.precision,
        "role": role,
        "file": artefact.path,
        "files": artefact.names_in(directory),
        "bytes": artefact.size or 4 * parameters,
        "parameters": parameters,
        "label_agreement": parity and parity.agreement,
        "largest_logit_difference": parity and parity.largest_logit_difference,
        "kl_divergence": parity and parity.kl_divergence,
        "continuations": same_texts and asdict(same_texts),
        "tokens_per_second": measured and {"prefill": measured.speed.prefill, "decode": measured.speed.decode},
        "peak_memory_mb": measured and measured.peak_memory_mb,
    } | dict(artefact.settings)


def _measured(artefact: Artefact, name: str, load: Load) -> DecodingMeasurement | None:
    """Return the speed and memory of an artefact; None, with a line that says why, where they cannot be measured."""
    if reason := format_at(address_of(artefact.format)).cannot_time():
        say(f"{name}: {reason}")
        return None
    say(f"measuring {name} …")
    return measure_decoding(artefact, load)


def _result(run: Run) -> Result:
    found = run.manifest
    metrics = {a["name"]: {k: v for k, v in a.items() if k != "name"} for a in found["artefacts"]}
    rows = [
        (
            a["name"],
            f"{a['bytes'] / 1e6:,.1f}",
            *_parity_cells(a),
            *_speed_cells(a),
        )
        for a in found["artefacts"]
    ]
    threads = found["threads"]
    title = (
        f"Export: compared on {found['tokens']:,} tokens of {found['rows']:,} texts; speed with one text, a prompt of "
        f"{found['prompt_tokens']} tokens, {found['new_tokens']} new ones and {threads} thread{'s' * (threads > 1)}"
    )
    parity = ("same next\ntoken", "same\ncontinuation", "KL from the model\nnats per token", "largest\nlogit diff.")
    speed = ("prefill\ntokens/s", "decode\ntokens/s", "peak\nmemory\nMB")
    return Result(run.path, metrics, (ResultTable(title, ("", "file\nMB", *parity, *speed), tuple(rows)),))


def _parity_cells(entry: dict[str, Any]) -> list[str]:
    if entry["kl_divergence"] is None:
        return ["–"] * 4
    texts, difference = entry["continuations"], entry["largest_logit_difference"]
    same = "–" if texts is None else f"{texts['same']} of {texts['count']}"
    divergence = max(0.0, entry["kl_divergence"])  # rounding may give −1e-9
    return [f"{entry['label_agreement']:.1%}", same, f"{divergence:.4f}", f"{difference:.2g}"]


def _speed_cells(entry: dict[str, Any]) -> list[str]:
    if (speed := entry["tokens_per_second"]) is None:
        return ["–"] * 3
    return [f"{speed['prefill']:,.0f}", f"{speed['decode']:,.1f}", f"{entry['peak_memory_mb']:,.0f}"]
