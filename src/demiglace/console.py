"""Output while a command runs: log lines, progress bars with rate and remaining time, tables; all on standard error.

Standard output is for results. Lines are records of the logger `demiglace`, which prints them unless it is configured
otherwise: ``logging.getLogger("demiglace").setLevel(logging.WARNING)`` leaves warnings only, and no progress bars;
DEMIGLACE_PROGRESS=0 leaves out the bars alone.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

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

from demiglace.escaping import escape_controls
from demiglace.notices import record

_WIDTH_OF_FILES = 120  # where standard error is no terminal
WARNING = "warning: "  # how the message of a warning begins

# plain lines in a notebook: there rich's bars need ipywidgets, and each bar warns without them
console = Console(
    stderr=True, highlight=False, force_jupyter=False, width=None if sys.stderr.isatty() else _WIDTH_OF_FILES
)


class _ConsoleHandler(logging.Handler):
    """Prints records as they are on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(escape_controls(self.format(record)), markup=False, soft_wrap=True)


def _logger() -> logging.Logger:
    """Return the logger of the package; it prints, unless the user's program has given it handlers before."""
    found = logging.getLogger("demiglace")
    if not found.handlers:
        found.addHandler(_ConsoleHandler())
        found.propagate = False
    if found.level == logging.NOTSET:
        found.setLevel(logging.INFO)
    return found


LOGGER = _logger()


def terminal() -> Console:
    """Return a console on the present standard error, which it keeps when standard error is redirected later."""
    return Console(
        file=sys.stderr,
        highlight=False,
        force_jupyter=False,
        width=None if console.is_terminal else _WIDTH_OF_FILES,
    )


def say(message: str) -> None:
    """Log one line, on the main process only; a line that begins with ``warning:`` is a warning."""
    if is_main_process():
        LOGGER.log(logging.WARNING if message.startswith(WARNING) else logging.INFO, "%s", message)


def notice(kind: str, message: str, **counts: int) -> None:
    """Log a line as `say` does, once, and record it with its kind and counts for the manifest of the command."""
    if record(kind, message, counts):
        say(message)


def show(drawn: Table) -> None:
    """Print a table on standard error, where lines are printed."""
    if is_main_process() and is_verbose():
        console.print(drawn)


def is_verbose() -> bool:
    """Return whether lines that are no warnings are printed."""
    return LOGGER.isEnabledFor(logging.INFO)


@contextmanager
def quiet(least: int = logging.WARNING) -> Iterator[None]:
    """Leave out progress bars and lines below a level, by default those that are no warnings, while inside."""
    level = LOGGER.level
    LOGGER.setLevel(max(level, least))
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def is_main_process() -> bool:
    """Return whether this process is the first of a `torchrun`, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _has_progress() -> bool:
    return is_main_process() and is_verbose() and os.environ.get("DEMIGLACE_PROGRESS", "1") != "0"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {unit}/s" if speed else f"– {unit}/s", style="cyan", no_wrap=True)


@contextmanager
def progress(description: str, total: int, unit: str, done: int = 0) -> Iterator["Bar"]:
    """Show a progress bar over `total` units, of which `done` are done; without a terminal, one line at the end."""
    bar = Progress(
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not _has_progress(),
        refresh_per_second=4,
        auto_refresh=console.is_terminal,  # by a thread, which elsewhere would have nothing to draw
    )
    with bar:
        yield Bar(bar, bar.add_task(escape_controls(description), total=total, completed=done, unit=unit, note=""))


class Bar:
    """A running progress bar."""

    def __init__(self, bar: Progress, task: int):
        self._bar, self._task = bar, task

    def advance(self, amount: int, note: str | None = None) -> None:
        """Add `amount` units, and show a short note (a loss, a metric) at the end of the bar."""
        fields = {} if note is None else {"note": note}
        self._bar.update(self._task, advance=amount, **fields)  # type: ignore[arg-type]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table of texts; the first column names the row, the others are aligned right."""
    drawn = Table(
        title=escape_controls(title),
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for i, column in enumerate(columns):
        drawn.add_column(escape_controls(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(escape_controls(cell)) for cell in row))
    return drawn


def print_table(drawn: Table, file: TextIO | None = None) -> None:
    """Print a table on standard output, or in a file; without a terminal in its full width, so that no cell wraps."""
    for column in drawn.columns:
        column.justify = "left"
    out = Console(file=file or sys.stdout, highlight=False, force_jupyter=False)
    if not out.is_terminal:
        widest = Measurement.get(out, out.options.update(max_width=10_000), drawn).maximum
        out = Console(file=file or sys.stdout, highlight=False, force_jupyter=False, width=widest)
    out.print(drawn)
