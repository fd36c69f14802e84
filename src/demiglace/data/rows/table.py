"""The rows of one file by column, and what is wrong with the rows that cannot be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from demiglace.errors import DataError

USUAL_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""Usual names of the splits, of files and of data sets; the first name is demiglace's."""


@dataclass(frozen=True)
class RowProblem:
    """Why a row cannot be used, its file and its line from 1 (in a Parquet file the row number)."""

    kind: str
    file: str
    line: int
    detail: str = ""


MALFORMED = "malformed row"
MOST_COLUMNS = 10_000  # more are a mistake, such as a file without line ends
MOST_CELLS = 200_000_000
MOST_BYTES = 1 << 32  # of the rows of one file, unpacked: they are read into memory


@dataclass(frozen=True)
class Table:
    """The rows of one file by column; `lines` holds the line on which each row starts."""

    file: str
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int]
    problems: tuple[RowProblem, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.lines)

    @cached_property
    def usual_columns(self) -> tuple[str, ...]:
        """Return the columns in which at least half of the rows have a value; all of them if there are none.

        Columns are looked for among these, so that a JSON row with other keys does not change how the others are read.
        """
        filled = {name: sum(value is not None for value in values) for name, values in self.columns.items()}
        return tuple(name for name, count in filled.items() if 2 * count >= len(self)) or tuple(self.columns)


def check_columns(file: str, line: int, number: int, rows: int = 1) -> None:
    """Raise `DataError` for a file with more columns, or more cells in its rows, than rows can have."""
    if number > MOST_COLUMNS or number * rows > MOST_CELLS:
        raise DataError(
            f"{file}:{line}: {number:,} columns in {rows:,} rows, and a file can have at most {MOST_COLUMNS:,} columns "
            f"and {MOST_CELLS:,} cells; check the line ends and the separator, or leave out columns."
        )


def lines_of_text(text: str) -> list[str]:
    r"""Split a text at its line ends: \n and \r\n, and \r in a file that ends most of its lines so.

    A line end at the end of the text starts no further line.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n")
        if text.count("\r") > text.count("\n"):
            text = text.replace("\r", "\n")
    return text.removesuffix("\n").split("\n")
