"""The model card beside a model: README.md with the metadata of Hugging Face, from manifests alone."""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

from demiglace.report import format
from demiglace.results import metrics
from demiglace.results.run_log import numbers
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import read_json, write_atomically

Manifest = Mapping[str, Any]
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_METRICS = {"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr", "macro_f1": "f1"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|!~$])")


def write_card(directory: Path, run: Path | str, export: Path | None = None) -> None:
    """Write README.md into `directory`.

    run: of the finetune or distill that trained the model, or what else the model was named by; export: the directory
    of its export, with `manifest.json`. What no manifest tells is left out.
    """
    text = model_card(Path(run), {} if export is None else _manifest(export))
    write_atomically(directory / "README.md", text.encode("utf-8", errors="replace"))


def model_card(run: Path, exported: Manifest) -> str:
    """The card's text: YAML front matter and Markdown; names from data are escaped, local paths are left out."""
    run = run.parent if run.name == "model" and (run.parent / "manifest.json").exists() else run
    trained = _manifest(run)
    config = trained.get("config", {})
    method = str(trained.get("method") or config.get("method", ""))
    teacher = _manifest(Path(str(config["teacher"]))) if config.get("teacher") else {}
    environment = jinja2.Environment(  # the card is Markdown: `escaped` does what autoescape would for HTML
        loader=jinja2.PackageLoader("demiglace", "report"), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"escaped": escaped, "count": format.count, "millions": format.millions}
    return environment.get_template("card.md.j2").render(
        metadata=yaml.safe_dump(_metadata(run, trained, bool(exported)), sort_keys=False, width=10_000),
        name=_name(run),
        stage=trained.get("stage"),
        task=str(trained.get("task", "")),
        labels=[str(label) for label in trained.get("labels", ())],
        regression=trained.get("problem") == "regression",
        texts='"a text", "another"' if trained.get("pairs") else '"a text"',
        pairs=bool(trained.get("pairs")),
        language=_is_language_model(trained),
        masked=_is_masked(run),
        tokens=numbers(trained.get("tokens")).get("train"),
        base=_base(run),
        method=_plain(Path(method).name),  # of a method file, not its path
        options=config.get("method_options") or {},
        layers=trained.get("layers"),
        teacher_layers=teacher.get("layers"),
        kept=_kept(trained),
        parameters=trained.get("parameters"),
        rows=numbers(trained.get("rows")),
        seed=config.get("seed"),
        length=config.get("max_length", 128),
        metrics=_metrics(trained, teacher, _control(run)),
        artefacts=[_artefact(a) for a in exported.get("artefacts", ()) if a.get("name") != "PyTorch teacher"],
        onnx=bool(exported),
        processor=str((exported.get("machine") or {}).get("processor", "")),
        versions=trained.get("versions") or {},
    )


def escaped(text: Any) -> str:
    """A text that Markdown shows as it is, on one line, at most 200 characters long."""
    one_line = " ".join("".join(c if c.isprintable() else " " for c in format.strip_bidi_controls(str(text))).split())
    return _SPECIAL.sub(r"\\\1", html.escape(format.shorten(one_line, 200), quote=False))


def _plain(text: str) -> str:
    """A name for the metadata: words, points and hyphens of it."""
    return " ".join(re.sub(r"[^A-Za-z0-9_. -]+", " ", text).split())[:90]


def _manifest(run: Path) -> Manifest:
    file = run / "manifest.json"
    return read_manifest(run) if file.is_file() else {}


def _control(run: Path) -> Manifest:
    """The run of a comparison without a teacher, of the same axes and seed: TASK/STUDENT/none[/AXIS=VALUE]/seed-N."""
    method = next((p for p in run.parents if (p.parent / "none").is_dir()), None)
    return _manifest(method.parent / "none" / run.relative_to(method)) if method else {}


def _name(run: Path) -> str:
    return format.shorten("-".join(run.parts[-2:]).strip("/.") or "model", 90)


def _base(run: Path) -> str:
    """What it all began with: from teacher to teacher back to a model that no run made; a path by its end."""
    reference, seen = str(run), set()
    while reference not in seen:
        seen.add(reference)
        path = Path(reference)
        config = _manifest(path.parent if path.name == "model" else path).get("config", {})
        if config.get("architecture"):
            return f"a new {Path(str(config['architecture'])).name}"
        reference = str(config.get("teacher") or config.get("model") or reference)
    if _is_hub_name(reference):
        return reference
    path = Path(reference)
    return path.parent.name if path.name == "model" else path.name


def _is_hub_name(reference: str) -> bool:
    return bool(_HUB_NAME.fullmatch(reference)) and not Path(reference).exists()


def _is_language_model(trained: Manifest) -> bool:
    return trained.get("problem") == "language"


def _is_masked(run: Path) -> bool:
    """Whether a run's model is a masked language model, by the class that its config names."""
    config = run / "model" / "config.json"
    named = read_json(config).get("architectures") if config.is_file() else None
    return str((named or [""])[0]).endswith("ForMaskedLM")


def _kind(run: Path, trained: Manifest) -> str:
    """What Hugging Face calls such a model's task."""
    if not _is_language_model(trained):
        return "text-classification"
    return "fill-mask" if _is_masked(run) else "text-generation"


def _metadata(run: Path, trained: Manifest, onnx: bool) -> dict[str, Any]:
    base, task = _base(run), str(trained.get("task", ""))
    library = "onnx" if onnx else "transformers"  # beside an export there are no weights that transformers could load
    found: dict[str, Any] = {"library_name": library, "pipeline_tag": _kind(run, trained)}
    if _is_hub_name(base):
        found["base_model"] = base
    if trained.get("hub"):
        found["datasets"] = [str(trained["hub"][0])]
    distilled = trained.get("stage") == "distill" and trained.get("method") != "none"
    found["tags"] = ["demiglace", *(["knowledge-distillation"] if distilled else []), *(["onnx"] if onnx else [])]
    results = _results(task, trained, _kind(run, trained))
    if results:
        found["metrics"] = list(dict.fromkeys(m["type"] for r in results for m in r["metrics"]))
        found["model-index"] = [{"name": _plain(_name(run)) or "model", "results": results}]
    return found


def _results(task: str, trained: Manifest, model_kind: str) -> list[dict[str, Any]]:
    path, part = trained.get("hub") or ("custom", None)
    dataset = {"name": _plain(task) or "rows", "type": path} | ({"config": part} if part else {})
    return [
        {
            "task": {"type": model_kind},
            "dataset": dataset | {"split": split},
            "metrics": [_metric(metric, value) for metric, value in numbers(scores).items()],
        }
        for split, scores in (trained.get("metrics") or {}).items()
        if numbers(scores)
    ]


def _metric(name: str, value: float) -> dict[str, Any]:
    """A metric under the name that the Hub has for it, with ours beside it."""
    return {"type": _METRICS.get(name, name), "value": value, "name": metrics.measure(name).title}


def _kept(trained: Manifest) -> list[int]:
    """Return the teacher's layers that the student began with, counted from 0; empty where no run has them."""
    config = trained.get("config", {})
    truncated = _manifest(Path(str(config["student"]))) if config.get("student") else {}
    return list(trained.get("keep") or config.get("keep") or truncated.get("keep") or ())


def _metrics(trained: Manifest, teacher: Manifest, control: Manifest) -> list[tuple[str, str, str, str, str]]:
    """Rows of split, metric, and the scores of model, teacher and control (of a comparison, with the same seed)."""

    def of(manifest: Manifest, split: str, metric: str) -> str:
        value = numbers((manifest.get("metrics") or {}).get(split)).get(metric)
        return format.score(value, metric)

    control = {} if trained.get("method") == "none" else control
    return [
        (split, metrics.measure(metric).title, *(of(m, split, metric) for m in (trained, teacher, control)))
        for split, scores in (trained.get("metrics") or {}).items()
        for metric in numbers(scores)
    ]


def _artefact(found: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """A row of file, size, median latency with one row and with 32, and the share of equal labels."""
    latency = found.get("latency_ms") or {}
    times = [format.milliseconds(numbers(latency.get(batch)).get("p50")) for batch in ("1", "32")]
    agreement = format.share(metrics.finite(found.get("label_agreement")))
    return str(found.get("name")), format.megabytes(metrics.finite(found.get("bytes"))), times[0], times[1], agreement
