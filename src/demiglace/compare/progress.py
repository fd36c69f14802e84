"""What a person sees of a comparison: a live table at a terminal, else a line for every run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demiglace import console as shared
from demiglace.compare.job_graph import Job
from demiglace.compare.jobs import JobResult
from demiglace.compare.scheduler import Schedule, Status
from demiglace.costs.describe import duration

_SHOWN: tuple[Status, ...] = ("done", "running", "failed", "skipped", "pending")
_STYLES = {"done": "green", "running": "cyan", "failed": "red", "skipped": "yellow", "pending": ""}


class ProgressListener(Protocol):
    """What engines tell of each step."""

    def began(self, step: Job) -> None:
        """A step runs."""

    def ended(self, step: Job, ending: JobResult) -> None:
        """A step ended, well or not."""


@contextmanager
def progress_display(schedule: Schedule) -> Iterator[ProgressListener]:
    """A watcher on standard error: a live table at a terminal, else plain lines."""
    if not (shared.console.is_terminal and shared.is_verbose()):
        yield Lines(schedule)
        return
    screen = LiveTable(schedule)
    # the runs' own words are sent to files meanwhile; the table keeps the terminal
    with Live(
        console=shared.terminal(), get_renderable=screen.draw, refresh_per_second=2, redirect_stdout=False,
        redirect_stderr=False,
    ):  # fmt: skip
        yield screen


class Lines:
    """One line for each step that ended."""

    def __init__(self, schedule: Schedule):
        self._schedule = schedule
        self._console = shared.terminal()

    def began(self, step: Job) -> None:
        """Nothing: a line comes when it ended."""

    def ended(self, step: Job, ending: JobResult) -> None:
        """Its number, key, how it ended, and the time that remains."""
        over = len(self._schedule.steps) - self._schedule.count("pending") - self._schedule.count("running")
        how = f"done in {duration(ending.seconds)}" if ending.error is None else f"FAILED: {ending.error}"
        line = f"[{over}/{len(self._schedule.steps)}] {step.key}: {how}; {_left(self._schedule)}"
        if shared.is_verbose():
            self._console.print(line, markup=False, soft_wrap=True)


class LiveTable:
    """A row for each task: how many of its runs are done, running, failed, skipped and to come."""

    def __init__(self, schedule: Schedule):
        self._schedule = schedule
        self._begun = time.perf_counter()

    def began(self, step: Job) -> None:
        """The next drawing shows it."""

    def ended(self, step: Job, ending: JobResult) -> None:
        """The next drawing shows it."""

    def draw(self) -> Table:
        """The table as of now."""
        schedule = self._schedule
        passed = duration(time.perf_counter() - self._begun)
        drawn = Table(title=f"{passed} passed, {_left(schedule)}", title_justify="left", box=box.SIMPLE)
        drawn.add_column("task")
        for status in _SHOWN:
            drawn.add_column("to come" if status == "pending" else status, justify="right", style=_STYLES[status])
        for task in dict.fromkeys(step.task for step in schedule.steps.values()):
            drawn.add_row(task, *(str(n or "·") for n in _counts(schedule, task)))
        running = [key for key, status in schedule.status.items() if status == "running"]
        drawn.caption = Text("running: " + (", ".join(running) or "–"))
        return drawn


def _counts(schedule: Schedule, task: str) -> list[int]:
    mine = [schedule.status[key] for key, step in schedule.steps.items() if step.task == task]
    return [mine.count(status) for status in _SHOWN]


def _left(schedule: Schedule) -> str:
    seconds = schedule.seconds_left()
    return "time left not known yet" if seconds is None else f"about {duration(seconds)} left"
