"""The progress of a comparison on standard error: a live table on a terminal, otherwise one line per job."""

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
from demiglace.escaping import escape_controls

_SHOWN: tuple[Status, ...] = ("done", "running", "failed", "skipped", "pending")
_STYLES = {"done": "green", "running": "cyan", "failed": "red", "skipped": "yellow", "pending": ""}


class ProgressListener(Protocol):
    """What an executor calls when a job starts and ends."""

    def on_job_start(self, job: Job) -> None:
        """Note that a job runs."""

    def on_job_end(self, job: Job, result: JobResult) -> None:
        """Note that a job succeeded or failed."""


@contextmanager
def progress_display(schedule: Schedule) -> Iterator[ProgressListener]:
    """Show progress on standard error while the context is open: a live table on a terminal, otherwise lines."""
    if not (shared.console.is_terminal and shared.is_verbose()):
        yield Lines(schedule)
        return
    screen = LiveTable(schedule)
    # The output of the runs goes to their log files, so the live table is the only writer on the terminal.
    with Live(
        console=shared.terminal(), get_renderable=screen.draw, refresh_per_second=2, redirect_stdout=False,
        redirect_stderr=False,
    ):  # fmt: skip
        yield screen


class Lines:
    """Prints one line for each job that ended."""

    def __init__(self, schedule: Schedule):
        self._schedule = schedule
        self._console = shared.terminal()

    def on_job_start(self, job: Job) -> None:
        """Print nothing."""

    def on_job_end(self, job: Job, result: JobResult) -> None:
        """Print how many jobs are over, the job's key and result, and the time left."""
        over = len(self._schedule.jobs) - self._schedule.count("pending") - self._schedule.count("running")
        how = f"done in {duration(result.seconds)}" if result.error is None else f"FAILED: {result.error}"
        line = f"[{over}/{len(self._schedule.jobs)}] {job.key}: {how}; {_time_left(self._schedule)}"
        if shared.is_verbose():
            self._console.print(escape_controls(line), markup=False, soft_wrap=True)


class LiveTable:
    """Shows a row per task: how many of its jobs are done, running, failed, skipped and pending."""

    def __init__(self, schedule: Schedule):
        self._schedule = schedule
        self._begun = time.perf_counter()

    def on_job_start(self, job: Job) -> None:
        """Do nothing; the next refresh shows it."""

    def on_job_end(self, job: Job, result: JobResult) -> None:
        """Do nothing; the next refresh shows it."""

    def draw(self) -> Table:
        """Draw the table from the current schedule."""
        schedule = self._schedule
        passed = duration(time.perf_counter() - self._begun)
        table = Table(title=f"{passed} passed, {_time_left(schedule)}", title_justify="left", box=box.SIMPLE)
        table.add_column("task")
        for status in _SHOWN:
            table.add_column("to come" if status == "pending" else status, justify="right", style=_STYLES[status])
        for task in dict.fromkeys(job.task for job in schedule.jobs.values()):
            table.add_row(task, *(str(n or "·") for n in _counts(schedule, task)))
        running = [key for key, status in schedule.status.items() if status == "running"]
        table.caption = Text("running: " + (", ".join(running) or "–"))
        return table


def _counts(schedule: Schedule, task: str) -> list[int]:
    statuses = [schedule.status[key] for key, job in schedule.jobs.items() if job.task == task]
    return [statuses.count(status) for status in _SHOWN]


def _time_left(schedule: Schedule) -> str:
    seconds = schedule.seconds_left()
    return "time left unknown" if seconds is None else f"about {duration(seconds)} left"
