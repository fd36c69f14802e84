"""The model card: README.md with the metadata of the Hugging Face Hub, from manifests alone."""

import html
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from demiglace.report import format
from demiglace.report.transformers_js import Usage, usage
from demiglace.results.metric_table import finite, metric_of
from demiglace.results.run_log import numbers
from demiglace.runs.artefacts import EXPORT, TEACHER, measured_artefacts
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import read_json, write_atomically
from demiglace.tasks.base import RowTask
from demiglace.tasks.registry import task_of_manifest

Manifest = Mapping[str, Any]
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|!~$])")


def write_card(
    directory: Path, run: Path | str, *, trained: Manifest | None = None, exported: Manifest | None = None
) -> None:
    """Write README.md into `directory`.

    run: the directory of the finetune or distill run that trained the model, or another reference to the model.
    trained: the manifest of that run, which need not be written yet. exported: the manifest of the model's export. What
    no manifest records is left out.
    """
    text = model_card(Path(run), exported or {}, trained)
    write_atomically(directory / "README.md", text.encode("utf-8", errors="replace"))


def model_card(run: Path, exported: Manifest, trained: Manifest | None = None) -> str:
    """Return the card: YAML front matter and Markdown. Names from data are escaped, local paths are left out."""
    run = run.parent if run.name == "model" and (run.parent / "manifest.json").exists() else run
    trained = _manifest(run) if trained is None else trained
    kind = trained or exported  # of a model that no run trained, the export knows what its outputs mean
    task = task_of_manifest(kind)
    if isinstance(task, RowTask):
        task = task.with_decision_rule(kind.get("decision_rule") or {})
    config = trained.get("config", {})
    method = str(trained.get("method") or config.get("method", ""))
    teacher = _manifest(Path(str(config["teacher"]))) if config.get("teacher") else {}
    return _template().render(
        metadata=_metadata(run, trained, exported).to_yaml() + "\n",
        name=_name(run),
        stage=trained.get("stage"),
        task=str(trained.get("task", "")),
        labels=[str(label) for label in kind.get("labels", ())],
        labels_in_words=task.labels_in_words if isinstance(task, RowTask) else "",
        words=task.unit == "word",
        readout=task.readout if isinstance(task, RowTask) else "",
        texts='"a text", "another"' if trained.get("pairs") else '"a text"',
        pairs=bool(trained.get("pairs")),
        labelled=bool(trained.get("labelled", True)),
        language=task.reads == "corpus",
        library=task.hub_library,
        output=task.output_name,
        masked=_is_masked(run),
        tokens=numbers(trained.get("tokens")).get("train"),
        base=_base(run, trained),
        method=_plain(Path(method).name),  # of a method file, not its path
        options=config.get("method_options") or {},
        layers=trained.get("layers"),
        teacher_layers=teacher.get("layers"),
        kept=_kept(trained),
        parameters=trained.get("parameters"),
        vocabulary=numbers(trained.get("vocabulary")),
        rows=numbers(trained.get("rows")),
        seed=config.get("seed"),
        length=trained.get("max_length") or config.get("max_length") or 128,
        metrics=_metrics(trained, teacher, _baseline(run)),
        artefacts=[_artefact(a, task.reads == "corpus") for a in measured_artefacts(exported) if a["role"] != TEACHER],
        timed=any(a.get("tokens_per_second") for a in measured_artefacts(exported)),
        exported=_export_format(exported),
        js=_javascript(kind, exported),
        export_files=[_file(a) for a in measured_artefacts(exported) if a["role"] == EXPORT] or ["onnx/model.onnx"],
        threads=exported.get("threads"),
        prompt_tokens=exported.get("prompt_tokens"),
        new_tokens=exported.get("new_tokens"),
        processor=str((exported.get("machine") or {}).get("processor", "")),
        versions=trained.get("versions") or {},
    )


@cache  # every run writes a card
def _template() -> jinja2.Template:
    environment = jinja2.Environment(  # the card is Markdown: `escaped` does what autoescape would for HTML
        loader=jinja2.PackageLoader("demiglace", "report"), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"escaped": escaped, "count": format.count, "parameters": format.parameters}
    return environment.get_template("card.md.j2")


def escaped(text: Any) -> str:
    """Return a text that Markdown shows as it is, on one line, at most 200 characters long."""
    one_line = " ".join("".join(c if c.isprintable() else " " for c in format.strip_bidi_controls(str(text))).split())
    return _SPECIAL.sub(r"\\\1", html.escape(format.shorten(one_line, 200), quote=False))


def _plain(text: str) -> str:
    """Return a name for the metadata: its words, points and hyphens."""
    return " ".join(re.sub(r"[^A-Za-z0-9_. -]+", " ", text).split())[:90]


def _manifest(run: Path) -> Manifest:
    file = run / "manifest.json"
    return read_manifest(run) if file.is_file() else {}


def _baseline(run: Path) -> Manifest:
    """Return the manifest of a comparison's run without a teacher, with the same axes and seed.

    Its directory is TASK/STUDENT/none[/AXIS=VALUE]/seed-N.
    """
    method = next((p for p in run.parents if (p.parent / "none").is_dir()), None)
    return _manifest(method.parent / "none" / run.relative_to(method)) if method else {}


def _name(run: Path) -> str:
    return format.shorten("-".join(run.parts[-2:]).strip("/.") or "model", 90)


def _base(run: Path, trained: Manifest) -> str:
    """Return the first model: from teacher to teacher back to a model that no run trained; of a path its name."""
    reference, seen = str(run), set()
    while reference not in seen:
        seen.add(reference)
        path = Path(reference)
        manifest = trained if path == run else _manifest(path.parent if path.name == "model" else path)
        config = manifest.get("config", {})
        if config.get("architecture"):
            return f"a new {Path(str(config['architecture'])).name}"
        reference = str(config.get("teacher") or config.get("model") or reference)
    if _is_hub_name(repository := reference.partition("@")[0]):
        return repository
    path = Path(reference)
    return path.parent.name if path.name == "model" else path.name


def _is_hub_name(reference: str) -> bool:
    return bool(_HUB_NAME.fullmatch(reference)) and not Path(reference).exists()


def _is_masked(run: Path) -> bool:
    """Return whether a run's model is a masked language model, by the class in its config."""
    config = run / "model" / "config.json"
    named = read_json(config).get("architectures") if config.is_file() else None
    return str((named or [""])[0]).endswith("ForMaskedLM")


def _kind(run: Path, trained: Manifest) -> str:
    """Return what the Hugging Face hub calls the model's task."""
    return task_of_manifest(trained).hub_task(masked=_is_masked(run))


def _export_format(exported: Manifest) -> str | None:
    """Return the format of an export by its manifest; None without one, and for a directory that transformers loads."""
    kind = str((exported.get("config") or {}).get("to", "onnx")) if exported else None
    return None if kind == "safetensors" else kind


def _metadata(run: Path, trained: Manifest, exported: Manifest) -> ModelCardData:
    kind = _export_format(exported)
    base, results = _base(run, trained), _results(run, trained)
    distilled = trained.get("stage") == "distill" and trained.get("method") != "none"
    tags = ["demiglace", *(["knowledge-distillation"] if distilled else []), *([kind] if kind else [])]
    return ModelCardData(
        library_name=_library(kind, trained),
        pipeline_tag=_kind(run, trained or exported),
        base_model=base if _is_hub_name(base) else None,
        datasets=[str(trained["hub"][0])] if trained.get("hub") else None,
        tags=tags,
        metrics=list(dict.fromkeys(r.metric_type for r in results)) or None,
        model_name=_plain(_name(run)) or "model",
        eval_results=results or None,
    )


def _library(kind: str | None, trained: Manifest) -> str:
    """Return the library that loads the files: an export has no weights for transformers, which has no static model."""
    return kind or ("demiglace" if trained.get("layers") == 0 else task_of_manifest(trained).hub_library)


def _results(run: Path, trained: Manifest) -> list[EvalResult]:
    """Return one result for each split and metric; values are fractions, as the Hub has them."""
    path, part = trained.get("hub") or ("custom", None)
    return [
        EvalResult(
            task_type=_kind(run, trained),
            dataset_type=path,
            dataset_name=_plain(str(trained.get("task", ""))) or "rows",
            dataset_config=part,
            dataset_split=split,
            metric_type=metric_of(name).hub or name,
            metric_name=metric_of(name).title,
            metric_value=value,
        )
        for split, scores in (trained.get("metrics") or {}).items()
        for name, value in numbers(scores).items()
    ]


def _kept(trained: Manifest) -> list[int]:
    """Return the teacher's layers that the student was initialised with, from 0; empty where no run records them."""
    config = trained.get("config", {})
    truncated = _manifest(Path(str(config["student"]))) if config.get("student") else {}
    return list(trained.get("keep") or config.get("keep") or truncated.get("keep") or ())


def _metrics(trained: Manifest, teacher: Manifest, baseline: Manifest) -> list[tuple[str, str, str, str, str]]:
    """Return rows of split, metric, and the scores of model, teacher and baseline (of the same seed)."""

    def of(manifest: Manifest, split: str, metric: str) -> str:
        value = numbers((manifest.get("metrics") or {}).get(split)).get(metric)
        return format.score(value, metric)

    baseline = {} if trained.get("method") == "none" else baseline
    return [
        (split, metric_of(metric).title, *(of(m, split, metric) for m in (trained, teacher, baseline)))
        for split, scores in (trained.get("metrics") or {}).items()
        for metric in numbers(scores)
    ]


def _javascript(kind: Manifest, exported: Manifest) -> Usage | None:
    """Return how transformers.js runs an ONNX export; None for others, and without a record of the model's type."""
    precisions = [a["precision"] for a in measured_artefacts(exported) if a["role"] == EXPORT]
    if _export_format(exported) != "onnx" or not exported.get("model_type") or not precisions:
        return None
    return usage(task_of_manifest(kind).name, str(exported["model_type"]), precisions, bool(kind.get("pairs")))


def _file(found: Mapping[str, Any]) -> str:
    """Return the file of an artefact below the export directory, where the card is."""
    return str((found.get("files") or [Path(found["file"]).name])[0])


def _artefact(found: Mapping[str, Any], language: bool) -> tuple[str, ...]:
    """Return a row of name, size, speed, and the share of equal labels or next tokens.

    Speed is the median latency with one row and with 32; of a language model the tokens per second of prefill and
    decoding, and the peak memory.
    """
    if language:
        rates = numbers(found.get("tokens_per_second"))
        memory = finite(found.get("peak_memory_mb"))
        speed = [
            *(format.rate(rates.get(part)) for part in ("prefill", "decode")),
            format.size(memory and 1e6 * memory),
        ]
    else:
        latency = found.get("latency_ms") or {}
        speed = [format.milliseconds(numbers(latency.get(batch)).get("p50")) for batch in ("1", "32")]
    agreement = format.share(finite(found.get("label_agreement")))
    return str(found.get("name")), format.size(finite(found.get("bytes"))), *speed, agreement
