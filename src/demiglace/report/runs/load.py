"""Load the contents of a report from run directories: manifests, logs and predictions; no weights, no data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demiglace.console import say
from demiglace.errors import RunError
from demiglace.report.runs.classes import read_classes
from demiglace.report.runs.links import external_name, find, name_of, role_of, unique_names
from demiglace.report.runs.schema import Artefact, Evaluation, Experiment, Latency, Model, Record, Role, RunReport
from demiglace.report.runs.tables import model_table
from demiglace.results.load import is_comparison
from demiglace.results.metric_table import finite
from demiglace.results.run_log import Log, Scores, numbers, read_log
from demiglace.runs.artefacts import ORIGINAL, TEACHER, measured_artefacts
from demiglace.runs.directory import FORMAT, read_manifest
from demiglace.runs.files import file_name, read_json

_ORDER: tuple[Role, ...] = ("teacher", "distilled", "baseline", "model")


def collect(paths: Sequence[Path], title: str = "demiglace report") -> RunReport:
    """Read the runs at `paths`, each a run directory or a directory that contains some.

    Raises `RunError` for a directory that is no run and contains none, an unfinished run, and a damaged manifest.
    """
    records = tuple(sorted(map(_read, _run_directories(paths)), key=lambda r: str(r.manifest.get("finished", ""))))
    names = unique_names([r.path for r in records])
    evaluations = tuple(e for r in records if r.stage == "evaluate" for e in _evaluations(r, records, names))
    artefacts = tuple(a for r in records if r.stage == "export" for a in _artefacts(r, records, names))
    models = [_model(r, records, names) for r in records if r.stage in ("finetune", "pretrain", "distill")]
    models += _external_teachers(models, names, evaluations)
    measured = [_measured(m, evaluations, artefacts) for m in models]
    return RunReport(title, _experiments(measured), evaluations, artefacts, records)


def summary_rows(page: RunReport) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Return the table of each task as (task, columns, rows of texts), as `console.table` takes them."""
    return [
        (e.task, tuple(c.title for c in t.columns), [tuple(cell.text for cell in row) for row in t.rows])
        for e in page.experiments
        for t in [model_table(e)]
    ]


def _run_directories(paths: Iterable[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        inner = _runs_inside(path) if _may_contain_runs(path) else []
        itself = [path] if (path / "manifest.json").exists() or not inner else []
        found |= {p.absolute(): p for p in itself + inner}
    return list(found.values())


def _may_contain_runs(path: Path) -> bool:
    claim = path / "run.json"
    return not claim.exists() or read_json(claim).get("stage") == "demo"


def _runs_inside(path: Path) -> list[Path]:
    """Return the complete runs one level down; unfinished ones are left out and named."""
    inside = sorted(claim.parent for claim in path.glob("*/run.json"))
    comparisons = [p for p in inside if is_comparison(p)]
    unfinished = [p for p in inside if p not in comparisons and not (p / "manifest.json").exists()]
    for p in comparisons:
        say(f"left out {p}: a comparison has its own page, demiglace report {p}.")
    for p in unfinished:
        say(f"left out {p}: the run is not finished.")
    return [p for p in inside if p not in (*comparisons, *unfinished)]


def _read(path: Path) -> Record:
    manifest = read_manifest(path)
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("config"), dict):
        raise RunError(
            f"{path / 'manifest.json'} is of format {manifest.get('format')!r}, and this version reads {FORMAT}; "
            "repeat the run's command with this version, or report with the version that wrote it."
        )
    return Record(path, str(manifest.get("stage")), manifest)


def _evaluations(record: Record, records: Sequence[Record], names: Mapping[Path, str]) -> list[Evaluation]:
    model = name_of(record.config.get("model"), records, names)
    trained = find(record.config.get("model"), records)
    labels = [] if trained is None else [str(label) for label in trained.manifest.get("labels") or ()]
    return [
        Evaluation(
            model,
            name,
            finite(found.get("rows")),
            numbers(found.get("metrics")),
            finite(found.get("agreement")),
            read_classes(record.path / file_name(name), labels),
        )
        for name, found in record.manifest.get("sets", {}).items()
    ]


def _artefacts(record: Record, records: Sequence[Record], names: Mapping[Path, str]) -> list[Artefact]:
    model = name_of(record.config.get("model"), records, names)
    teacher = name_of(record.config.get("teacher"), records, names)
    return [
        Artefact(
            model=teacher if found["role"] == TEACHER else model,
            name=str(found.get("name")),
            role=found["role"],
            file=str(found.get("file") or ""),
            size=finite(found.get("bytes")),
            latency=_latencies(found.get("latency_ms") or {}),
            tokens_per_second=numbers(found.get("tokens_per_second")),
            peak_memory=finite(found.get("peak_memory_mb")),
            label_agreement=finite(found.get("label_agreement")),
            largest_difference=finite(found.get("largest_logit_difference")),
            scores=numbers(found.get("metrics")) or _scores_of_file(str(found.get("file") or ""), records),
        )
        for found in measured_artefacts(record.manifest)
    ]


def _scores_of_file(file: str, records: Sequence[Record]) -> Scores:
    """Return the scores of an exported file from the first set of a run that evaluated it; empty without one."""
    ends = Path(file).parts[-3:]  # EXPORT/onnx/model.onnx
    for record in records:
        if file and record.stage == "evaluate" and Path(str(record.config.get("model"))).parts[-3:] == ends:
            return next((numbers(s.get("metrics")) for s in record.manifest.get("sets", {}).values()), {})
    return {}


def _latencies(by_batch: Mapping[str, Mapping[str, Any]]) -> dict[int, Latency]:
    found = {int(batch): (finite(times.get("p50")), finite(times.get("p95"))) for batch, times in by_batch.items()}
    return {batch: Latency(p50, p95) for batch, (p50, p95) in found.items() if p50 is not None}


def _model(record: Record, records: Sequence[Record], names: Mapping[Path, str]) -> Model:
    manifest, spent = record.manifest, numbers(record.manifest.get("seconds"))
    teacher = find(record.config.get("teacher"), records)
    role = role_of(record, records)
    log = read_log(record.path / "log.jsonl")
    if log.unreadable:
        say(f"{record.path / 'log.jsonl'}: {log.unreadable} damaged lines are left out.")
    return Model(
        name=names[record.path],
        role=role,
        method=_method(record, role),
        task=str(manifest.get("task", "")),
        problem=str(manifest.get("problem", "classification")),
        seed=record.config.get("seed"),
        scores={split: numbers(scores) for split, scores in (manifest.get("metrics") or {}).items()},
        rows=numbers(manifest.get("rows")),
        drops=numbers(manifest.get("drops")),
        layers=finite(manifest.get("layers")),
        parameters=finite(manifest.get("parameters")),
        size=finite(manifest.get("bytes")),
        agreement=None,
        latency=None,
        capture_seconds=spent.get("capture") or None,
        train_seconds=spent.get("train"),
        teacher=_teacher_name(record, names) if teacher is None else names[teacher.path],
        log=log,
    )


def _teacher_name(record: Record, names: Mapping[Path, str]) -> str | None:
    """Return the name of a teacher that is no run of the report."""
    reference = record.config.get("teacher")
    return external_name(reference, names) if isinstance(reference, str) and reference.strip() else None


def _external_teachers(
    models: Sequence[Model], names: Mapping[Path, str], evaluations: Sequence[Evaluation]
) -> list[Model]:
    """Return the teachers that are no runs of the report, with the scores that evaluate runs measured."""
    known = {*names.values()}
    found: dict[tuple[str, str], Model] = {}
    for student in models:
        if student.role == "distilled" and student.teacher and student.teacher not in known:
            found.setdefault((student.teacher, student.task), student)
    return [_external_teacher(name, student, evaluations) for (name, _), student in found.items()]


def _external_teacher(name: str, student: Model, evaluations: Sequence[Evaluation]) -> Model:
    """Return an external teacher; student: one of its students, which has the task and the rows of the splits."""
    of_task = [e for e in evaluations if e.model == name and e.set.split(":")[0] == student.task]
    scores = {split: e.scores for split, n in student.rows.items() for e in of_task[:1] if e.rows == n}
    return replace(
        student,
        name=name,
        role="teacher",
        method="external model",
        seed=None,
        scores=scores,
        rows={},
        drops={},
        layers=None,
        parameters=None,
        size=None,
        capture_seconds=None,
        train_seconds=None,
        teacher=None,
        log=Log(),
    )


def _method(record: Record, role: Role) -> str:
    if role == "baseline":
        return "no teacher"
    named = {"finetune": "fine-tuning", "pretrain": "pre-training"}
    return named.get(record.stage) or str(record.config.get("method", ""))


def _measured(model: Model, evaluations: Sequence[Evaluation], artefacts: Sequence[Artefact]) -> Model:
    """Return the model with the results of evaluate and export runs."""
    own = [a for a in artefacts if a.model == model.name]
    plain = next((a for role in (ORIGINAL, TEACHER) for a in own if a.role == role), None)
    sets = [e for e in evaluations if e.model == model.name and e.agreement is not None]
    of_task = [e for e in sets if e.set.split(":")[0] == model.task] or (sets if len(sets) == 1 else [])
    is_teacher = model.role == "teacher"
    return replace(
        model,
        agreement=of_task[0].agreement if of_task and not is_teacher else None,
        size=model.size if model.size is not None or plain is None else plain.size,
        latency=None if plain is None else plain.latency.get(1),
    )


def _experiments(models: Sequence[Model]) -> tuple[Experiment, ...]:
    tasks = dict.fromkeys(m.task for m in models)
    return tuple(_experiment(task, [m for m in models if m.task == task]) for task in tasks)


def _experiment(task: str, models: list[Model]) -> Experiment:
    split = "test" if all(m.scores.get("test") for m in models if m.role != "teacher" or m.scores) else "validation"
    metrics = dict.fromkeys(metric for m in models for metric in m.scores.get(split, {}) if metric != "loss")
    ordered = sorted(models, key=lambda m: _ORDER.index(m.role))
    return Experiment(task, split, tuple(metrics), tuple(ordered))
