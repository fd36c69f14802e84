"""What a student and method cost: to train, to keep, to run. Means over the tasks, of seconds the sums."""

from collections.abc import Callable, Sequence

from demiglace.report import format
from demiglace.report.comparison import labels
from demiglace.report.comparison.tables import Columns, in_order, put_together
from demiglace.report.tables import Cell, Column, Table
from demiglace.results.comparison import Comparison, Cost

Write = Callable[[float | None], str]


def cost_table(comparison: Comparison) -> Table:
    """One row a student and method, the teachers last: parameters, bytes, seconds by what they went into, exports."""
    seconds = [comparison.seconds(key) or (None, None) for key in in_order(comparison)]
    columns: Columns = [
        _costs(comparison, "Parameters", "parameters", format.millions),
        _costs(comparison, "File size", "size", format.megabytes),
        _column("Teacher capture", [*(capture for capture, _ in seconds), None], format.seconds),
        _column(
            f"Training, a {comparison.unit}",
            [*(train for _, train in seconds), comparison.teacher_seconds()],
            format.seconds,
        ),
        _costs(comparison, f"Latency, {labels.exported(comparison)}", "latency", format.milliseconds),
        *_smaller(comparison, "int8"),
    ]
    return put_together(comparison, columns)


def _costs(comparison: Comparison, title: str, cost: Cost, write: Write) -> tuple[Column, list[Cell]]:
    values = [*(comparison.cost(key, cost) for key in in_order(comparison)), comparison.teacher_cost(cost)]
    return _column(title, values, write)


def _smaller(comparison: Comparison, precision: str) -> Columns:
    """The export in fewer bits: its own latency and size, and how often it gives the checkpoint's label."""
    found = [*(comparison.export(k, precision) for k in in_order(comparison)), comparison.teacher_export(precision)]
    return [
        _column(f"Latency, {precision}", [a.latency for a in found], format.milliseconds),
        _column(f"File size, {precision}", [a.size for a in found], format.megabytes),
        _column(f"Same label, {precision}", [a.agreement for a in found], format.share),
    ]


def _column(title: str, values: Sequence[float | None], write: Write) -> tuple[Column, list[Cell]]:
    return Column(title), [Cell(write(v), v) for v in values]
