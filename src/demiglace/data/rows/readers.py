"""User files to columns of values: CSV, TSV and JSON lines, each also as .gz or .zst, and Parquet.

A row that cannot be read (broken JSON, a cell too many) becomes a `RowProblem` with its file and line; a file that
cannot be read (unknown ending, cut-off archive) raises `DataError`. Bytes that are not UTF-8 are carried through as
surrogates, so that only those in a column that is used count as a problem (`checks`).
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demiglace.data.text.streams import read_text
from demiglace.errors import DataError


@dataclass(frozen=True)
class RowProblem:
    """Why a row cannot be used, its file and its line from 1 (in a Parquet file the row number)."""

    kind: str
    file: str
    line: int
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """The rows of one file by column; `lines` holds the line on which each row starts."""

    file: str
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int]
    problems: tuple[RowProblem, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.lines)


def read_table(path: Path | str) -> Table:
    """Read a file by its ending. Raises `DataError` where it is missing, damaged, empty or of an unknown kind."""
    path = Path(path)
    read = _reader_of(path)
    check_is_file(path)
    try:
        table = read(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not table.lines and not table.problems:
        raise DataError(f"{path} holds no rows.")
    return table


def check_is_file(path: Path | str) -> None:
    """Raise `DataError` where there is no such file."""
    if not Path(path).is_file():
        raise DataError(f"there is no file {path}; check the path.")


def stem_of(path: Path) -> str | None:
    """The name of a readable file without its ending, `train` for train.csv.gz; none where the ending is unknown."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return None


def _reader_of(path: Path) -> Callable[[Path], Table]:
    for ending, read in ENDINGS.items():
        if path.name.lower().endswith(ending):
            return read
    raise DataError(f"{path} is of no known kind; known endings: {', '.join(ENDINGS)}. Convert it, or rename it.")


def _csv(path: Path) -> Table:
    return _cells(path, read_text(path), ",")


def _tsv(path: Path) -> Table:
    text = read_text(path)
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    tabs = lines[0].count("\t")
    if any(line.count("\t") != tabs for line in lines):
        return _cells(path, text, "\t")
    # One line is one row here, so a quote that was never meant as one (they abound in GLUE's files) stays a character.
    records = [(n, [_unquoted(cell) for cell in line.split("\t")]) for n, line in enumerate(lines, 1)]
    return _table(path, iter(records), [])


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    if len(cell) < 2 or cell[0] != '"' or cell[-1] != '"' or '"' in inner.replace('""', ""):
        return cell
    return inner.replace('""', '"')


def _cells(path: Path, text: str, delimiter: str) -> Table:
    problems: list[RowProblem] = []
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the csv module's own, 128 KiB, is below a long document
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return _table(path, _records(path, reader, problems), problems)
    finally:
        csv.field_size_limit(limit)


def _records(path: Path, reader: Any, problems: list[RowProblem]) -> Iterator[tuple[int, list[str]]]:
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
            problems.append(RowProblem("malformed row", str(path), start, str(error)))
            continue
        if cells:
            yield start, cells


def _table(path: Path, records: Iterator[tuple[int, list[str]]], problems: list[RowProblem]) -> Table:
    header = _header(path, next(records, (1, []))[1])
    lines, rows = [], []
    for line, cells in records:
        if len(cells) == len(header):
            lines.append(line)
            rows.append(cells)
        elif any(cells):
            detail = f"{len(cells)} cells, the header has {len(header)}"
            problems.append(RowProblem("malformed row", str(path), line, detail))
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return Table(str(path), dict(zip(header, columns, strict=True)), lines, tuple(problems))


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise DataError(f"{path} is empty; its first line must name the columns.")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{path}:1: the column {twice[0]!r} occurs twice; rename one.")
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise DataError(f"{path}:1: {names[0]!r} is one column; .csv wants commas between cells, .tsv wants tabs.")
    return names


def _jsonl(path: Path) -> Table:
    lines, rows, problems = [], [], []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(RowProblem("malformed row", str(path), number, f"broken JSON: {error}"))
            continue
        if not isinstance(row, dict):
            problems.append(RowProblem("malformed row", str(path), number, "not a JSON object"))
            continue
        lines.append(number)
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(str(path), {n: [row.get(n) for row in rows] for n in names}, lines, tuple(problems))


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    columns = {name: _values(content.column(name)) for name in content.column_names}
    return Table(str(path), columns, range(1, content.num_rows + 1))


def _values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast("binary").to_pylist()
        return [None if v is None else v.decode("utf-8", "surrogateescape") for v in raw]


_TEXT_KINDS: dict[str, Callable[[Path], Table]] = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".json": _jsonl}
ENDINGS: dict[str, Callable[[Path], Table]] = {
    kind + packing: read for packing in ("", ".gz", ".zst") for kind, read in _TEXT_KINDS.items()
} | {".parquet": _parquet}
