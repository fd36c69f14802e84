"""`demiglace evaluate`: one model, several sets of rows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config import command, flatten
from demiglace.console import console, say, table
from demiglace.data.evaluation_sets import EvaluationSet, load_set
from demiglace.data.label_maps import is_generic, normal
from demiglace.data.rows import LabelSpace
from demiglace.data.tokenise import tokenise
from demiglace.errors import DataError, ModelError
from demiglace.evaluation.metrics import METRICS, agreement, compute
from demiglace.evaluation.predict import check_lengths, predict
from demiglace.manifest import open_run, write_atomically
from demiglace.models.labels import describe, label_names_of_config
from demiglace.models.loading import (
    check_tokenizer,
    fingerprint_model,
    load_classifier,
    load_config,
    load_tokenizer,
    resolve_model,
)
from demiglace.stages.config import EvaluateConfig


@dataclass(frozen=True)
class _Loaded:
    """A model that predicts, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@command(EvaluateConfig)
def evaluate(config: EvaluateConfig) -> Path:
    """Measure a model on each set; with a teacher also how often the two agree.

    Returns the run directory: manifest.json with the metrics, and for each set SET.npy with the model's logits, float32
    [N, C], and SET.labels.npy. Raises `UserError`s before anything is predicted.
    """
    path = resolve_model(config.model)
    labels = label_space_of(path)
    sets = _load_sets(config, labels)
    inputs = {"model": fingerprint_model(path)} | {f"data {s.name}": s.fingerprint for s in sets}
    if config.teacher is not None:
        _check_labels(labels, label_space_of(config.teacher), config.teacher)
        inputs["teacher"] = fingerprint_model(resolve_model(config.teacher))
    run = open_run(config.output, "evaluate", flatten(config, deciding_only=True), inputs)
    if run.complete:
        say(f"{run.path} is up to date.")
        return run.path
    logits = _predict(config, config.model, sets, "")
    taught = {} if config.teacher is None else _predict(config, config.teacher, sets, "teacher: ")
    results = {s.name: _measure(s, logits[s.name], taught.get(s.name), labels) for s in sets}
    _save(run.path, sets, logits)
    run.finish(task=sets[0].name, sets=results)
    console.print(results_table(results))
    return run.path


def label_space_of(model: str) -> LabelSpace:
    """What the outputs of a model mean, from its config alone."""
    names = label_names_of_config(load_config(resolve_model(model)))
    return LabelSpace("classification", names) if names else LabelSpace("regression")


def _load_sets(config: EvaluateConfig, labels: LabelSpace) -> list[EvaluationSet]:
    sets = [
        load_set(
            spec,
            labels,
            config.location,
            label_map=config.label_map,
            text_columns=config.text_columns,
            label_column=config.label_column,
            on_bad_rows=config.on_bad_rows,
        )
        for spec in dict.fromkeys(config.data)
    ]
    for found in sets:
        if not len(found.split):
            raise DataError(f"{found.name} has no row left to measure; look at --label-map and --on-bad-rows.")
    return sets


def _check_labels(model: LabelSpace, teacher: LabelSpace, name: str) -> None:
    """Agreement compares class ids, so both models must mean the same by them (or one of them does not say)."""
    same = list(map(normal, model.names)) == list(map(normal, teacher.names))
    unnamed = len(model.names) == len(teacher.names) and (is_generic(model.names) or is_generic(teacher.names))
    if not same and not unnamed:
        raise ModelError(
            f"--teacher {name} has other labels than the model: {describe(teacher.names)} there, "
            f"{describe(model.names)} here; give a teacher of the same labels in the same order."
        )


def _predict(config: EvaluateConfig, name: str, sets: Sequence[EvaluationSet], note: str) -> dict[str, np.ndarray]:
    """Logits float32 [N, C] by set. In fp32 always: the numbers of a model must not depend on the machine."""
    loaded = _load(name, config.allow_pickle)
    logits = {}
    for found in sets:
        examples = tokenise(found.split, loaded.tokenizer, config.max_length)
        check_lengths(loaded.model, examples)
        described = note + found.name
        logits[found.name] = predict(loaded.model, examples, batch_tokens=config.batch_tokens, describe=described)
    return logits


def _load(name: str, allow_pickle: bool) -> _Loaded:
    tokenizer = load_tokenizer(name)
    model = load_classifier(name, None, allow_pickle=allow_pickle)
    check_tokenizer(model, tokenizer)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type] # its decorator
    return _Loaded(model, tokenizer)


def _measure(found: EvaluationSet, logits: np.ndarray, taught: np.ndarray | None, labels: LabelSpace) -> dict[str, Any]:
    result: dict[str, Any] = {
        "metrics": compute(found.metrics, found.split.labels, logits, labels.problem, found.class_map),
        "rows": len(found.split),
        "drops": dict(found.drops),
    }
    if taught is not None:
        result["agreement"] = agreement(logits, taught, labels.problem)
    return result


def _save(directory: Path, sets: Sequence[EvaluationSet], logits: Mapping[str, np.ndarray]) -> None:
    for found in sets:
        file = file_name(found.name)
        write_atomically(directory / f"{file}.npy", _npy(logits[found.name]))
        write_atomically(directory / f"{file}.labels.npy", _npy(found.split.labels))


def _npy(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def file_name(set_name: str) -> str:
    """The name of a set as a file name: ``mnli:validation`` gives ``mnli-validation``."""
    return re.sub(r"[^\w.-]+", "-", set_name).strip("-.")


def results_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each set, a column for each metric that any of them has."""
    names = [n for n in METRICS if any(n in r["metrics"] for r in results.values())]
    taught = any("agreement" in r for r in results.values())
    columns = ["set", "rows", *(METRICS[n].title for n in names), *(["agreement with the teacher"] if taught else [])]
    rows = [
        [
            name,
            f"{r['rows']:,}",
            *(f"{r['metrics'][n]:.4f}" if n in r["metrics"] else "–" for n in names),
            *([f"{r['agreement']:.4f}" if "agreement" in r else "–"] if taught else []),
        ]
        for name, r in results.items()
    ]
    return table("Evaluation", columns, rows)
