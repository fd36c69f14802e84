"""What is seen while a command runs."""

import io
import logging

import pytest
from rich.console import Console

from demiglace import console


@pytest.fixture
def screen(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=written, width=120, highlight=False))
    return written


def test_lines_are_printed_as_they_are(screen):
    console.say("rows.csv [bold] " + "x" * 300)
    assert screen.getvalue() == "rows.csv [bold] " + "x" * 300 + "\n"


def test_only_the_main_process_speaks(screen, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    console.say("twice")
    with console.progress("training", total=2, unit="rows") as bar:
        bar.advance(2)
    assert not console.is_main_process()
    assert screen.getvalue().strip() == ""


def test_progress_off_a_terminal_is_one_line_at_the_end(screen):
    with console.progress("training [x]", total=10, unit="rows", done=4) as bar:
        bar.advance(3)
        bar.advance(3, note="loss [0.5]")
    lines = screen.getvalue().strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("training [x]")
    assert "10/10" in lines[0]
    assert "rows/s" in lines[0]
    assert lines[0].rstrip().endswith("loss [0.5]")


def test_a_bar_within_a_bar(screen):
    with (
        console.progress("training", total=1, unit="rows") as outer,
        console.progress("evaluating", total=1, unit="rows") as inner,
    ):
        inner.advance(1)
        outer.advance(1)
    assert "training" in screen.getvalue()
    assert "evaluating" in screen.getvalue()


def test_tables_take_texts_literally(screen):
    console.console.print(console.table("Results", ["model", "accuracy"], [["[red]teacher", "92.5"]]))
    assert "[red]teacher" in screen.getvalue()
    assert "92.5" in screen.getvalue()


def test_a_program_can_silence_the_lines(screen):
    logger = logging.getLogger("demiglace")
    try:
        logger.setLevel(logging.WARNING)
        console.say("a line")
        console.say("warning: a warning")
        with console.progress("training", total=1, unit="rows") as bar:
            bar.advance(1)
        console.show(console.table("Results", ["model"], [["teacher"]]))
    finally:
        logger.setLevel(logging.INFO)
    assert screen.getvalue() == "warning: a warning\n"


def test_lines_are_records_of_the_logger(screen, monkeypatch):
    records = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", records.append)
    logging.getLogger("demiglace").addHandler(handler)
    try:
        console.say("50% done")
        console.say("warning: slow")
    finally:
        logging.getLogger("demiglace").removeHandler(handler)
    assert [(r.levelname, r.getMessage()) for r in records] == [("INFO", "50% done"), ("WARNING", "warning: slow")]


def test_progress_can_be_switched_off_alone(screen, monkeypatch):
    monkeypatch.setenv("DEMIGLACE_PROGRESS", "0")
    with console.progress("training", total=1, unit="rows") as bar:
        bar.advance(1)
        console.say("a line")
    assert screen.getvalue() == "a line\n"
