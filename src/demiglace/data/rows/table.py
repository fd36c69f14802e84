"""The rows of one file by column, and what is wrong with the rows that cannot be read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TextIO

from demiglace.data.text.streams import CHUNK
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
    total: int | None = None  # rows in the file, where these are a sample of them

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


class Lines:
    r"""The lines of a text without their ends, of which the next ones can be seen before they are taken.

    Line ends are \n and \r\n, and \r in a file most of whose line ends are \r in its first million characters. A
    line end at the end of the text starts no further line.
    """

    def __init__(self, pieces: Iterable[str]):
        self._source, self._seen, self._first = _split_lines(pieces), list[str](), 0
        self.number = 1  # of the next line

    def peek(self, ahead: int = 0) -> str | None:
        """Return the next line, or one further ahead, and leave it; None after the end."""
        while len(self._seen) <= self._first + ahead:
            line = next(self._source, None)
            if line is None:
                return None
            self._seen.append(line)
        return self._seen[self._first + ahead]

    def take(self, count: int = 1) -> list[str]:
        """Return the next lines, which were seen, and go on after them."""
        taken = self._seen[self._first : self._first + count]
        self._first += count
        self.number += count
        if 2 * self._first > len(self._seen):  # so that each line is moved once on average
            del self._seen[: self._first]
            self._first = 0
        return taken

    def __iter__(self) -> Iterator[str]:
        while self.peek() is not None:
            yield from self.take()


def pieces_of(stream: TextIO) -> Iterator[str]:
    """Return the rest of a stream in pieces of a million characters."""
    return iter(partial(stream.read, CHUNK), "")


def _split_lines(pieces: Iterable[str]) -> Iterator[str]:
    parts: list[str] = []  # of the line that is not at its end
    for text in _plain_ends(pieces):
        lines = text.split("\n")
        if len(lines) > 1:
            yield "".join(parts) + lines[0]
            yield from lines[1:-1]
            parts.clear()
        parts.append(lines[-1])
    if last := "".join(parts):
        yield last


def _plain_ends(pieces: Iterable[str]) -> Iterator[str]:
    r"""Yield the pieces with \n as every line end."""
    held, is_mac = "", None
    for piece in pieces:
        text = held + piece
        held = "\r" if text.endswith("\r") else ""  # perhaps half a line end
        text = text.removesuffix("\r").replace("\r\n", "\n")
        if is_mac is None:
            is_mac = text.count("\r") > text.count("\n")
        yield text.replace("\r", "\n") if is_mac else text
    if held:
        yield "\n" if is_mac else held
