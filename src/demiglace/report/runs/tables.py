"""The tables about single runs: models, exported files, other sets, rows."""

from collections.abc import Sequence

from demiglace.report import format
from demiglace.report.runs.schema import Artefact, Evaluation, Experiment, Model
from demiglace.report.tables import Cell, Column, Table, from_columns, numbers
from demiglace.results.metric_table import metric_of
from demiglace.runs.artefacts import TEACHER

ROLES = {"teacher": "teacher", "distilled": "distilled student", "baseline": "baseline", "model": "model"}


def model_table(experiment: Experiment) -> Table:
    """Return one row for each model: what it is, what it costs, its scores."""
    models = experiment.models
    columns: list[tuple[Column, list[Cell]]] = [
        (Column("Model", text=True), [Cell(_name(m)) for m in models]),
        (Column("Method", text=True), [Cell(m.method) for m in models]),
        numbers("Layers", [m.layers for m in models], format.count),
        numbers("Parameters", [m.parameters for m in models], format.parameters, -1),
        numbers("File size", [m.size for m in models], format.size, -1),
        *(
            _scores(metric, [experiment.score(m, metric) for m in models], metric_of(metric).sign)
            for metric in experiment.metrics
        ),
        numbers("Agreement with teacher", [m.agreement for m in models], lambda v: format.score(v, "agreement"), 1),
        numbers("Latency p50", [None if m.latency is None else m.latency.p50 for m in models], format.milliseconds, -1),
        numbers("Latency p95", [None if m.latency is None else m.latency.p95 for m in models], format.milliseconds, -1),
        numbers("Capture", [m.capture_seconds for m in models], format.seconds),
        numbers("Training", [m.train_seconds for m in models], format.seconds, -1),
    ]
    return from_columns(columns, [m.role for m in models])


def artefact_table(artefacts: Sequence[Artefact]) -> Table:
    """Return one row for each exported file: size, speed, memory, parity with PyTorch.

    Speed is the latency at batch 1 and 32, or of a language model tokens per second.
    """

    def latency(batch: int, which: str) -> tuple[Column, list[Cell]]:
        found = [a.latency.get(batch) for a in artefacts]
        values = [None if t is None else (t.p50 if which == "p50" else t.p95) for t in found]
        return numbers(f"{which}, batch\u00a0{batch}", values, format.milliseconds, -1)

    def tokens_per_second(part: str) -> tuple[Column, list[Cell]]:
        values = [a.tokens_per_second.get(part) for a in artefacts]
        return numbers(f"{part.capitalize()}, tokens/s", values, format.rate, 1)

    metrics = dict.fromkeys(metric for a in artefacts for metric in a.scores)
    columns = [
        (Column("Artefact", text=True), [Cell(_artefact(a)) for a in artefacts]),
        (Column("File", text=True), [Cell(format.shorten(a.file.rsplit("/", 1)[-1], 40)) for a in artefacts]),
        numbers("Size", [a.size for a in artefacts], format.size, -1),
        *(latency(batch, which) for batch in (1, 32) for which in ("p50", "p95")),
        *(tokens_per_second(part) for part in ("prefill", "decode")),
        numbers("Peak memory", [a.peak_memory and 1e6 * a.peak_memory for a in artefacts], format.size, -1),
        *(_scores(metric, [a.scores.get(metric) for a in artefacts], 0) for metric in metrics),
        numbers(_agreement_title(artefacts), [a.label_agreement for a in artefacts], format.share),
        numbers("Largest logit difference", [a.largest_difference for a in artefacts], format.small),
    ]
    return from_columns(columns, ["" for _ in artefacts])


def _agreement_title(artefacts: Sequence[Artefact]) -> str:
    """Return what agrees with PyTorch: labels, or the next tokens of language models."""
    return f"Same {'next token' if any(a.tokens_per_second for a in artefacts) else 'label'} as PyTorch"


def evaluation_table(evaluations: Sequence[Evaluation]) -> Table:
    """Return one row for each model and set."""
    metrics = dict.fromkeys(metric for e in evaluations for metric in e.scores)
    columns = [
        (Column("Set", text=True), [Cell(format.shorten(e.set)) for e in evaluations]),
        (Column("Model", text=True), [Cell(format.shorten(e.model)) for e in evaluations]),
        numbers("Rows", [e.rows for e in evaluations], format.count),
        *(_scores(metric, [e.scores.get(metric) for e in evaluations], 0) for metric in metrics),
        numbers("Agreement with teacher", [e.agreement for e in evaluations], lambda v: format.score(v, "agreement")),
    ]
    return from_columns(columns, ["" for _ in evaluations])


def rows_table(experiment: Experiment) -> Table:
    """Return the rows in each split and the rows left out, one line for all models with the same rows."""
    seen: dict[tuple, list[Model]] = {}
    for m in experiment.models:
        seen.setdefault((tuple(m.rows.items()), tuple(m.drops.items())), []).append(m)
    groups = list(seen.values())
    splits = dict.fromkeys(split for m in experiment.models for split in m.rows)
    reasons = dict.fromkeys(reason for m in experiment.models for reason in m.drops)
    columns = [
        (Column("Models", text=True), [Cell(format.shorten(", ".join(m.name for m in g))) for g in groups]),
        *(numbers(format.shorten(s), [g[0].rows.get(s) for g in groups], format.count) for s in splits),
        *(
            numbers(f"left out: {format.shorten(r)}", [g[0].drops.get(r) for g in groups], format.count)
            for r in reasons
        ),
    ]
    return from_columns(columns, ["" for _ in groups])


def _name(model: Model) -> str:
    name, role = format.shorten(model.name), ROLES[model.role]
    return name if model.role == "model" or any(word in name.lower() for word in role.split()) else f"{name} ({role})"


def _artefact(artefact: Artefact) -> str:
    alone = artefact.role == TEACHER
    return artefact.name if alone else f"{artefact.name} · {format.shorten(artefact.model)}"


def _scores(metric: str, values: Sequence[float | None], better: int) -> tuple[Column, list[Cell]]:
    return numbers(format.shorten(metric_of(metric).title), values, lambda v: format.score(v, metric), better)
