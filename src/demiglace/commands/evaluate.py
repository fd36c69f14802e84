"""`demiglace evaluate`: evaluate a model on one or more sets of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.commands.evaluate_lm import evaluate_lm
from demiglace.config.command_options import EvaluateConfig
from demiglace.config.options import command, flatten
from demiglace.console import say
from demiglace.data.lengths import report_cut
from demiglace.data.rows.dataset import text_fingerprint
from demiglace.data.rows.evaluation_sets import EvaluationSet, load_set, sample_rows
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.schema import LabelSpace
from demiglace.data.rows.sources import data_folder
from demiglace.data.rows.suites import SUITES, SuiteSet, named_suite, read_suite, source_of
from demiglace.data.rows.units import outputs_of_rows, units_of
from demiglace.data.tokenize import TokenizedSplit, tokenize
from demiglace.errors import ConfigError, DataError, ModelError
from demiglace.evaluation.label_order import contradiction
from demiglace.evaluation.predict import check_lengths, check_longest, predict
from demiglace.evaluation.scores import by_unit, predictions_of
from demiglace.evaluation.set_results import disagreements, set_results
from demiglace.export.base import Artefact, title_of
from demiglace.export.exported import export_directory, exported_artefact
from demiglace.export.parity import predict_with
from demiglace.given_objects import name_of, saved_objects
from demiglace.labels import Match, match_all, pair
from demiglace.models.from_config import shape_of_config
from demiglace.models.labels import describe, label_space_of
from demiglace.models.loading import (
    check_tokenizer,
    fingerprint_model,
    load_classifier,
    load_config,
    load_tokenizer,
    resolve_model,
)
from demiglace.models.max_length import max_length_of
from demiglace.models.sentence_modules import longest_text
from demiglace.runs.directory import Run, open_run, read_manifest
from demiglace.runs.files import file_name, fingerprint, read_json, write_atomically, write_json
from demiglace.runs.result import Result, ResultTable
from demiglace.tasks.base import RowTask
from demiglace.tasks.registry import row_metrics


@dataclass(frozen=True)
class _ModelAndTokenizer:
    """A model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@command(EvaluateConfig, objects=saved_objects)
def evaluate(config: EvaluateConfig) -> Result:
    """Evaluate a model on each set; with a teacher also their agreement and disagreements.

    With `corpus` or `lambada`, evaluate a language model on text, see `commands.evaluate_lm`.

    Returns the metrics of each set, and the run directory: manifest.json with the results, and for each set SET.npy
    with the model's logits, float32 [N, C], SET.labels.npy, SET.predictions.npy with the predictions that are compared
    with the labels, and with a teacher SET.changes.json (`set_results.disagreements`). Raises `UserError`s before it
    writes.
    """
    if config.output is None:
        with TemporaryDirectory(prefix="demiglace-") as directory:
            return replace(_evaluate(replace(config, output=Path(directory) / "run")), path=None)
    return _evaluate(config)


def _evaluate(config: EvaluateConfig) -> Result:
    if config.corpus or config.lambada:
        return evaluate_lm(config)
    if config.add_bos != "auto":
        raise ConfigError(f"--add-bos {config.add_bos} is for language models (--corpus, --lambada); leave it out.")
    exported = exported_artefact(config.model)
    path = resolve_model(export_directory(config.model) or config.model)
    labels = label_space_of(path)
    teacher = None if config.teacher is None else _teacher_of(config.teacher)
    order = None if teacher is None else _match_teacher(config, labels, teacher.model)
    teacher_labels = labels if teacher is None else label_space_of(teacher.model)
    names = () if teacher is None else teacher_labels.names
    sets = _load_sets(replace(config, label_map=_maps(config, labels, names)[0]), labels)
    if teacher is None and (unlabelled := [s.name for s in sets if not s.metrics]):
        raise ConfigError(
            f"{', '.join(unlabelled)}: there are no labels to score the model with; give --teacher for the agreement "
            "with it, or pairs of texts with a column of similarity scores, or of 0 and 1."
        )
    inputs = {"model": fingerprint_model(path)} | {f"data {s.name}": s.fingerprint for s in sets}
    if exported is not None:
        inputs["artefact"] = fingerprint(exported.files)
    if teacher is not None:
        inputs["teacher"] = fingerprint_model(resolve_model(teacher.model))
    identity = flatten(config, result_options_only=True)
    if config.max_length is None:
        config = replace(config, max_length=max_length_of(config.model, path))
        inputs["max_length"] = str(config.max_length)
    run = open_run(str(config.output), "evaluate", identity, inputs)
    if run.complete:
        say(f"{run.path} is up to date.")
        return _result(run)
    if exported is None:
        predicted = _predict(config, config.model, sets, "")
    else:
        predicted = _predict_exported(config, exported, path, sets)
    logits = predicted.logits
    for found in sets:
        _warn_of_order(found, logits[found.name], found.assumed, labels.names)
    teacher_logits = {} if teacher is None or order is None else _teacher_logits(config, teacher, sets, order)
    if order is not None and order.assumed:
        for found in sets:
            _warn_of_order(
                found, teacher_logits[found.name], found.classes.names, [names[i] for i in order.ids], "teacher: "
            )
    results = {
        s.name: set_results(s, logits[s.name], s.task or labels.task, teacher_logits.get(s.name), teacher_labels.task)
        for s in sets
    }
    for found in sets:
        _save(
            run.path / file_name(found.name),
            found,
            logits[found.name],
            teacher_logits.get(found.name),
            found.task or labels.task,
        )
    texts = {s.name: text_fingerprint(s.split) for s in sets}
    lengths = {"max_length": config.max_length, "longest": predicted.longest}
    run.finish(task=sets[0].name, sets=results, texts=texts, **lengths)
    return _result(run)


def _result(run: Run) -> Result:
    results = run.manifest["sets"]
    agreement = ("agreement",)
    metrics = {n: r["metrics"] | {k: r[k] for k in agreement if k in r} for n, r in results.items()}
    return Result(run.path, metrics, (results_table(results), *types_tables(results)))


def _load_sets(config: EvaluateConfig, labels: LabelSpace) -> list[EvaluationSet]:
    own, suites = {name_of(spec): _is_own_task(spec, config) for spec in config.data}, _suites(config)
    if not own and not suites:
        raise ConfigError("there is nothing to evaluate on; give --data TASK_OR_FILE, --suite ood, or both.")
    sets = [_load_set(name, entry, config, labels, config.max_rows_per_set) for name, entry in own.items()]
    _check_names(own, suites)
    limits = [limit for limit in (config.suite_rows, config.max_rows_per_set) if limit is not None]
    others = [(name, entry) for name, entry in suites.items() if name not in own]
    sets += [_load_set(name, entry, config, labels, min(limits, default=None)) for name, entry in others]
    for found in sets:
        if not len(found.split):
            raise DataError(f"{found.name} has no row left to measure; look at --label-map and --on-bad-rows.")
    return sets


def _check_names(own: Mapping[str, SuiteSet], suites: Mapping[str, SuiteSet]) -> None:
    """Raise `ConfigError` for sets whose results would be written to the same files."""
    files: dict[str, str] = {}
    for name in (*own, *(name for name, entry in suites.items() if name not in own or entry.data != own[name].data)):
        file = file_name(name).casefold()  # some file systems ignore the case
        if other := files.get(file):
            raise ConfigError(
                f"{other} and {name} would be written to the same files; rename one, or evaluate it alone."
            )
        files[file] = name


def _warn_of_order(
    found: EvaluationSet, logits: np.ndarray, label_names: Sequence[str], class_names: Sequence[str], note: str = ""
) -> None:
    """Warn if the set's rows contradict an assumed order of classes; without effect if classes are merged.

    label_names: of each counted class; class_names: the model's name of each output in `logits`.
    """
    if not label_names or not len(label_names) == len(class_names) == found.classes.size:
        return
    own = class_names if found.class_map is None else [class_names[c] for c in np.argsort(found.class_map)]
    labels, logits = by_unit(found.split.labels, logits, found.classes.task)
    predictions = predictions_of(logits, found.classes.task, found.class_map)
    if warning := contradiction(labels, predictions, label_names, own):
        say(f"warning: {note}{found.name}: {warning}")


def _is_own_task(spec: str, config: EvaluateConfig) -> SuiteSet:
    return SuiteSet(spec, config.label_map, config.text_columns, config.label_column, config.group_column)


def _load_set(
    name: str, entry: SuiteSet, config: EvaluateConfig, labels: LabelSpace, rows: int | None
) -> EvaluationSet:
    found = load_set(
        entry.data,
        labels,
        config.location,
        label_map=entry.label_map,
        text_columns=entry.text_columns,
        label_column=entry.label_column,
        group_column=entry.group_column,
        on_bad_rows=config.on_bad_rows,
    )
    found = replace(found, name=name)
    return found if rows is None else sample_rows(found, rows)


def _suites(config: EvaluateConfig) -> dict[str, SuiteSet]:
    """Return the sets of all suites of --suite, by name."""
    sets: dict[str, SuiteSet] = {}
    for suite in config.suite:
        if suite.endswith((".yaml", ".yml")):
            found = read_suite(suite)
        else:
            task = _task_of(config) if suite == "ood" else source_of(suite)
            found = named_suite(task, data_folder(config.location))
        if twice := [name for name in found if name in sets and sets[name] != found[name]]:
            raise ConfigError(
                f"{suite}: {', '.join(twice)} is the name of another suite's set too; rename one of them."
            )
        sets |= found
    return sets


def _task_of(config: EvaluateConfig) -> str:
    """Return the task that the model's run was trained on, else the task given by --data."""
    manifest = Path(config.model) / "manifest.json"
    given = next((spec.partition(":")[0] for spec in config.data if spec.partition(":")[0] in TASKS), "")
    task = str(read_json(manifest).get("task", given)) if manifest.exists() else given
    if not task:
        raise ConfigError(
            f"--suite ood: {config.model} does not say which task it was trained on; name the suite itself: "
            f"{', '.join(SUITES)}."
        )
    if task not in SUITES:
        say(f"{task} has no suite of out-of-domain sets.")
    return task


@dataclass(frozen=True)
class _Teacher:
    """A teacher to compare with: its model, and its evaluation run if that was given."""

    model: str
    run: Path | None


def _teacher_of(name: str) -> _Teacher:
    claim = Path(name) / "run.json"
    if not claim.exists() or read_json(claim).get("stage") != "evaluate":
        return _Teacher(name, None)
    return _Teacher(str(read_manifest(Path(name))["config"]["model"]), Path(name))


def _teacher_logits(
    config: EvaluateConfig, teacher: _Teacher, sets: Sequence[EvaluationSet], order: Match
) -> dict[str, np.ndarray]:
    """Return the teacher's logits by set, in the order of the model's classes."""
    logits = _read_or_predict(config, teacher, sets)
    return logits if order.is_identity else {name: array[..., order.ids] for name, array in logits.items()}


def _read_or_predict(config: EvaluateConfig, teacher: _Teacher, sets: Sequence[EvaluationSet]) -> dict[str, np.ndarray]:
    """Return the teacher's logits by set, in its order: read from its evaluation run, or computed."""
    if teacher.run is None:
        return _predict(config, teacher.model, sets, "teacher: ").logits
    found = read_manifest(teacher.run)
    kept = [s for s in sets if _same_rows(config, found, s)]
    missing = [s for s in sets if s not in kept]
    logits = {s.name: np.load(teacher.run / f"{file_name(s.name)}.npy") for s in kept}
    return logits | (_predict(config, teacher.model, missing, "teacher: ").logits if missing else {})


def _same_rows(config: EvaluateConfig, manifest: Mapping[str, Any], found: EvaluationSet) -> bool:
    """Return whether an evaluation used the same rows of a set, cut at the same length or at none."""
    limit = manifest.get("max_length", manifest["config"].get("max_length"))
    longest = manifest.get("longest", {}).get(found.name)
    uncut = longest is not None and all(m is None or longest < m for m in (limit, config.max_length))
    same_length = uncut or limit == config.max_length
    texts = manifest.get("texts", {}).get(found.name) == text_fingerprint(found.split)
    return same_length and (texts or manifest["inputs"].get(f"data {found.name}") == found.fingerprint)


def _match_teacher(config: EvaluateConfig, labels: LabelSpace, teacher: str) -> Match:
    """Return the teacher's class of each of the model's, and print how they were matched.

    Raises `ModelError` if they are not the same classes.
    """
    space = label_space_of(teacher)
    names = space.names
    same_kind = space.task.name == labels.task.name
    match = match_all(labels.names, names, _maps(config, labels, names)[1]) if same_kind else None
    if match is None or len(labels.names) != len(names):
        raise ModelError(
            f"--teacher {teacher} has other labels than the model: {describe(names)} there, {describe(labels.names)} "
            "here; give a teacher of the same labels, or --label-map.MODEL_LABEL TEACHER_LABEL for each."
        )
    if line := match.line(labels.names, names):
        say(f"teacher: {line}")
    return match


def _maps(config: EvaluateConfig, labels: LabelSpace, teacher: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split --label-map: the set's labels in the model's names, and the model's labels in the teacher's names."""

    def is_of_teacher(to: Any) -> bool:
        targets = [str(t) for t in to] if isinstance(to, (list, tuple)) else [str(to)]
        known, _ = pair(targets, labels.names)
        theirs, _ = pair(targets, teacher)
        return to is not None and not known and len(theirs) == len(targets)

    of_teacher = {key: to for key, to in config.label_map.items() if is_of_teacher(to)}
    return {key: to for key, to in config.label_map.items() if key not in of_teacher}, of_teacher


@dataclass(frozen=True)
class _Predicted:
    """What a model gives for each set, by its name."""

    logits: dict[str, np.ndarray]  # float32 [N, C]
    longest: dict[str, int]  # tokens of the longest row, after it was cut


def _predict(config: EvaluateConfig, name: str, sets: Sequence[EvaluationSet], note: str) -> _Predicted:
    """Predict in fp32, so that results do not depend on the machine."""
    loaded, longest = _load(name, config.allow_pickle), longest_text(resolve_model(name), config.max_length)
    predicted = _Predicted({}, {})
    for found in sets:
        examples = _tokenize(found, loaded.tokenizer, longest)
        check_lengths(loaded.model, examples)
        described = note + found.name
        outputs = predict(loaded.model, examples, batch_tokens=config.batch_tokens, describe=described)
        predicted.logits[found.name] = outputs_of_rows(found.split, outputs)
        predicted.longest[found.name] = int(examples.lengths.max(initial=0))
    return predicted


def _predict_exported(
    config: EvaluateConfig, artefact: Artefact, directory: str, sets: Sequence[EvaluationSet]
) -> _Predicted:
    """Predict with an exported model, as in the parity check of the export."""
    tokenizer, shape = load_tokenizer(directory), shape_of_config(load_config(directory))
    runner = artefact.open()
    say(f"{artefact.path}: {title_of(artefact.format)} {artefact.precision}, on one thread of the CPU")
    predicted = _Predicted({}, {})
    for found in sets:
        examples = _tokenize(found, tokenizer, config.max_length)
        check_longest(shape.max_positions, examples.lengths)
        predicted.logits[found.name] = outputs_of_rows(found.split, predict_with(runner, examples))
        predicted.longest[found.name] = int(examples.lengths.max(initial=0))
    return predicted


def _tokenize(found: EvaluationSet, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> TokenizedSplit:
    """Tokenize the rows of a set, and print how many of them are cut."""
    split = units_of(found.split, found.classes.task)
    examples = tokenize(split, tokenizer, max_length)
    if max_length is not None:
        report_cut({found.name: split}, {found.name: examples}, tokenizer, max_length)
    if line := examples.lost_words_line(max_length):
        say(f"{found.name}: {line}")
    return examples


def _load(name: str, allow_pickle: bool) -> _ModelAndTokenizer:
    tokenizer = load_tokenizer(name)
    model = load_classifier(name, None, allow_pickle=allow_pickle)
    check_tokenizer(model, tokenizer)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type] # its decorator
    return _ModelAndTokenizer(model, tokenizer)


def _save(
    stem: Path, found: EvaluationSet, logits: np.ndarray, teacher_logits: np.ndarray | None, task: RowTask
) -> None:
    task = task.with_names(found.classes.names)
    predictions = task.readable(predictions_of(logits, task, found.class_map))
    arrays = {"": logits, ".labels": task.readable(found.split.labels), ".predictions": predictions}
    for ending, array in arrays.items():
        write_atomically(stem.with_name(f"{stem.name}{ending}.npy"), _npy(array))
    if teacher_logits is not None and task.has_classes:
        write_json(stem.with_name(f"{stem.name}.changes.json"), disagreements(found, logits, teacher_logits))


def _npy(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def types_tables(results: Mapping[str, Mapping[str, Any]]) -> tuple[ResultTable, ...]:
    """Return a table of the types of entities for each set whose words have tags."""
    tables = []
    for name, result in results.items():
        if "words" not in result:
            continue
        metrics = list(dict.fromkeys(m for part in result["groups"].values() for m in part["metrics"]))
        rows = tuple(
            (kind, f"{part['rows']:,}", *(f"{part['metrics'][m]:.4f}" for m in metrics))
            for kind, part in result["groups"].items()
        )
        tables.append(ResultTable(name, ("type", "entities", *(row_metrics()[m].phrase for m in metrics)), rows))
    return tuple(tables)


def results_table(results: Mapping[str, Mapping[str, Any]]) -> ResultTable:
    """Return a table with a row for each set, a column for each metric that any of them has."""
    known = row_metrics()
    names = [n for n in known if any(n in r["metrics"] for r in results.values())]
    has_teacher = any("agreement" in r for r in results.values())
    columns = [
        "set",
        "rows",
        *(known[n].phrase for n in names),
        *(["agreement with the teacher"] if has_teacher else []),
    ]
    rows = [
        (
            name,
            f"{r['rows']:,}",
            *(f"{r['metrics'][n]:.4f}" if n in r["metrics"] else "–" for n in names),
            *([f"{r['agreement']:.4f}" if "agreement" in r else "–"] if has_teacher else []),
        )
        for name, r in results.items()
    ]
    return ResultTable("Evaluation", tuple(columns), tuple(rows))
