"""What a person sees while a command runs: lines, progress bars with rate and remaining time, tables. All on stderr,
so that standard output holds only what was asked for."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

_WIDTH_OF_FILES = 120  # where standard error is no terminal

console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDTH_OF_FILES)


def terminal() -> Console:
    """A console on what standard error is now, which stays there when standard error is sent to a file later."""
    return Console(file=sys.stderr, highlight=False, width=None if console.is_terminal else _WIDTH_OF_FILES)


def say(message: str) -> None:
    """Print one line, on the main process only."""
    if is_main_process():
        console.print(message, markup=False, soft_wrap=True)


def is_main_process() -> bool:
    """Whether this process is the first of a `torchrun`, or the only one."""
    return os.environ.get("RANK", "0") == "0"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {unit}/s" if speed else f"– {unit}/s", style="cyan", no_wrap=True)


@contextmanager
def progress(description: str, total: int, unit: str, done: int = 0) -> Iterator["Bar"]:
    """A progress bar over `total` units, `done` of them already; where there is no terminal, one line at the end."""
    bar = Progress(
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not is_main_process(),
        refresh_per_second=4,
    )
    with bar:
        yield Bar(bar, bar.add_task(description, total=total, completed=done, unit=unit, note=""))


class Bar:
    """A running progress bar."""

    def __init__(self, bar: Progress, task: int):
        self._bar, self._task = bar, task

    def advance(self, amount: int, note: str | None = None) -> None:
        """Add `amount` done units, and show a short note (a loss, a metric) beside them."""
        fields = {} if note is None else {"note": note}
        self._bar.update(self._task, advance=amount, **fields)  # type: ignore[arg-type]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of texts; the first column names the row, the others are set right."""
    drawn = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, column in enumerate(columns):
        drawn.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def print_table(drawn: Table) -> None:
    """Print a table on standard output; where that is no terminal, as wide as it is, so that no cell is broken."""
    for column in drawn.columns:
        column.justify = "left"
    out = Console(file=sys.stdout, highlight=False)
    if not out.is_terminal:
        widest = Measurement.get(out, out.options.update(max_width=10_000), drawn).maximum
        out = Console(file=sys.stdout, highlight=False, width=widest)
    out.print(drawn)
