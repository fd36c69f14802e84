"""Checks of a command's names, files and labels before torch is imported, which takes seconds.

The command repeats them with all others; here a mistyped name ends it at once.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demiglace.config.command_options import STATIC
from demiglace.config.data import DataConfig
from demiglace.console import quiet
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.rows.hub import is_hub, parse_hub
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.readers import check_is_file
from demiglace.data.rows.schema import LabelSpace
from demiglace.data.rows.sources import check_source, files_of, missing
from demiglace.data.text.sources import corpus_files
from demiglace.errors import ConfigError, DataError, unknown
from demiglace.labels import match_teacher
from demiglace.methods.names import installed_methods, option_names
from demiglace.models.paths import check_available, resolve_model
from demiglace.runs.directory import check_output
from demiglace.tasks.classification import CLASSIFICATION

_MODELS = {
    "compress": ("model",),
    "finetune": ("model",),
    "pretrain": ("model",),
    "distill": ("teacher", "student"),
    "plan": ("teacher", "model", "student"),
    "truncate": ("model",),
    "evaluate": ("model", "teacher"),
    "generate": ("model",),
    "export": ("model", "teacher"),
}
_RUNS = ("compress", "finetune", "pretrain", "distill", "truncate", "evaluate", "export", "tokenizer")
_READ_ROWS_UP_TO = 20_000_000  # bytes of files that are read here in full; larger ones are read once, by the command


def check(name: str, config: Any) -> None:
    """Raise `UserError` for what can be known to be wrong with the config of a command without torch."""
    if name in ("distill", "plan") or (name == "compress" and config.method != "auto"):
        _check_method(config.method, config.method_options)
    if name == "methods" and config.name and config.name[-1] != "show":
        _check_method(config.name[-1], {})
    _check_models(name, config)
    if name in _RUNS and config.output is not None:
        check_output(config.output)
    if name in ("compress", "finetune", "pretrain", "distill", "plan"):
        _check_training_data(name, config)
    elif name == "evaluate":
        _check_sets(config.data)
    elif name == "export" and config.data:
        _check_sets([config.data])
    elif name == "tokenizer":
        corpus_files(config.corpus)


def _check_models(name: str, config: Any) -> None:
    """Check that the models are there. The command itself refuses those that do not go together."""
    if name == "plan" and config.teacher and config.model:
        return
    if name in ("distill", "plan") and config.student and (config.layers or config.keep):
        return
    for option in _MODELS.get(name, ()):
        model = getattr(config, option)
        if model and (option, model) != ("student", STATIC) and _stage_of(model) not in ("evaluate", "export"):
            check_available(model)


def _check_method(name: str, options: dict[str, Any]) -> None:
    if name.endswith((".yaml", ".yml")):
        check_is_file(name)
        return
    known = option_names()
    if name not in known:
        installed = [point.name for point in installed_methods()]
        if name in installed:
            return  # its options are checked when it is loaded
        raise ConfigError(unknown("method", name, [*known, *installed]))
    for option in options:
        if option.replace("-", "_") not in known[name]:
            raise ConfigError(f"method {name}: {unknown('option', option, known[name])}")


def _stage_of(model: str) -> str | None:
    """Return the command that made the directory that a model is given by, or that its file is in; None for others."""
    path = Path(model)
    for directory in path.parents[:2] if path.is_file() else (path,):  # EXPORT/onnx/model.onnx
        try:
            return str(json.loads((directory / "run.json").read_text(encoding="utf-8")).get("stage"))
        except (OSError, ValueError, AttributeError):
            continue
    return None


def _check_training_data(name: str, config: Any) -> None:
    text, rows = getattr(config, "text", None), getattr(config, "source", None)
    if text is not None and text.corpus:
        corpus_files([*text.corpus, *text.validation_corpus])
    elif rows is not None and (rows.data or (rows.unlabelled and getattr(config, "teacher", None))):
        _check_rows(name, config)
    else:
        wanted = {
            "compress": "--data TASK_OR_FILE",
            "finetune": "--data TASK_OR_FILE",
            "pretrain": "--corpus FILES",
        }.get(name, "--data TASK_OR_FILE for a classifier or regressor, or --corpus FILES for a language model")
        raise ConfigError(f"{name} has nothing to train on; give {wanted}.")


def _check_rows(name: str, config: Any) -> None:
    """Check the training rows, and for `distill` that their labels are the teacher's."""
    source: DataConfig = config.source
    teacher = getattr(config, "teacher", None)
    for spec in source.unlabelled or ():
        check_source(spec)
    if is_hub(source.data):  # the command reads them once
        parse_hub(source.data)
        return
    if source.data in TASKS:
        labels = TASKS[source.data].labels
    else:
        files = files_of(source)
        for path in files.values():
            check_is_file(path)
        if sum(path.stat().st_size for path in files.values()) > _READ_ROWS_UP_TO:
            return
        with quiet(logging.CRITICAL):  # the command prints what it finds
            dataset = load_dataset(source, config.location, teacher=LabelSpace(CLASSIFICATION) if teacher else None)
        if not dataset.labelled:
            return
        labels = dataset.labels.names
    names = _class_names(teacher)
    if name == "distill" and labels and names:
        match_teacher(labels, names, config.label_map)


def _class_names(teacher: str | None) -> tuple[str, ...]:
    """Return the class names of a classifier in a local directory, empty where they cannot be read without torch."""
    if teacher is None or not (file := Path(resolve_model(teacher)) / "config.json").is_file():
        return ()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        is_classifier = str((content.get("architectures") or [""])[0]).endswith(
            ("ForSequenceClassification", "ForTokenClassification")
        )
        names = {int(i): str(name) for i, name in (content.get("id2label") or {}).items()}
    except (OSError, ValueError, AttributeError):
        return ()
    return tuple(names[i] for i in sorted(names)) if is_classifier and len(names) > 1 else ()


def _check_sets(specs: Sequence[str]) -> None:
    """Raise `DataError` for a set that is neither a task, with or without a split, nor a file or folder."""
    for spec in specs:
        if is_hub(spec):
            parse_hub(spec)
        elif spec.partition(":")[0] not in TASKS and not Path(spec).exists():
            raise DataError(missing(spec))
