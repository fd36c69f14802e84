"""JSON texts to tables: one object a line, one array of objects, or objects that are printed over several lines."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from demiglace.data.rows.sampling import EVERY_ROW, RowSample
from demiglace.data.rows.table import MALFORMED, Lines, RowProblem, Table, check_columns, pieces_of
from demiglace.errors import DataError

_Row = tuple[int, Any]
"""The line on which a value starts, and the value, or a `ValueError` for a broken one."""
_SPACE = re.compile(r"[ \t\n\r]*")


def read_json_rows(path: Path, stream: TextIO, sample: RowSample = EVERY_ROW) -> Table:
    """Return the rows of a JSON text, or a sample. An array is read into memory, all of it; lines are streamed.

    Raises `DataError` for an array that is broken: what follows the damage cannot be read.
    """
    pieces = pieces_of(stream)
    head = next(pieces, "")
    pieces = chain([head], pieces)
    if not head.lstrip().startswith("["):
        return _table(path, _objects(Lines(pieces)), sample)
    text = "\n".join(Lines(pieces))
    array, end, error = _array(text)
    if array and error is None and end == len(text):
        return _table(path, array, sample)
    rows = list(_objects(Lines([text])))
    if error is not None and sum(isinstance(v, dict) for _, v in array) > sum(isinstance(v, dict) for _, v in rows):
        line = text.count("\n", 0, end) + 1
        raise DataError(
            f"{path}:{line}: the JSON array is broken after {len(array):,} rows ({error}); the rest cannot be read. "
            "Save it again, or one object a line."
        )
    return _table(path, rows, sample)


def _table(path: Path, values: Iterable[_Row], sample: RowSample) -> Table:
    problems: list[RowProblem] = []
    rows, total = sample.of(_only_objects(path, values, problems))
    names = dict.fromkeys(name for _, row in rows for name in row)
    check_columns(str(path), 1, len(names), len(rows))
    columns = {name: [row.get(name) for _, row in rows] for name in names}
    return Table(str(path), columns, [line for line, _ in rows], tuple(problems), total)


def _only_objects(path: Path, values: Iterable[_Row], problems: list[RowProblem]) -> Iterator[_Row]:
    """Yield the values that are objects; others become problems."""
    for line, value in values:
        if isinstance(value, dict):
            yield line, value
        else:
            detail = f"broken JSON: {value}" if isinstance(value, Exception) else "not a JSON object"
            problems.append(RowProblem(MALFORMED, str(path), line, detail))


def _array(text: str) -> tuple[list[_Row], int, str | None]:
    """Return the values of the array that a text starts with, where it ends or breaks, and why it breaks."""
    position, line = _skip(text, 0), 1
    if text[position : position + 1] != "[":
        return [], position, None
    decoder, values, last = json.JSONDecoder(), list[_Row](), 0
    position = _skip(text, position + 1)
    while text[position : position + 1] != "]":
        line, last = line + text.count("\n", last, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError as error:
            return values, getattr(error, "pos", position), getattr(error, "msg", str(error))
        except RecursionError:
            return values, position, "too deeply nested"
        values.append((line, value))
        position = _skip(text, position)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            return values, position, "a comma or ] is missing"
    return values, _skip(text, position + 1), None


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return position if found is None else found.end()


def _objects(lines: Lines) -> Iterator[_Row]:
    """Yield the value of each line, or of the lines over which an object is printed."""
    while (line := lines.peek()) is not None:
        number = lines.number
        if not line or line.isspace():
            lines.take()
            continue
        value = _parsed(line)
        used = _lines_of_object(lines) if isinstance(value, ValueError) else 1
        text = lines.take(used)
        yield number, value if used == 1 else _parsed("\n".join(text))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} of the object, " if error.lineno > 1 else ""
        return ValueError(f"{error.msg} at {where}character {error.colno}")
    except ValueError as error:  # a number of thousands of digits
        return error
    except RecursionError:
        return ValueError("too deeply nested")


def _lines_of_object(lines: Lines) -> int:
    """Return the number of lines of the object that the next line opens: to the first one that is not indented more.

    1 where that line does not close it.
    """
    head = (lines.peek() or "").rstrip()
    if not head.endswith(("{", "[", ",")) or not head.lstrip().startswith("{"):
        return 1
    indent, count = head[: len(head) - len(head.lstrip())], 1
    while (line := lines.peek(count)) is not None:
        count += 1
        if line.startswith(indent) and line[len(indent) : len(indent) + 1] not in ("", " ", "\t"):
            return count if line.startswith(indent + "}") else 1
    return 1
