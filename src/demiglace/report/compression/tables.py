"""Tables of a compression: exported files, measured candidates, and the rungs of the training."""

from collections.abc import Mapping
from typing import Any

from demiglace.report import format
from demiglace.report.tables import Cell, Column, Table, from_columns, numbers
from demiglace.results.metric_table import metric_of


def file_table(manifest: Mapping[str, Any]) -> Table:
    """Return a row for each exported file: size, latency, quality, and which one is to be shipped."""
    metric, files = manifest["metric"], manifest["model_files"]
    kind, chosen = metric_of(metric), manifest["chosen"]
    names = [
        Cell(f"{f['model']}, {f['precision']}", note="to ship" if chosen and f["file"] == chosen["file"] else "")
        for f in files
    ]
    columns = [
        (Column("File", text=True), names),
        (Column("Method", text=True), [Cell(f["method"] or format.MISSING) for f in files]),
        numbers("Size", [f["cost"]["bytes"] for f in files], format.size, -1),
        numbers("Latency", [f["cost"]["latency_ms"] for f in files], format.milliseconds, -1),
        numbers(
            f"{kind.title}, validation",
            [f["validation"][metric] for f in files],
            lambda value: format.score(value, metric),
            kind.sign,
        ),
        numbers(
            f"{kind.title}, test", [f["test"].get(metric) for f in files], lambda value: format.score(value, metric)
        ),
        numbers("Same label as PyTorch", [f["label_agreement"] for f in files], format.share),
    ]
    return from_columns(columns, [f["role"] if f["role"] in ("teacher", "baseline") else "" for f in files])


def candidate_table(manifest: Mapping[str, Any]) -> Table | None:
    """Return a row for each measured candidate and precision; None if nothing was measured."""
    rows = [(c, p, cost) for c in manifest["candidates"] for p, cost in c["costs"].items()]
    if not rows:
        return None
    return from_columns(
        [
            (Column("Candidate", text=True), [Cell(f"{c['name']}, {p}") for c, p, _ in rows]),
            numbers("Size", [cost["bytes"] for *_, cost in rows], format.size),
            numbers("Latency", [cost["latency_ms"] for *_, cost in rows], format.milliseconds),
            (Column("Fits", text=True), [Cell("yes" if cost["fits"] else "no", quiet=True) for *_, cost in rows]),
            (Column("Trained", text=True), [Cell("yes" if c["trained"] else "no", quiet=True) for c, *_ in rows]),
        ],
        [""] * len(rows),
    )


def rung_table(manifest: Mapping[str, Any]) -> Table | None:
    """Return a row for each student with its quality after each rung; None if nothing was trained."""
    rungs, metric = manifest["rungs"], manifest["metric"]
    if not rungs:
        return None
    students = {run["name"]: run["method"] for run in rungs[0]}
    columns = [
        (Column("Student", text=True), [Cell(name) for name in students]),
        (Column("Method", text=True), [Cell(method) for method in students.values()]),
    ]
    epochs = 0
    for rung, more in zip(rungs, manifest["rung_epochs"], strict=False):
        epochs += more
        after = {run["name"]: run["quality"] for run in rung}
        title = f"after {format.count_of(epochs, 'epoch')}"
        values = [after.get(name) for name in students]
        columns.append(numbers(title, values, lambda value: format.score(value, metric), metric_of(metric).sign))
    return from_columns(columns, [""] * len(students))
