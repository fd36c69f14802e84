"""Text from users and data on a terminal and in spreadsheets."""

import io
import json

import pytest

from demiglace.cli import main
from demiglace.console import print_table, say, table
from demiglace.escaping import escape_controls, spreadsheet_cell
from demiglace.runs.result import Result

HOSTILE = "a\x1b]0;title\x07\x9b31m\u202egnp"
SHOWN = r"a\u001b]0;title\u0007\u009b31m\u202egnp"


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_controls_are_visible_and_json_keeps_its_meaning():
    assert escape_controls(HOSTILE + "\n\té") == SHOWN + "\n\té"
    assert json.loads(escape_controls(json.dumps([HOSTILE], ensure_ascii=False))) == [HOSTILE]


def test_lines_tables_and_errors_show_controls(capfd: pytest.CaptureFixture[str]):
    say(HOSTILE)
    out = io.StringIO()
    print_table(table(HOSTILE, ("name", HOSTILE), ((HOSTILE, HOSTILE),)), out)
    assert main([HOSTILE]) == 2
    printed = out.getvalue() + "".join(capfd.readouterr())
    assert printed.count(SHOWN) >= 5
    assert not set(HOSTILE) & set(printed) & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_generated_text_is_raw_in_files_and_visible_on_terminals():
    file, screen = io.StringIO(), Terminal()
    for out in (file, screen):
        Result(None, {}, (), HOSTILE).print(out)
    assert file.getvalue() == HOSTILE + "\n"
    assert screen.getvalue() == SHOWN + "\n"


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@sum(a1)", "\t=1"])
def test_no_cell_is_a_formula(text: str):
    assert spreadsheet_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1.5", "+3", -1.5, None, "a=b", "", "-0.5 0.25", "–"])
def test_numbers_and_other_texts_stay(value: object):
    assert spreadsheet_cell(value) == value
