"""The tables of a report as texts with a sort key; the terminal and the page print the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from demiglace.report import format
from demiglace.report.runs.schema import Artefact, Evaluation, Experiment, Model
from demiglace.results import metrics as metrics_module
from demiglace.runs.artefacts import TEACHER
from demiglace.tasks.registry import predicts_classes

ROLES = {"teacher": "teacher", "distilled": "distilled student", "control": "control", "model": "model"}


@dataclass(frozen=True)
class Column:
    """A table column; `better`: +1 where the highest value is the best, -1 the lowest, 0 none is."""

    title: str
    text: bool = False
    better: int = 0


@dataclass(frozen=True)
class Cell:
    """What a cell shows, the number it sorts by (none: by its text), and whether it is the column's best.

    note: a few words below; quiet: greyed; link: where on the page, or beside it, more is told; anchor: its own name.
    """

    text: str
    value: float | None = None
    best: bool = False
    note: str = ""
    quiet: bool = False
    link: str = ""
    anchor: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows of cells; `marks`: a class for each row ("control", …)."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marks: tuple[str, ...]


def model_table(experiment: Experiment) -> Table:
    """One row a model: what it is, what it costs, how good it is."""
    models = experiment.models
    columns: list[tuple[Column, list[Cell]]] = [
        (Column("Model", text=True), [Cell(_name(m)) for m in models]),
        (Column("Method", text=True), [Cell(m.method) for m in models]),
        _numbers("Layers", [m.layers for m in models], format.count),
        _numbers("Parameters", [m.parameters for m in models], format.millions, -1),
        _numbers("File size", [m.size for m in models], format.megabytes, -1),
        *(
            _scores(
                metric,
                [experiment.score(m, metric) for m in models],
                1 if metrics_module.measure(metric).higher_is_better else -1,
            )
            for metric in experiment.metrics
        ),
        _numbers("Agreement with teacher", [m.agreement for m in models], _agreement(models), 1),
        _numbers(
            "Latency p50", [None if m.latency is None else m.latency.p50 for m in models], format.milliseconds, -1
        ),
        _numbers(
            "Latency p95", [None if m.latency is None else m.latency.p95 for m in models], format.milliseconds, -1
        ),
        _numbers("Capture", [m.capture_seconds for m in models], format.seconds),
        _numbers("Training", [m.train_seconds for m in models], format.seconds, -1),
    ]
    return _table(columns, [m.role for m in models])


def artefact_table(artefacts: Sequence[Artefact]) -> Table:
    """One row an exported file: size, latency at batch 1 and 32, memory, parity with PyTorch."""

    def latency(batch: int, which: str) -> tuple[Column, list[Cell]]:
        found = [a.latency.get(batch) for a in artefacts]
        values = [None if t is None else (t.p50 if which == "p50" else t.p95) for t in found]
        return _numbers(f"{which}, batch\u00a0{batch}", values, format.milliseconds, -1)

    columns = [
        (Column("Artefact", text=True), [Cell(_artefact(a)) for a in artefacts]),
        (Column("File", text=True), [Cell(format.shorten(a.file.rsplit("/", 1)[-1], 40)) for a in artefacts]),
        _numbers("Size", [a.size for a in artefacts], format.megabytes, -1),
        *(latency(batch, which) for batch in (1, 32) for which in ("p50", "p95")),
        _numbers("Peak memory", [a.peak_memory and 1e6 * a.peak_memory for a in artefacts], format.megabytes, -1),
        _numbers("Same label as PyTorch", [a.label_agreement for a in artefacts], format.share),
        _numbers("Largest logit difference", [a.largest_difference for a in artefacts], format.small),
    ]
    return _table(columns, ["" for _ in artefacts])


def evaluation_table(evaluations: Sequence[Evaluation]) -> Table:
    """One row a model and set."""
    metrics = dict.fromkeys(metric for e in evaluations for metric in e.scores)
    columns = [
        (Column("Set", text=True), [Cell(format.shorten(e.set)) for e in evaluations]),
        (Column("Model", text=True), [Cell(format.shorten(e.model)) for e in evaluations]),
        _numbers("Rows", [e.rows for e in evaluations], format.count),
        *(_scores(metric, [e.scores.get(metric) for e in evaluations], 0) for metric in metrics),
        _numbers("Agreement with teacher", [e.agreement for e in evaluations], format.share),
    ]
    return _table(columns, ["" for _ in evaluations])


def rows_table(experiment: Experiment) -> Table:
    """Rows in each split and rows left out, one line for all models that saw the same."""
    seen: dict[tuple, list[Model]] = {}
    for m in experiment.models:
        seen.setdefault((tuple(m.rows.items()), tuple(m.drops.items())), []).append(m)
    groups = list(seen.values())
    splits = dict.fromkeys(split for m in experiment.models for split in m.rows)
    reasons = dict.fromkeys(reason for m in experiment.models for reason in m.drops)
    columns = [
        (Column("Models", text=True), [Cell(format.shorten(", ".join(m.name for m in g))) for g in groups]),
        *(_numbers(format.shorten(s), [g[0].rows.get(s) for g in groups], format.count) for s in splits),
        *(
            _numbers(f"left out: {format.shorten(r)}", [g[0].drops.get(r) for g in groups], format.count)
            for r in reasons
        ),
    ]
    return _table(columns, ["" for _ in groups])


def _name(model: Model) -> str:
    name, role = format.shorten(model.name), ROLES[model.role]
    return name if model.role == "model" or any(word in name.lower() for word in role.split()) else f"{name} ({role})"


def _artefact(artefact: Artefact) -> str:
    alone = artefact.role == TEACHER
    return artefact.name if alone else f"{artefact.name} · {format.shorten(artefact.model)}"


def _agreement(models: Sequence[Model]) -> Callable[[float | None], str]:
    """A share of equal labels; of two regressors, their correlation."""
    return format.share if all(predicts_classes(m.problem) for m in models) else format.decimal


def _scores(metric: str, values: Sequence[float | None], better: int) -> tuple[Column, list[Cell]]:
    return _numbers(
        format.shorten(metrics_module.measure(metric).title), values, lambda v: format.score(v, metric), better
    )


def _numbers(
    title: str, values: Sequence[float | None], write: Callable[[float | None], str], better: int = 0
) -> tuple[Column, list[Cell]]:
    return Column(title, better=better), [Cell(write(v), v) for v in values]


def _table(columns: Sequence[tuple[Column, list[Cell]]], marks: Sequence[str]) -> Table:
    """Columns side by side; number columns without any value are left out."""
    kept = [(c, _with_best(c, cells)) for c, cells in columns if c.text or any(x.value is not None for x in cells)]
    rows = tuple(zip(*(cells for _, cells in kept), strict=True))
    return Table(tuple(c for c, _ in kept), rows, tuple(marks))


def _with_best(column: Column, cells: list[Cell]) -> list[Cell]:
    """Mark the best cells: all that read like the best one, unless all read alike."""
    values = [c.value for c in cells if c.value is not None]
    if not column.better or not values:
        return cells
    best = max(values) if column.better > 0 else min(values)
    text = next(c.text for c in cells if c.value == best)
    if len({c.text for c in cells if c.value is not None}) < 2:
        return cells
    return [replace(c, best=c.text == text) for c in cells]
