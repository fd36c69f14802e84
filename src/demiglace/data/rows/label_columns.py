"""Columns of 0 and 1, one for each label, as one column of lists."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from demiglace.data.rows.columns import first_of
from demiglace.data.rows.labels import label_text
from demiglace.data.rows.table import Table
from demiglace.errors import DataError, unknown

_ONE, _ZERO = {"1", "1.0", "true"}, {"0", "0.0", "false"}


def label_columns(
    table: Table, texts: Sequence[str] | None, given: str | None, usual: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the columns of 0 and 1 that hold the labels of a table, one for each; empty where one column holds them.

    given: --label-column, several columns divided by commas. Without it, where rows have lists of labels and none of
    the `usual` columns is in the table, they are all columns of 0 and 1; usual: None for other kinds of problems.
    texts: --text-columns. Raises `DataError` if a given column is missing.
    """
    if given is not None:
        names = tuple(name.strip() for name in given.split(",") if name.strip())
        if given in table.columns or len(names) < 2:
            return ()
        for name in names:
            if name not in table.columns:
                raise DataError(f"{table.file}: --label-column: {unknown('column', name, table.columns)}")
        return names
    if usual is None or first_of(usual, list(table.columns)):
        return ()
    binary = [name for name in table.columns if name not in (texts or ()) and _is_binary(table.columns[name])]
    return tuple(binary) if len(binary) > 1 else ()


def with_lists(table: Table, names: Sequence[str]) -> Table:
    """Return the table with the label columns `names` as one column of lists, whose name is theirs with commas.

    A row without a value in all of them has no label; a table without one of them stays as it is. Raises `DataError`
    for a value that is neither 0 nor 1.
    """
    if not {*names} <= {*table.columns}:
        return table
    lists = [
        _labels(table, line, names, values)
        for line, values in zip(table.lines, zip(*(table.columns[n] for n in names), strict=True), strict=True)
    ]
    others = {name: values for name, values in table.columns.items() if name not in names}
    return replace(table, columns=others | {",".join(names): lists})


def _labels(table: Table, line: int, names: Sequence[str], values: Sequence[Any]) -> list[str] | None:
    texts = [(label_text(value) or "").lower() for value in values]
    if not any(texts):
        return None
    for name, text in zip(names, texts, strict=True):
        if text not in _ONE | _ZERO:
            raise DataError(f"{table.file}:{line}: {name} is {text!r}; a column of a label holds 0 or 1.")
    return [name for name, text in zip(names, texts, strict=True) if text in _ONE]


def _is_binary(values: Sequence[Any]) -> bool:
    found = {str(label_text(value) or "").lower() for value in values} - {""}
    return bool(found) and found <= _ONE | _ZERO
