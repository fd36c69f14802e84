"""Rows that a Python program gives as objects: `datasets`, data frames, lists of mappings; written as JSON lines."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from demiglace.console import say
from demiglace.data.rows.table import USUAL_NAMES
from demiglace.errors import DataError

_SPLITS = tuple(name for usual in USUAL_NAMES.values() for name in usual)
_MISSING = ("NaTType", "NAType")  # of pandas
ACCEPTED = "a datasets.Dataset or DatasetDict, a DataFrame, a list of dicts, or a dict of columns or of these by split"


def is_rows(value: Any) -> bool:
    """Return whether a value is an object with rows, or a mapping of splits to such objects."""
    if isinstance(value, Mapping):
        return bool(value)
    return _is_table(value) or (isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], Mapping))


def write_rows(value: Any, draft: Path, name: str) -> Path:
    """Write an object of rows to `draft`: a .jsonl file, or for several splits a folder of them; return its path.

    name: what the rows are, for messages. Classes of `datasets` features are written by name. Raises `DataError` for
    objects that hold no rows, and for mappings of splits without a known name.
    """
    if not isinstance(value, Mapping) or not all(is_rows(rows) for rows in value.values()):
        file = draft.with_name(draft.name + ".jsonl")
        _write(value, file, name)
        return file
    splits = {split: rows for split, rows in value.items() if split in _SPLITS}
    if not splits:
        raise DataError(f"{name} has the splits {', '.join(map(str, value))}; expected {', '.join(_SPLITS)}.")
    if others := [str(split) for split in value if split not in splits]:
        say(f"{name}: left out the splits {', '.join(others)}; demiglace reads train, validation and test.")
    for split, rows in splits.items():
        _write(rows, draft / f"{split}.jsonl", f"{name}, {split}")
    return draft


def _write(value: Any, file: Path, name: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    left_out: dict[str, str] = {}
    count = 0
    # surrogates, which no file may hold, are passed on: the checks of rows report them by line
    with file.open("w", encoding="utf-8", errors="surrogatepass", newline="\n") as handle:
        for row in _rows(value, name):
            plain = {str(column): _plain(cell, str(column), left_out) for column, cell in row.items()}
            handle.write(json.dumps(plain, ensure_ascii=False) + "\n")
            count += 1
    if not count:
        raise DataError(f"{name} holds no rows.")
    for column, kind in left_out.items():
        say(f"{name}: left out values of the type {kind} in the column {column!r}; texts, numbers and lists are kept.")


def _is_table(value: Any) -> bool:
    """Return whether a value is a data set or a data frame, by what it offers; their packages are not imported."""
    is_data_set = hasattr(value, "features") and hasattr(value, "with_format")
    return not isinstance(value, type) and (is_data_set or hasattr(value, "iterrows") or _is_polars(value))


def _is_polars(value: Any) -> bool:
    return hasattr(value, "iter_rows") and hasattr(value, "columns")


def _rows(value: Any, name: str) -> Iterator[Mapping[Any, Any]]:
    """Yield the rows of an object. Raises `DataError` for one that is streamed or is no table."""
    if hasattr(value, "with_format"):
        if not hasattr(value, "__len__"):
            raise DataError(f"{name} is a streamed data set; give a part of it, as list(data.take(10_000)).")
        features = value.features or {}
        yield from ({c: class_names(features.get(c), v) for c, v in row.items()} for row in value.with_format(None))
    elif hasattr(value, "iterrows"):
        yield from value.to_dict("records")
    elif _is_polars(value):
        yield from value.iter_rows(named=True)
    elif isinstance(value, Mapping):
        yield from _by_column(value, name)
    else:
        for number, row in enumerate(value, 1):
            if not isinstance(row, Mapping):
                raise DataError(f"{name}: item {number} is of the type {type(row).__name__}; expected a dict, as of 1.")
            yield row


def _by_column(columns: Mapping[Any, Iterable[Any]], name: str) -> Iterator[dict[Any, Any]]:
    if wrong := [str(c) for c, cells in columns.items() if isinstance(cells, str) or not hasattr(cells, "__len__")]:
        raise DataError(f"{name} is a dict whose {', '.join(wrong)} is no list of values; expected {ACCEPTED}.")
    sizes = {str(column): len(cells) for column, cells in columns.items()}  # type: ignore[arg-type]
    if len(set(sizes.values())) > 1:
        raise DataError(f"{name} has columns of different lengths: {sizes}.")
    for cells in zip(*columns.values(), strict=True):
        yield dict(zip(columns, cells, strict=True))


def class_names(feature: Any, value: Any) -> Any:
    """Return a value with class ids of a `datasets.ClassLabel` as names, also in lists; None for a missing label."""
    if hasattr(feature, "int2str"):
        return None if value is None or value < 0 else feature.int2str(value)
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if inner is not None and isinstance(value, Sequence) and not isinstance(value, str):
        return [class_names(inner, item) for item in value]
    return value


def _plain(value: Any, column: str, left_out: dict[str, str]) -> Any:
    """Return a value as JSON has it; None, noted in `left_out`, for one that JSON has not."""
    if value is None or type(value).__name__ in _MISSING or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, column, left_out) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, column, left_out) for item in value]
    for method in ("tolist", "isoformat"):  # NumPy's scalars and arrays, tensors; dates
        if hasattr(value, method):
            return _plain(getattr(value, method)(), column, left_out)
    left_out[column] = type(value).__name__
    return None
