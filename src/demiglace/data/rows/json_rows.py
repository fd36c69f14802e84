"""JSON texts to tables: one object a line, one array of objects, or objects that are printed over several lines."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demiglace.data.rows.table import MALFORMED, RowProblem, Table, check_columns, lines_of_text
from demiglace.errors import DataError

_Row = tuple[int, Any]
"""The line on which a value starts, and the value, or a `ValueError` for a broken one."""
_SPACE = re.compile(r"[ \t\n\r]*")


def read_json_rows(path: Path, text: str) -> Table:
    """Return the rows of a JSON text.

    Raises `DataError` for an array that is broken: what follows the damage cannot be read.
    """
    text = "\n".join(lines_of_text(text))
    array, end, error = _array(text)
    if array and error is None and end == len(text):
        return _table(path, array)
    rows = list(_objects(text.split("\n")))
    if error is not None and sum(isinstance(v, dict) for _, v in array) > sum(isinstance(v, dict) for _, v in rows):
        line = text.count("\n", 0, end) + 1
        raise DataError(
            f"{path}:{line}: the JSON array is broken after {len(array):,} rows ({error}); the rest cannot be read. "
            "Save it again, or one object a line."
        )
    return _table(path, rows)


def _table(path: Path, values: list[_Row]) -> Table:
    problems = tuple(
        RowProblem(MALFORMED, str(path), line, f"broken JSON: {v}" if isinstance(v, Exception) else "not a JSON object")
        for line, v in values
        if not isinstance(v, dict)
    )
    rows = [(line, value) for line, value in values if isinstance(value, dict)]
    names = dict.fromkeys(name for _, row in rows for name in row)
    check_columns(str(path), 1, len(names), len(rows))
    columns = {name: [row.get(name) for _, row in rows] for name in names}
    return Table(str(path), columns, [line for line, _ in rows], problems)


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


def _objects(lines: list[str]) -> Iterator[_Row]:
    """Yield the value of each line, or of the lines over which an object is printed."""
    number = 0
    while number < len(lines):
        line, used = lines[number], 1
        if line and not line.isspace():
            value = _parsed(line)
            if isinstance(value, ValueError) and (end := _end_of_object(lines, number)) is not None:
                used = end + 1 - number
                value = _parsed("\n".join(lines[number : end + 1]))
            yield number + 1, value
        number += used


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


def _end_of_object(lines: list[str], start: int) -> int | None:
    """Return the line that closes the object that a line opens: the first one that is not indented more."""
    head = lines[start].rstrip()
    if not head.endswith(("{", "[", ",")) or not head.lstrip().startswith("{"):
        return None
    indent = head[: len(head) - len(head.lstrip())]
    for number in range(start + 1, len(lines)):
        if lines[number].startswith(indent) and lines[number][len(indent) : len(indent) + 1] not in ("", " ", "\t"):
            return number if lines[number].startswith(indent + "}") else None
    return None
