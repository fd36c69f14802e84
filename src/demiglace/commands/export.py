"""`demiglace export`: write a model for edge devices, check it against the original and measure it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.commands.export_lm import export_lm
from demiglace.config.command_options import ExportConfig
from demiglace.config.data import DataConfig
from demiglace.config.options import build, command, flatten, options_of
from demiglace.console import say
from demiglace.data.lengths import report_cut
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.rows.evaluation_sets import EvaluationSet, load_set, sample_rows, set_of_split, texts_of
from demiglace.data.rows.sampling import draw, select_rows
from demiglace.data.rows.schema import LabelSpace, Split
from demiglace.data.rows.units import outputs_of_rows, units_of
from demiglace.data.tokenize import TokenizedSplit, select, tokenize
from demiglace.errors import ConfigError, DataError
from demiglace.evaluation.predict import check_lengths
from demiglace.evaluation.scores import compute
from demiglace.export.base import PYTORCH, Artefact, Exporter, exporter_for, title_of
from demiglace.export.measure import BATCH_SIZES, measure
from demiglace.export.parity import (
    CHECK_BATCH,
    PADDED_BATCH,
    Parity,
    assert_parity,
    compare,
    numpy_batches,
    predict_with,
)
from demiglace.export.pytorch import TorchRunner, checkpoint
from demiglace.given_objects import saved_objects
from demiglace.models.files import load_config
from demiglace.models.labels import label_space_of
from demiglace.models.language_model import is_language_model
from demiglace.models.loading import (
    check_tokenizer,
    fingerprint_model,
    load_classifier,
    load_tokenizer,
    resolve_model,
)
from demiglace.models.max_length import max_length_of
from demiglace.models.sentence_modules import longest_text
from demiglace.models.shape import ModelShape
from demiglace.report.format import score
from demiglace.report.model_card import write_card
from demiglace.results.metric_table import metric_of
from demiglace.runs.artefacts import EXPORT, ORIGINAL, TEACHER
from demiglace.runs.directory import Run, open_run, read_manifest
from demiglace.runs.hub import push_to_hub
from demiglace.runs.result import Result, ResultTable

_WARN_BELOW = 0.95  # label agreement of a quantised model with its original
_IDENTICAL = Parity(1.0, 0.0, 0)


@dataclass(frozen=True)
class _Original:
    """The PyTorch model to export, and the rows of the parity check."""

    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: LabelSpace
    examples: TokenizedSplit
    reference: np.ndarray  # the model's logits on the rows, float32 [N, C]
    scored: EvaluationSet | None  # labelled rows on which every exported file is scored
    scored_examples: TokenizedSplit | None


@command(ExportConfig, objects=saved_objects)
def export(config: ExportConfig) -> Result:
    """Write a model in the format of `to` with config and tokenizer, and check and measure every file.

    Return the run directory. Raises `UserError` before any work if a package of the format is missing or the format
    cannot hold the model's task, and later if the exported model does not reproduce the PyTorch model: the directory is
    then not complete.
    """
    exporter = _exporter(config)
    path = resolve_model(config.model)
    if is_language_model(load_config(path)):
        exporter = _exporter(config, language_model=True)
        exporter.require_packages()
        return export_lm(config, exporter, _precisions(config, exporter))
    precisions = _precisions(config, exporter)
    exporter.require_packages()
    labels = label_space_of(path)
    exporter.require_support(labels.task)
    tokenizer = load_tokenizer(path)
    rows, scored = _rows(config, labels)
    identity, chosen = flatten(config, result_options_only=True), dict[str, str]()
    if config.max_length is None:
        config = replace(config, max_length=max_length_of(config.model, path))
        chosen["max_length"] = str(config.max_length)
    rows, longest = units_of(rows, labels.task), longest_text(path, config.max_length)
    examples = tokenize(rows, tokenizer, longest)
    if longest is not None:
        report_cut({"check": rows}, {"check": examples}, tokenizer, longest)
    inputs = {"model": fingerprint_model(path), "rows": examples.fingerprint, **chosen}
    if scored is not None:
        inputs["scored rows"] = scored.fingerprint
    if config.teacher is not None:
        inputs["teacher"] = fingerprint_model(resolve_model(config.teacher))
    run, target = open_run(config.output, "export", identity, inputs), exporter.model_directory(config.output)
    if run.complete:
        if not (target / "README.md").exists():  # an earlier version wrote the manifest first
            write_card(target, config.model, exported=run.manifest)
        say(f"{run.path} is up to date.")
        return _result(run, exporter, config.push_to_hub)
    original = _load(config, path, tokenizer, labels, examples, scored, longest)
    tokenizer.save_pretrained(target)
    original.model.config.save_pretrained(target)
    exporter = exporter.with_rows(numpy_batches(examples, 1), longest)
    artefacts = list(_artefacts(config, exporter, precisions, run.path, original, rows))
    scores = {} if scored is None else {"scored_on": {"set": scored.name, "rows": len(scored.split)}}
    kind = {"problem": labels.task.name, "labels": list(labels.names), "decision_rule": labels.task.decision_rule()}
    kind["model_type"] = original.model.config.model_type
    size = {"rows": len(rows), "threads": config.threads, "max_length": config.max_length}
    card = partial(write_card, target, config.model)
    run.finish(
        lambda manifest: card(exported=manifest), artefacts=artefacts, check_batch=CHECK_BATCH, **size, **kind, **scores
    )
    return _result(run, exporter, config.push_to_hub)


def _result(run: Run, exporter: Exporter, repository: str | None) -> Result:
    """Return the measurements of each artefact by its name, with the run directory.

    The directory is uploaded to a repository of the hub, if one is given.
    """
    push_to_hub(exporter.model_directory(run.path), repository)
    found = run.manifest
    metrics = {a["name"]: {k: v for k, v in a.items() if k != "name"} for a in found["artefacts"]}
    return Result(run.path, metrics, (artefact_table(found),))


def _exporter(config: ExportConfig, language_model: bool = False) -> Exporter:
    """Return the exporter that the options ask for. Raises `ConfigError` for --embedding-bits that change nothing."""
    bits = None if config.embedding_bits == "auto" else int(config.embedding_bits)
    if bits and not {"int8", "int4"}.intersection(config.quantize):
        raise ConfigError(
            f"--embedding-bits {bits} is about int8 and int4 files, and none is written; add --quantize int8 or int4."
        )
    return exporter_for(config.to, config.reduce_range, bits, language_model=language_model)


def _precisions(config: ExportConfig, exporter: Exporter) -> tuple[str, ...]:
    """Return the precisions to write: the format's first one, and those of --quantize, or one where one alone fits."""
    wanted = tuple(dict.fromkeys(precision for precision in config.quantize if precision != "none"))
    for precision in wanted:
        exporter.require_precision(precision)
    if not exporter.only_one:
        return tuple(dict.fromkeys((exporter.precisions[0], *wanted)))
    if len(wanted) > 1:
        raise ConfigError(
            f"--quantize was given {', '.join(wanted)}, and a directory of {exporter.title} holds one precision; give "
            "one of them, and another --output for the next."
        )
    return wanted or exporter.precisions[:1]


def _rows(config: ExportConfig, labels: LabelSpace) -> tuple[Split, EvaluationSet | None]:
    """Return the rows of the parity check, and the labelled rows on which each exported file is scored.

    They come from --data, or else from the run that made the model: its validation rows for the check, and the rows
    that it is reported on for the scores. The second is None if --score-rows is 0, or, with a line that says why, if
    --data has no labels that fit the model.
    """
    if config.data is None:
        dataset = load_dataset(_data_of_run(config, labels), config.location, teacher=labels)
        checked = dataset.splits["validation"]
        splits = {split.name: split for split in (*dataset.splits.values(), *dataset.unused_splits)}
        reported = splits.get("test", splits["validation"])
        scored = set_of_split(reported, dataset.metrics, labels) if config.score_rows else None
    else:
        checked = texts_of(config.data, config.location, labels.task)
        scored = _labelled(config.data, labels, config) if config.score_rows else None
    scored = None if scored is None else sample_rows(scored, config.score_rows)
    return select_rows(checked, draw(len(checked), config.rows)), scored


def _labelled(data: str, labels: LabelSpace, config: ExportConfig) -> EvaluationSet | None:
    try:
        found = load_set(data, labels, config.location, on_bad_rows="drop")
        return found if found.metrics else None
    except DataError as error:
        say(f"The exported files are compared with the model, and get no scores: {error}")
        return None


def _data_of_run(config: ExportConfig, labels: LabelSpace) -> DataConfig:
    directory = Path(config.model)
    trained = read_manifest(directory)["config"] if (directory / "manifest.json").exists() else {}
    if "data" not in trained:
        raise ConfigError(
            f"{config.model} has no manifest that names the rows it was trained on, and export checks the model on "
            "such rows; give --data TASK or FILE with rows of the kind that the model is for."
        )
    given = build(DataConfig, {o.name: trained[o.name] for o in options_of(DataConfig) if o.name in trained})
    return replace(given, problem=labels.task.name)  # which the run may have taken from its teacher


def _load(
    config: ExportConfig,
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    labels: LabelSpace,
    examples: TokenizedSplit,
    scored: EvaluationSet | None,
    longest: int | None,
) -> _Original:
    model = load_classifier(path, None, attention="eager", allow_pickle=config.allow_pickle)
    check_tokenizer(model, tokenizer)
    check_lengths(model, examples)
    scored_examples = None if scored is None else tokenize(units_of(scored.split, labels.task), tokenizer, longest)
    if scored_examples is not None:
        check_lengths(model, scored_examples)
    reference = predict_with(TorchRunner(model), examples, PADDED_BATCH)
    return _Original(path, model, tokenizer, labels, examples, reference, scored, scored_examples)


def _artefacts(
    config: ExportConfig,
    exporter: Exporter,
    precisions: Sequence[str],
    directory: Path,
    original: _Original,
    rows: Split,
) -> Iterator[dict[str, Any]]:
    """Write, check and measure one artefact after the other. Yield their entries of the manifest."""
    first, parity = _checked(exporter, original, directory, precisions[0], None)
    if config.teacher is not None:
        yield _teacher(config, config.teacher, rows)
    parameters = ModelShape.of(original.model).parameters
    pytorch = checkpoint(original.path, config.allow_pickle)
    yield _measured(config, ORIGINAL, pytorch, parameters, original.examples, _IDENTICAL)
    yield _measured(config, EXPORT, first, parameters, original.examples, parity) | _scores(original, first)
    for precision in precisions[1:]:
        quantized, parity = _checked(exporter, original, directory, precision, first)
        yield _measured(config, EXPORT, quantized, parameters, original.examples, parity) | _scores(original, quantized)


def _checked(
    exporter: Exporter, original: _Original, directory: Path, precision: str, full: Artefact | None
) -> tuple[Artefact, Parity]:
    """Write the model in one precision and compare it with the original.

    Raises `UserError` if the precision should equal the original and does not. Others that differ much are reported.
    """
    say(f"writing {exporter.title} {precision} …")
    artefact = exporter.write(original.model, original.tokenizer, original.labels.task, directory, precision, full)
    parity = _parity(original, artefact)
    if precision == exporter.precisions[0]:
        assert_parity(parity, artefact.path)
        assert_parity(_padded_parity(original, artefact), f"with a batch of padded rows, {artefact.path}")
    else:
        _warn(parity, precision)
    return artefact, parity


def _parity(original: _Original, artefact: Artefact) -> Parity:
    """Compare an artefact with the original on rows alone, without padding, as a device runs them."""
    candidate = predict_with(artefact.open(), original.examples)
    return compare(original.reference, candidate, original.labels.task)


def _padded_parity(original: _Original, artefact: Artefact) -> Parity:
    """Compare an artefact with the original on one batch of padded rows."""
    rows = np.arange(min(len(original.examples), PADDED_BATCH))
    candidate = predict_with(artefact.open(), select(original.examples, rows), PADDED_BATCH)
    return compare(original.reference[rows], candidate, original.labels.task)


def _scores(original: _Original, artefact: Artefact) -> dict[str, Any]:
    """Return the metrics of an exported file on the labelled rows, for its entry of the manifest."""
    found, examples = original.scored, original.scored_examples
    if found is None or examples is None:
        return {}
    logits = outputs_of_rows(found.split, predict_with(artefact.open(), examples))
    task = (found.task or original.labels.task).with_names(found.classes.names)
    return {"metrics": compute(found.metrics, found.split.labels, logits, task, found.class_map)}


def _teacher(config: ExportConfig, name: str, rows: Split) -> dict[str, Any]:
    path = resolve_model(name)
    model = load_classifier(path, None, allow_pickle=config.allow_pickle)
    examples = tokenize(rows, load_tokenizer(path), longest_text(path, config.max_length))
    check_lengths(model, examples)
    artefact = checkpoint(path, config.allow_pickle)
    return _measured(config, TEACHER, artefact, ModelShape.of(model).parameters, examples, None)


def _measured(
    config: ExportConfig,
    role: str,
    artefact: Artefact,
    parameters: int,
    examples: TokenizedSplit,
    parity: Parity | None,
) -> dict[str, Any]:
    """Measure an artefact and return its entry of the manifest; `runs.artefacts` reads it."""
    name = _display_name(artefact, role)
    say(f"measuring {name} …")
    batches = {size: numpy_batches(examples, size) for size in BATCH_SIZES}
    measurement = measure(artefact, batches, threads=config.threads, repeats=config.repeats)
    return {
        "name": name,
        "format": artefact.format,
        "precision": artefact.precision,
        "role": role,
        "file": artefact.path,
        "files": artefact.names_in(config.output),
        "bytes": artefact.size or 4 * parameters,  # a hub name has no files here: its fp32 parameters
        "parameters": parameters,
        "latency_ms": measurement.latency_ms,
        "peak_memory_mb": measurement.peak_memory_mb,
        "label_agreement": parity and parity.label_agreement,
        "largest_logit_difference": parity and parity.largest_logit_difference,
    } | dict(artefact.settings)


def _display_name(artefact: Artefact, role: str) -> str:
    """Return the name in tables: "ONNX int8"; of the PyTorch models, which are all in fp32, "PyTorch teacher"."""
    title = title_of(artefact.format)
    if artefact.format == PYTORCH:
        return f"{title} teacher" if role == TEACHER else title
    return f"{title} {artefact.precision}"


def _warn(parity: Parity, precision: str) -> None:
    if parity.label_agreement < _WARN_BELOW:
        say(
            f"warning: the {precision} model gives the same label as the original for only "
            f"{parity.label_agreement:.1%} of {parity.count} {parity.units}; evaluate it before you use it."
        )


def artefact_table(manifest: Mapping[str, Any]) -> ResultTable:
    """Return a table of the sizes, latencies (p50 / p95 of a call), parity and scores of all artefacts."""
    artefacts, rows, threads = manifest["artefacts"], manifest["rows"], manifest["threads"]
    metric = next((name for a in artefacts for name in a.get("metrics", {})), None)
    columns = ["", "file\nMB", "peak\nmemory\nMB"]
    columns += [f"batch {size}\np50/p95\nms" for size in BATCH_SIZES]
    columns += ["same\nlabel", "largest\nlogit\ndiff."]
    columns += [] if metric is None else [metric_of(metric).title]
    rows_of_table = []
    for a in artefacts:
        times = [a["latency_ms"][str(size)] for size in BATCH_SIZES]
        parity = a["label_agreement"], a["largest_logit_difference"]
        rows_of_table.append(
            (
                a["name"],
                f"{a['bytes'] / 1e6:,.1f}",
                f"{a['peak_memory_mb']:,.0f}",
                *(f"{t['p50']:.3g}/{t['p95']:.3g}" for t in times),
                *(["–", "–"] if parity[0] is None else [f"{parity[0]:.1%}", f"{parity[1]:.2g}"]),
                *([] if metric is None else [_score(a, metric)]),
            )
        )
    batch = manifest.get("check_batch", PADDED_BATCH)
    title = f"Export: on {rows} real rows, {threads} thread{'' if threads == 1 else 's'}; labels at batch {batch}"
    if scored := manifest.get("scored_on"):
        title += f"; scores on {scored['rows']:,} rows of {scored['set']}"
    return ResultTable(title, tuple(columns), tuple(rows_of_table))


def _score(artefact: Mapping[str, Any], metric: str) -> str:
    value = artefact.get("metrics", {}).get(metric)
    return "–" if value is None else score(value, metric)
