"""`demiglace export`: a model for edge devices, checked against the original and measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.commands.evaluate import label_space_of
from demiglace.config.commands import ExportConfig
from demiglace.config.data import DataConfig
from demiglace.config.options import build, command, flatten, options_of
from demiglace.console import say
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.rows.evaluation_sets import texts_of
from demiglace.data.rows.sampling import draw, select_rows
from demiglace.data.rows.schema import Problem, Split
from demiglace.data.tokenise import TokenizedSplit, tokenise
from demiglace.errors import ConfigError
from demiglace.evaluation.predict import check_lengths
from demiglace.export.measure import BATCH_SIZES, measure, size_of
from demiglace.export.onnx import OPSET, export_onnx, needs_reduced_range, quantize_int8, require_onnx
from demiglace.export.parity import Parity, assert_parity, compare, logits_of, numpy_batches
from demiglace.export.runners import open_runner, torch_runner
from demiglace.models.loading import (
    check_tokenizer,
    fingerprint_model,
    load_classifier,
    load_tokenizer,
    resolve_model,
)
from demiglace.models.shape import ModelShape
from demiglace.report.model_card import write_card
from demiglace.runs.directory import Run, open_run, read_manifest
from demiglace.runs.result import Result, ResultTable

_WORTH_A_WARNING = 0.95  # label agreement of an int8 model with its original
_SAME = Parity(1.0, 0.0, 0)


@dataclass(frozen=True)
class _Original:
    """The PyTorch model to export. reference: its logits on the rows of the check, float32 [N, C]."""

    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    problem: Problem
    examples: TokenizedSplit
    reference: np.ndarray


@command(ExportConfig)
def export(config: ExportConfig) -> Result:
    """Write ONNX (fp32 and, if asked for, int8) with config and tokenizer; check and measure every artefact.

    Returns the run directory. Raises `UserError` if a library is missing or the ONNX model does not say what the
    PyTorch model says: the directory is then not complete.
    """
    require_onnx()
    path = resolve_model(config.model)
    tokenizer = load_tokenizer(path)
    rows = _rows(config)
    examples = tokenise(rows, tokenizer, config.max_length)
    inputs = {"model": fingerprint_model(path), "rows": examples.fingerprint}
    if config.teacher is not None:
        inputs["teacher"] = fingerprint_model(resolve_model(config.teacher))
    run = open_run(config.output, "export", flatten(config, result_options_only=True), inputs)
    if run.complete:
        if not (run.path / "README.md").exists():  # killed just before it
            write_card(run.path, config.model, export=run.path)
        say(f"{run.path} is up to date.")
        return _result(run)
    original = _load(config, path, tokenizer, examples)
    tokenizer.save_pretrained(run.path)
    original.model.config.save_pretrained(run.path)
    artefacts = list(_artefacts(config, run.path, original, rows))
    run.finish(artefacts=artefacts, rows=len(rows), opset=OPSET, threads=config.threads)
    write_card(run.path, config.model, export=run.path)
    return _result(run)


def _result(run: Run) -> Result:
    """Return the measurements of each artefact by its name, with the run directory."""
    found = run.manifest
    drawn = artefact_table(found["artefacts"], found["rows"], found["threads"])
    return Result(
        run.path, {a["name"]: {k: v for k, v in a.items() if k != "name"} for a in found["artefacts"]}, (drawn,)
    )


def _rows(config: ExportConfig) -> Split:
    """The rows of the check: drawn from `--data`, or from the validation rows of the run that made the model."""
    if config.data is not None:
        split = texts_of(config.data, config.location)
    else:
        split = load_dataset(_data_of_run(config), config.location).splits["validation"]
    return select_rows(split, draw(len(split), config.rows))


def _data_of_run(config: ExportConfig) -> DataConfig:
    directory = Path(config.model)
    trained = read_manifest(directory)["config"] if (directory / "manifest.json").exists() else {}
    if "data" not in trained:
        raise ConfigError(
            f"{config.model} does not say what rows it was trained on; give --data TASK or FILE with rows of the kind "
            "that the model is for, to check and measure the export on."
        )
    return build(DataConfig, {o.name: trained[o.name] for o in options_of(DataConfig) if o.name in trained})


def _load(config: ExportConfig, path: str, tokenizer: PreTrainedTokenizerBase, examples: TokenizedSplit) -> _Original:
    model = load_classifier(path, None, attention="eager", allow_pickle=config.allow_pickle)
    check_tokenizer(model, tokenizer)
    check_lengths(model, examples)
    reference = logits_of(torch_runner(model), numpy_batches(examples, BATCH_SIZES[-1]), len(examples))
    return _Original(path, model, tokenizer, label_space_of(path).problem, examples, reference)


def _artefacts(config: ExportConfig, directory: Path, original: _Original, rows: Split) -> Iterator[dict[str, Any]]:
    """Write, check and measure one artefact after the other."""
    full, small = directory / "model.onnx", directory / "model.int8.onnx"
    say("writing ONNX …")
    export_onnx(original.model, original.tokenizer, full)
    parity = _parity(original, full)
    assert_parity(parity, str(full))
    if config.teacher is not None:
        yield _teacher(config, config.teacher, rows)
    parameters = ModelShape.of(original.model).parameters
    yield _measured(config, "PyTorch", original.path, parameters, original.examples, _SAME)
    yield _measured(config, "ONNX fp32", str(full), parameters, original.examples, parity)
    if config.quantize == "int8":
        reduced = needs_reduced_range()
        quantize_int8(full, small, reduce_range=reduced)
        parity = _parity(original, small)
        _warn(parity)
        found = _measured(config, "ONNX int8", str(small), parameters, original.examples, parity)
        yield found | {"reduce_range": reduced}


def _parity(original: _Original, file: Path) -> Parity:
    batches = numpy_batches(original.examples, BATCH_SIZES[-1])
    candidate = logits_of(open_runner(str(file)), batches, len(original.examples))
    return compare(original.reference, candidate, original.problem)


def _teacher(config: ExportConfig, name: str, rows: Split) -> dict[str, Any]:
    path = resolve_model(name)
    model = load_classifier(path, None, allow_pickle=config.allow_pickle)
    examples = tokenise(rows, load_tokenizer(path), config.max_length)
    check_lengths(model, examples)
    return _measured(config, "PyTorch teacher", path, ModelShape.of(model).parameters, examples, None)


def _measured(
    config: ExportConfig, name: str, file: str, parameters: int, examples: TokenizedSplit, parity: Parity | None
) -> dict[str, Any]:
    say(f"measuring {name} …")
    batches = {size: numpy_batches(examples, size) for size in BATCH_SIZES}
    found = measure(file, batches, threads=config.threads, repeats=config.repeats, allow_pickle=config.allow_pickle)
    return {
        "name": name,
        "file": file,
        "bytes": size_of(file, parameters),
        "parameters": parameters,
        "latency_ms": found.latency_ms,
        "peak_memory_mb": found.peak_memory_mb,
        "label_agreement": parity and parity.label_agreement,
        "largest_logit_difference": parity and parity.largest_logit_difference,
    }


def _warn(parity: Parity) -> None:
    if parity.label_agreement < _WORTH_A_WARNING:
        say(
            f"warning: the int8 model gives the same label as the original for only {parity.label_agreement:.1%} of "
            f"{parity.rows} rows; evaluate it before you use it."
        )


def artefact_table(artefacts: Sequence[dict[str, Any]], rows: int, threads: int) -> ResultTable:
    """Sizes, latencies (p50 / p95 of a call) and parity of all artefacts."""
    columns = ["", "file\nMB", "peak\nmemory\nMB"]
    columns += [f"batch {size}\np50/p95\nms" for size in BATCH_SIZES]
    columns += ["same\nlabel", "largest\nlogit\ndiff."]
    shown = []
    for a in artefacts:
        times = [a["latency_ms"][str(size)] for size in BATCH_SIZES]
        parity = a["label_agreement"], a["largest_logit_difference"]
        shown.append(
            (
                a["name"],
                f"{a['bytes'] / 1e6:,.1f}",
                f"{a['peak_memory_mb']:,.0f}",
                *(f"{t['p50']:.3g}/{t['p95']:.3g}" for t in times),
                *(["–", "–"] if parity[0] is None else [f"{parity[0]:.1%}", f"{parity[1]:.2g}"]),
            )
        )
    title = f"Export: on {rows} real rows, {threads} thread{'' if threads == 1 else 's'}"
    return ResultTable(title, tuple(columns), tuple(shown))
