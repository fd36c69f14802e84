"""User files to columns of values: CSV, TSV, JSON and CoNLL, each also as .gz or .zst, and Parquet.

A row that cannot be read (broken JSON, a cell too many) becomes a `RowProblem` with its file and line; a file that
cannot be read (unknown ending, cut-off archive) raises `DataError`. Bytes that are not UTF-8 are carried through as
surrogates, so that only those in a column that is used count as a problem (`checks`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from demiglace.data.rows.conll import read_conll
from demiglace.data.rows.delimited import read_csv, read_tsv
from demiglace.data.rows.json_rows import read_json_rows
from demiglace.data.rows.sampling import EVERY_ROW, RowSample
from demiglace.data.rows.table import MOST_BYTES, Table, check_columns
from demiglace.data.text.streams import open_text, too_large
from demiglace.errors import DataError

_PARQUET_ROWS = 1_000  # read at once
_Reader = Callable[[Path, RowSample], Table]


def read_table(path: Path | str, sample: RowSample = EVERY_ROW) -> Table:
    """Read the rows of a file by its ending, or a sample; rows that are not drawn take no memory.

    Raises `DataError` where the file is missing, damaged, empty or of an unknown kind.
    """
    path = Path(path)
    read = _reader_of(path)
    check_is_file(path)
    try:
        table = read(path, sample)
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


def _reader_of(path: Path) -> _Reader:
    for ending, read in ENDINGS.items():
        if path.name.lower().endswith(ending):
            return read
    raise DataError(f"{path} is of no known kind; known endings: {', '.join(ENDINGS)}. Convert it, or rename it.")


def _text_reader(parse: Callable[[Path, TextIO, RowSample], Table]) -> _Reader:
    def read(path: Path, sample: RowSample) -> Table:
        with open_text(path, MOST_BYTES) as text:
            return parse(path, text, sample)

    return read


def _parquet(path: Path, sample: RowSample) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, size, first = [], 0, 0
    try:
        with pq.ParquetFile(path) as file:
            check_columns(str(path), 1, len(file.schema_arrow))
            schema = pa.schema([_without_dictionary(f) for f in file.schema_arrow], file.schema_arrow.metadata)
            rows, total = sample.indices(file.metadata.num_rows)
            for batch in file.iter_batches(_PARQUET_ROWS):  # few rows at once: a small file can unpack to any size
                part = pa.Table.from_batches([batch]).cast(schema)
                size += part.nbytes
                if size > MOST_BYTES:
                    raise too_large(path)
                if total is not None:
                    low, high = np.searchsorted(rows, [first, first + len(part)])
                    first, part = first + len(part), part.take(rows[low:high] - first)
                tables.append(part)
            content = pa.concat_tables(tables) if tables else schema.empty_table()
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the second for names of columns
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    columns = {name: _values(content.column(name)) for name in content.column_names}
    tagged = {n: names for n, names in _tag_names(content.schema.metadata or {}).items() if n in columns}
    for name, tags in tagged.items():
        columns[name] = [[_tag(i, tags) for i in row] if isinstance(row, list) else row for row in columns[name]]
    lines = range(1, content.num_rows + 1) if total is None else (rows + 1).tolist()
    return Table(str(path), columns, lines, total=total)


def _without_dictionary(field: Any) -> Any:
    """Return a column's field with the type of its values, where they are stored as numbers of a dictionary."""
    import pyarrow as pa

    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def _tag_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return column -> names of the ids in its lists, from the features that `datasets` keeps in a file's metadata.

    Metadata of another form, which any file may have, names nothing.
    """
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        inner = {name: f[0] if isinstance(f, list) else f.get("feature") for name, f in features.items() if f}
        found = {n: f["names"] for n, f in inner.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return {}
    return {
        n: names for n, names in found.items() if isinstance(names, list) and all(isinstance(x, str) for x in names)
    }


def _tag(i: Any, names: Sequence[str]) -> Any:
    """Return the name of an id, and any other value as it is, for the checks of labels."""
    return names[i] if isinstance(i, int) and 0 <= i < len(names) else i


def _values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast("binary").to_pylist()
        return [None if v is None else v.decode("utf-8", "surrogateescape") for v in raw]


_TEXT_KINDS = {".csv": read_csv, ".tsv": read_tsv, ".jsonl": read_json_rows, ".json": read_json_rows}
_TEXT_KINDS |= dict.fromkeys((".conll", ".bio", ".iob", ".iob2"), read_conll)
ENDINGS: dict[str, _Reader] = {
    kind + packing: _text_reader(parse) for packing in ("", ".gz", ".zst") for kind, parse in _TEXT_KINDS.items()
} | {".parquet": _parquet}
