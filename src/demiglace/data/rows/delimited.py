"""CSV and TSV texts to tables. A line that is no row becomes a problem, and changes no other row.

CSV is read as RFC 4180 defines it. TSV files are of two kinds: in one a quote is a character like any other (GLUE), in
the other cells are quoted as in CSV. A line of a TSV file with the right number of cells is therefore a row; only other
lines are read as parts of a quoted cell.
"""

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demiglace.console import say
from demiglace.data.rows.table import MALFORMED, RowProblem, Table, check_columns, lines_of_text
from demiglace.errors import DataError

_Record = tuple[int, list[str]]
"""The line on which a row starts, and its cells."""


def read_csv(path: Path, text: str) -> Table:
    """Return the rows of a CSV text. Raises `DataError` for a header that cannot be used, and for an open quote."""
    problems: list[RowProblem] = []
    with _long_cells():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        return _table(path, _csv_records(path, reader, problems), problems)


def read_tsv(path: Path, text: str) -> Table:
    """Return the rows of a TSV text; stray quotes are kept. Raises `DataError` for a header that cannot be used."""
    problems: list[RowProblem] = []
    with _long_cells():
        return _table(path, _tsv_records(path, lines_of_text(text)), problems)


@contextmanager
def _long_cells() -> Iterator[None]:
    """Lift the csv module's limit of 128 KiB, which is shorter than a long document."""
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _csv_records(path: Path, reader: Any, problems: list[RowProblem]) -> Iterator[_Record]:
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if reader.line_num > start:  # the rows up to there were swallowed: this is more than one bad row
                raise DataError(
                    f'{path}:{start}: a cell opens with " and is not closed; double every " inside it.'
                ) from error
            problems.append(RowProblem(MALFORMED, str(path), start, str(error)))
            continue
        if cells:
            yield start, cells


def _tsv_records(path: Path, lines: list[str]) -> Iterator[_Record]:
    """Yield the rows, and other lines as they are, for `_table` to report; count the stray quotes."""
    width = lines[0].count("\t") + 1
    number, stray = 0, 0
    while number < len(lines):
        line = lines[number]
        cells = line.split("\t")
        is_odd = line.count('"') % 2 == 1
        quoted = _quoted_row(lines, number, width) if '"' in line and (is_odd or len(cells) != width) else None
        if quoted is not None:
            yield number + 1, quoted[0]
            number += quoted[1]
            continue
        stray += is_odd and len(cells) == width
        yield number + 1, [_unquoted(cell) for cell in cells]
        number += 1
    if stray:
        say(f"{path}: {stray:,} rows have a quote without a second one; it is kept as a character.")


def _quoted_row(lines: list[str], start: int, width: int) -> tuple[list[str], int] | None:
    """Return a row with a tab or a line end in a quoted cell, and its number of lines; None if there is none here.

    No line of it may be a row of its own, but for the last one of a row whose first line is none: that line ends the
    quoted cell, and holds the cells after it.
    """
    is_row = lines[start].count("\t") + 1 == width
    end, is_open = start, lines[start].count('"') % 2 == 1
    while is_open:
        end += 1
        if end == len(lines):
            return None
        closes = lines[end].count('"') % 2 == 1
        if lines[end].count("\t") + 1 == width and (is_row or not closes):
            return None
        is_open = not closes
    try:
        records = list(csv.reader(["\n".join(lines[start : end + 1])], delimiter="\t", strict=True))
    except csv.Error:
        return None
    return (records[0], end + 1 - start) if len(records) == 1 and len(records[0]) == width else None


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    if len(cell) < 2 or cell[0] != '"' or cell[-1] != '"' or '"' in inner.replace('""', ""):
        return cell
    return inner.replace('""', '"')


def _table(path: Path, records: Iterator[_Record], problems: list[RowProblem]) -> Table:
    header = _header(path, next(records, (1, []))[1])
    lines, rows = [], []
    for line, cells in records:
        if len(cells) == len(header):
            lines.append(line)
            rows.append(cells)
        elif any(cell.strip() for cell in cells):
            detail = f"{len(cells)} cells, the header has {len(header)}"
            problems.append(RowProblem(MALFORMED, str(path), line, detail))
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return Table(str(path), dict(zip(header, columns, strict=True)), lines, tuple(problems))


def _header(path: Path, cells: list[str]) -> list[str]:
    check_columns(str(path), 1, len(cells))
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise DataError(f"{path} is empty; its first line must name the columns.")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"{path}:1: the column {twice[0]!r} occurs twice; rename one.")
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise DataError(f"{path}:1: {names[0]!r} is one column; .csv wants commas between cells, .tsv wants tabs.")
    return names
