"""CSV and TSV texts to tables. A line that is no row becomes a problem, and changes no other row.

CSV is read as RFC 4180 defines it. TSV files are of two kinds: in one a quote is a character like any other (GLUE), in
the other cells are quoted as in CSV. A line of a TSV file with the right number of cells is therefore a row; only other
lines are read as parts of a quoted cell.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from demiglace.console import say
from demiglace.data.rows.sampling import EVERY_ROW, RowSample
from demiglace.data.rows.table import MALFORMED, Lines, RowProblem, Table, check_columns, pieces_of
from demiglace.errors import DataError

_Record = tuple[int, list[str]]
"""The line on which a row starts, and its cells."""


def read_csv(path: Path, text: TextIO, sample: RowSample = EVERY_ROW) -> Table:
    """Return the rows of a CSV text, or a sample.

    Raises `DataError` for a header that cannot be used, and for an open quote.
    """
    problems: list[RowProblem] = []
    with _long_cells():
        return _table(path, _csv_records(path, csv.reader(text, strict=True), problems), problems, sample)


def read_tsv(path: Path, text: TextIO, sample: RowSample = EVERY_ROW) -> Table:
    """Return the rows of a TSV text, or a sample; stray quotes are kept.

    Raises `DataError` for a header that cannot be used.
    """
    with _long_cells():
        return _table(path, _tsv_records(path, Lines(pieces_of(text))), [], sample)


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


def _tsv_records(path: Path, lines: Lines) -> Iterator[_Record]:
    """Yield the rows, and other lines as they are, for `_table` to report; count the stray quotes."""
    width, stray = (lines.peek() or "").count("\t") + 1, 0
    while (line := lines.peek()) is not None:
        number, cells, used = lines.number, line.split("\t"), 1
        if '"' in line:
            is_odd = line.count('"') % 2 == 1
            quoted = _quoted_row(lines, width) if is_odd or len(cells) != width else None
            stray += quoted is None and is_odd and len(cells) == width
            cells, used = quoted or ([_unquoted(cell) for cell in cells], 1)
        lines.take(used)
        yield number, cells
    if stray:
        say(f"{path}: {stray:,} rows have a quote without a second one; it is kept as a character.")


def _quoted_row(lines: Lines, width: int) -> tuple[list[str], int] | None:
    """Return a row with a tab or a line end in a quoted cell, and its number of lines; None if none is next.

    No line of it may be a row of its own, but for the last one of a row whose first line is none: that line ends the
    quoted cell, and holds the cells after it.
    """
    parts = [lines.peek() or ""]
    is_row, is_open = parts[0].count("\t") + 1 == width, parts[0].count('"') % 2 == 1
    while is_open:
        line = lines.peek(len(parts))
        if line is None:
            return None
        closes = line.count('"') % 2 == 1
        if line.count("\t") + 1 == width and (is_row or not closes):
            return None
        parts.append(line)
        is_open = not closes
    try:
        records = list(csv.reader(["\n".join(parts)], delimiter="\t", strict=True))
    except csv.Error:
        return None
    return (records[0], len(parts)) if len(records) == 1 and len(records[0]) == width else None


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    if len(cell) < 2 or cell[0] != '"' or cell[-1] != '"' or '"' in inner.replace('""', ""):
        return cell
    return inner.replace('""', '"')


def _table(path: Path, records: Iterator[_Record], problems: list[RowProblem], sample: RowSample) -> Table:
    header = _header(path, next(records, (1, []))[1])
    rows, total = sample.of(_of_width(len(header), path, records, problems))
    columns = zip(*(cells for _, cells in rows), strict=True) if rows else ([] for _ in header)
    named = dict(zip(header, columns, strict=True))
    return Table(str(path), named, [line for line, _ in rows], tuple(problems), total)


def _of_width(width: int, path: Path, records: Iterator[_Record], problems: list[RowProblem]) -> Iterator[_Record]:
    """Yield the rows with as many cells as the header; others become problems, but for blank lines."""
    for line, cells in records:
        if len(cells) == width:
            yield line, cells
        elif any(cell.strip() for cell in cells):
            problems.append(RowProblem(MALFORMED, str(path), line, f"{len(cells)} cells, the header has {width}"))


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
