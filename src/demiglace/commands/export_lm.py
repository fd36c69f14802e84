"""`demiglace export` of a causal language model: write it, and compare its next tokens with PyTorch's."""

from collections import Counter
from collections.abc import Sequence
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
from demiglace.export.base import Artefact, Exporter, Inputs, title_of
from demiglace.export.parity import TokenParity, assert_token_parity, compare_tokens
from demiglace.export.pytorch import TorchRunner, checkpoint
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
_WARN_BELOW = 0.9  # same next tokens of a quantised model


def export_lm(config: ExportConfig, exporter: Exporter, precisions: Sequence[str]) -> Result:
    """Write a causal language model in each precision, and compare every file's next tokens with the model's.

    The texts are those of --corpus, else rows of Banking77, which come with the package: the check is about the file,
    not about the text. The manifest has for each file its bytes, the share of tokens after which it predicts the same
    next token, and the mean KL divergence from the model in nats. Raises `ModelError` for a masked language model, and
    `UserError` if the first precision does not reproduce the model.
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
    reference = [TorchRunner(model).logits(batch) for batch in batches]
    tokenizer.save_pretrained(run.path)
    model.config.save_pretrained(run.path)
    parameters = ModelShape.of(model).parameters
    entries = [_entry(run.path, ORIGINAL, checkpoint(path, config.allow_pickle), parameters, None)]
    for precision in precisions:
        say(f"writing {exporter.title} {precision} …")
        artefact = exporter.write(model, tokenizer, LANGUAGE_MODELLING, run.path, precision)
        runner = artefact.open(torch.get_num_threads())
        parity = compare_tokens(reference, [runner.logits(batch) for batch in batches])
        if precision == exporter.precisions[0]:
            assert_token_parity(parity, artefact.path)
        elif parity.agreement < _WARN_BELOW:
            say(
                f"warning: the {precision} model predicts the model's next token after only {parity.agreement:.1%} of "
                f"{parity.tokens:,} tokens; evaluate it before you use it."
            )
        entries.append(_entry(run.path, EXPORT, artefact, parameters, parity))
    tokens = sum(batch["input_ids"].size for batch in batches)
    run.finish(problem=LANGUAGE_MODELLING.name, artefacts=entries, rows=len(texts), tokens=tokens)
    write_card(run.path, config.model, export=run.path)
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


def _entry(
    directory: Path, role: str, artefact: Artefact, parameters: int, parity: TokenParity | None
) -> dict[str, Any]:
    """Return the entry of the manifest; `runs.artefacts` reads it."""
    title = title_of(artefact.format)
    return {
        "name": title if role == ORIGINAL else f"{title} {artefact.precision}",
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
    } | dict(artefact.settings)


def _result(run: Run) -> Result:
    found = run.manifest
    metrics = {a["name"]: {k: v for k, v in a.items() if k != "name"} for a in found["artefacts"]}
    rows = [
        (
            a["name"],
            f"{a['bytes'] / 1e6:,.1f}",
            *(["–"] * 3 if a["kl_divergence"] is None else _parity_cells(a)),
        )
        for a in found["artefacts"]
    ]
    title = f"Export: compared on {found['tokens']:,} tokens of {found['rows']:,} texts, one text at a time"
    columns = ("", "file\nMB", "same next\ntoken", "KL from the model\nnats per token", "largest\nlogit diff.")
    return Result(run.path, metrics, (ResultTable(title, columns, tuple(rows)),))


def _parity_cells(entry: dict[str, Any]) -> list[str]:
    difference = entry["largest_logit_difference"]
    return [f"{entry['label_agreement']:.1%}", f"{entry['kl_divergence']:.4f}", f"{difference:.2g}"]
