"""The page about a compression: what to ship, what it costs in quality, and the alternatives that were measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demiglace.config.command_options import CompressConfig
from demiglace.config.options import options_of
from demiglace.console import WARNING
from demiglace.report import format, svg
from demiglace.report.commands import PortablePaths, command_line
from demiglace.report.compression.charts import quality_charts
from demiglace.report.compression.tables import candidate_table, file_table, rung_table
from demiglace.report.runs.page import machine_of, template
from demiglace.report.runs.schema import Record
from demiglace.results.metric_table import metric_of
from demiglace.runs.directory import read_manifest

Manifest = Mapping[str, Any]


def render_compression(manifest: Manifest, root: Path) -> str:
    """Return the page as HTML, as safe as that of `report.runs.page.render`.

    manifest: of the compression in the directory `root`, or its fields so far where no file fits the budget; then
    `problem_in_words` is the reason.
    """
    portable = PortablePaths.around([root])
    return template("compression.html.j2").render(
        title=f"{manifest['task']}: compressed to {manifest['limits_in_words']}",
        headline=headline(manifest),
        figures=_figures(manifest),
        notes=_notes(manifest),
        files=file_table(manifest),
        charts=quality_charts(manifest),
        candidates=candidate_table(manifest),
        rungs=rung_table(manifest),
        command=_command(manifest, root, portable),
        inside=_inside(manifest),
        notices=_notices(manifest, root, portable),
        machine=machine_of([manifest]),
        frame=svg,
    )


def split_of(manifest: Manifest) -> str:
    """Return the split of the headline: test if there are test rows, else validation."""
    chosen = manifest["chosen"]
    return "test" if chosen is not None and chosen["test"] else "validation"


def headline(manifest: Manifest) -> str:
    """Return the answer about the file to ship: ``7.1 MB and 0.45 ms instead of 91 MB and 7.4 ms; accuracy …``."""
    chosen, teacher, metric = manifest["chosen"], manifest["teacher"], manifest["metric"]
    if chosen is None:
        return str(manifest["problem_in_words"])
    split = split_of(manifest)
    small, large = (f"{_size(f)} and {_latency(f)}" for f in (chosen, teacher))
    quality = " instead of ".join(format.score(f[split][metric], metric) for f in (chosen, teacher))
    return f"{small} instead of {large}; {metric_of(metric).phrase} {quality} on the {split} rows."


def _size(file: Mapping[str, Any]) -> str:
    return format.size(file["cost"]["bytes"])


def _latency(file: Mapping[str, Any]) -> str:
    return format.milliseconds(file["cost"]["latency_ms"])


def _figures(manifest: Manifest) -> list[tuple[str, str]]:
    """Return (value, description) of the key figures; empty without a chosen file."""
    chosen, teacher, metric = manifest["chosen"], manifest["teacher"], manifest["metric"]
    if chosen is None:
        return []
    split = split_of(manifest)
    faster = teacher["cost"]["latency_ms"] / chosen["cost"]["latency_ms"]
    return [
        (_size(chosen), f"the file, {format.percent(chosen['cost']['bytes'] / teacher['cost']['bytes'])} of the model"),
        (_latency(chosen), f"median of one row, {format.times(faster)} × as fast"),
        (format.score(chosen[split][metric], metric), f"{metric_of(metric).phrase} of the file, {split} rows"),
        (format.score(teacher[split][metric], metric), f"{metric_of(metric).phrase} of the model, {split} rows"),
    ]


def _notes(manifest: Manifest) -> list[str]:
    """Return sentences that qualify the headline."""
    chosen, teacher, metric = manifest["chosen"], manifest["teacher"], manifest["metric"]
    if chosen is None:
        return []
    kind = metric_of(metric)
    notes = [
        f"The file to ship: {chosen['model']}, {chosen['precision']}"
        + (f", trained by {chosen['method']}" if chosen["method"] else "")
        + f". It was chosen on {manifest['rows']['validation']:,} validation rows, where it "
        f"{'gains' if manifest['drop'] < 0 else 'loses'} {abs(manifest['drop']):.1f} points of {kind.phrase}."
    ]
    if "test" in manifest["rows"]:
        notes[0] += f" The {manifest['rows']['test']:,} test rows were scored once, after the choice."
    if manifest["pytorch"]:
        cost = manifest["pytorch"]
        notes.append(
            f"The model is measured in the same runtime, in {teacher['precision']}; in PyTorch it takes "
            f"{format.milliseconds(cost['latency_ms'])}. All latencies are of one row on one machine."
        )
    baseline = next((f for f in manifest["model_files"] if f["role"] == "baseline" and f["test"]), None)
    split = split_of(manifest)
    if baseline is not None and chosen["role"] == "student":
        gain = kind.scale * kind.sign * (chosen[split][metric] - baseline[split].get(metric, 0.0))
        if baseline["model"] == f"{chosen['model']}, no teacher" and baseline[split]:
            notes.append(
                f"The teacher adds {gain:+.1f} points: the same student without it reaches "
                f"{format.score(baseline[split][metric], metric)}."
            )
    return [*notes, *_static_note(manifest, split), *_vocabulary_note(manifest)]


def _static_note(manifest: Manifest, split: str) -> list[str]:
    """Return what the static student reaches, where there is one."""
    found = sorted((f for f in manifest["model_files"] if f["role"] == "static"), key=lambda f: not f[split])
    if not found:
        return []
    static = found[0]
    metric, chosen = manifest["metric"], manifest["chosen"]
    if chosen["role"] == "static":
        return ["It has no layers: a table of token vectors and a linear layer. This task does not need more."]
    scores = static[split] or static["validation"]
    where = split if static[split] else "validation"
    return [
        f"For comparison, the static student (token vectors and a linear layer) reaches "
        f"{format.score(scores[metric], metric)} on the {where} rows, in {_size(static)} and {_latency(static)}."
    ]


def _vocabulary_note(manifest: Manifest) -> list[str]:
    """Return what a trimmed vocabulary changes, for a file that has one."""
    found = manifest["vocabulary"]
    if not found:
        return []
    longer = (
        f"; the validation rows are {format.share(found['coverage']['growth'])} longer" if "coverage" in found else ""
    )
    return [
        f"It has {found['kept']:,} of the model’s {found['full']:,} tokens, those of the training texts{longer}. Other "
        "words are split into smaller pieces, so give more text of the kind that it will read as `--vocabulary-corpus`."
    ]


def _command(manifest: Manifest, root: Path, portable: PortablePaths) -> str:
    """Return the command that repeats the compression; empty where the manifest is not complete."""
    if "config" not in manifest:
        return ""
    limits = {name: value for name, value in manifest["limits"].items() if value is not None}
    record = Record(root, "compress", {**manifest, "config": {**manifest["config"], **limits}})
    return command_line(record, options_of(CompressConfig), portable)


def _inside(manifest: Manifest) -> list[tuple[str, str]]:
    """Return (path, what it is) of the files in the directory."""
    if manifest["chosen"] is None:
        return []
    to, chosen = str(manifest["config"]["to"]), manifest["chosen"]
    return [
        ("model/", "the PyTorch model, as Hugging Face reads it"),
        (
            f"{to}/{Path(chosen['file']).relative_to(chosen['export'])}",
            "the file to ship, beside its tokenizer and config",
        ),
        ("README.md", "the model card"),
        ("runs/", "a run directory for each step; `demiglace clean-up` removes what they no longer need"),
    ]


def _notices(manifest: Manifest, root: Path, portable: PortablePaths) -> list[tuple[bool, str]]:
    """Return the notices of the compression and of its runs, each once: whether it is a warning, and its sentence."""
    runs = [read_manifest(file.parent) for file in sorted(root.glob("runs/**/manifest.json"))]
    found = [str(n["message"]) for m in (manifest, *runs) for n in m.get("notices") or ()]
    messages: Sequence[str] = list(dict.fromkeys(map(portable.in_sentence, found)))
    return [(m.startswith(WARNING), m.removeprefix(WARNING)) for m in messages]
