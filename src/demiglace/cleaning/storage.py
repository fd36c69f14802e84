"""Files of a cleaning run: parts of documents, shards, ledgers, tallies and marks. All are written atomically."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from demiglace.cleaning.pipeline import Ledger
from demiglace.cleaning.rules.dedup import KeyTable, concat_tables, key_table
from demiglace.cleaning.statistics import Entry, RemovedLineEntries
from demiglace.runs.files import atomic_write

_SOURCE = np.uint64(32)  # bits; a document's number has its source in the high bits and its index there in the low bits
_COLUMNS = ("key", "document", "line")
_LEDGER = pa.schema(
    [
        ("source", pa.string()),
        ("number", pa.int64()),
        ("rule", pa.string()),
        ("action", pa.string()),
        ("reason", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("line", pa.int64()),
        ("first_source", pa.string()),  # of a copy: the document that is, or contains, the first one
        ("first_number", pa.int64()),
        ("excerpt", pa.string()),
    ]
)


@dataclass(frozen=True)
class Part:
    """N documents of a collection."""

    texts: list[str]
    documents: np.ndarray  # numbers in the collection [N]
    sites: list[str]
    words: np.ndarray | None = None  # number of words of each text [N], if counted


def document_number(source: int, index: int) -> int:
    """Return the number in the collection of a document, by its source and its index there, both from 0."""
    return (source << 32) | index


def source_and_index(document: int) -> tuple[int, int]:
    """Return the source and the index of a document number; the inverse of `document_number`."""
    return int(document) >> 32, int(document) & 0xFFFFFFFF


def write_part(file: Path, part: Part) -> None:
    """Write documents for the next task."""
    columns = {
        "document": pa.array(part.documents, pa.uint64()),
        "site": pa.array(part.sites, pa.string()).dictionary_encode(),
        "words": pa.array(part.words, pa.int64()),
        "text": _strings(part.texts, pa.large_string()),
    }
    with atomic_write(file) as partial:
        # The file is read once or twice, so it is compressed fast, without dictionaries of texts.
        pq.write_table(pa.table(columns), partial, compression="lz4", use_dictionary=["site"], write_statistics=False)


def read_part(file: Path) -> Part:
    """Read documents that `write_part` wrote."""
    table = pq.read_table(file)
    documents, words = (table[name].to_numpy() for name in ("document", "words"))
    return Part(table["text"].to_pylist(), documents, table["site"].to_pylist(), words)


def read_texts(file: Path, documents: Iterable[int]) -> dict[int, str]:
    """Return number -> text of the given documents that are in a file of `write_part`."""
    numbers = pq.read_table(file, columns=["document"])["document"].to_numpy()
    rows = np.flatnonzero(np.isin(numbers, np.fromiter(documents, np.uint64)))
    texts = pq.read_table(file, columns=["text"])["text"].take(rows).to_pylist() if len(rows) else []
    return dict(zip(numbers[rows].tolist(), texts, strict=True))


def write_shard(file: Path, part: Part, sources: Sequence[str], kind: str) -> None:
    """Write documents as a shard of the output: text, source, number in the source, site."""
    positions = [source_and_index(d) for d in part.documents.tolist()]
    columns: dict[str, Sequence[Any]] = {
        "text": [_storable(t) for t in part.texts],
        "source": [sources[s] for s, _ in positions],
        "number": [n for _, n in positions],
        "site": part.sites,
    }
    with atomic_write(file) as partial:
        if kind == "parquet":
            schema = pa.schema([("text", pa.large_string()), ("source", pa.string()), ("number", pa.int64())])
            pq.write_table(pa.table(columns, schema.append(pa.field("site", pa.string()))), partial, compression="zstd")
        else:
            _write_json_lines(partial, columns)


def _write_json_lines(file: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    import zstandard

    rows = zip(*columns.values(), strict=True)
    content = "".join(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
    file.write_bytes(zstandard.ZstdCompressor().compress(content.encode("utf-8")))


def write_ledger(file: Path, ledger: Ledger, sources: Sequence[str]) -> None:
    """Write the rows of a ledger: first about documents, then about lines."""
    tables = [_document_rows(ledger.entries, sources), *(_line_rows(lines, sources) for lines in ledger.lines)]
    with atomic_write(file) as partial:
        pq.write_table(pa.concat_tables(tables).combine_chunks(), partial, compression="zstd", compression_level=1)


def _document_rows(entries: Sequence[Entry], sources: Sequence[str]) -> pa.Table:
    source, number = _sources_and_indices(np.array([e.document for e in entries], np.uint64), sources)
    fields = zip(*entries, strict=True) if entries else ((),) * len(Entry._fields)
    columns: dict[str, Any] = dict(zip(Entry._fields, map(list, fields), strict=True))
    columns |= {"source": source, "number": number, "line": [None] * len(entries)}
    known = np.array([e.first is not None for e in entries], bool)
    columns |= _firsts(np.array([e.first or 0 for e in entries], np.uint64), known, sources)
    columns["excerpt"] = _strings(columns["excerpt"], pa.string())
    return pa.table([pa.array(columns[f.name], f.type) for f in _LEDGER], _LEDGER)


def _line_rows(lines: RemovedLineEntries, sources: Sequence[str]) -> pa.Table:
    source, number = _sources_and_indices(lines.document, sources)
    count = len(lines.line)
    columns = {"source": source, "number": number, "line": lines.line, "reason": lines.reason}
    columns |= {"rule": pa.repeat(lines.rule, count), "action": pa.repeat("removed a line", count)}
    columns |= {"value": lines.value, "threshold": lines.threshold, "excerpt": _strings(lines.excerpt, pa.string())}
    first = np.zeros(count, np.uint64) if lines.first is None else lines.first
    return pa.table(columns | _firsts(first, np.full(count, lines.first is not None), sources), _LEDGER)


def _firsts(documents: np.ndarray, known: np.ndarray, sources: Sequence[str]) -> dict[str, pa.Array]:
    """Return the columns about the first document, null where it is not known."""
    columns = zip(("first_source", "first_number"), _sources_and_indices(documents, sources), strict=True)
    return {name: pc.if_else(pa.array(known), values, None) for name, values in columns}


def _sources_and_indices(documents: np.ndarray, sources: Sequence[str]) -> tuple[pa.Array, np.ndarray]:
    """Return the source and the index in it of each document."""
    source = pa.array(sources, pa.string()).take(pa.array(documents >> _SOURCE))
    return source, (documents & np.uint64(0xFFFFFFFF)).astype(np.int64)


def write_tallies(file: Path, ledger: Ledger, **more: Any) -> None:
    """Write the tallies of a task and further values. Written last, they mark the task as done."""
    with atomic_write(file) as partial:
        tallies = {rule: tally.as_json() for rule, tally in ledger.tallies.items()}
        partial.write_text(json.dumps({"rules": tallies, **more}, ensure_ascii=False), "utf-8", "surrogatepass")


def read_tallies(file: Path) -> dict[str, Any]:
    """Read what `write_tallies` wrote."""
    content: dict[str, Any] = json.loads(file.read_text("utf-8", "surrogatepass"))
    return content


def write_list(file: Path, content: Sequence[Any]) -> None:
    """Write a list that all tasks read, since it is too long to be passed to each."""
    with atomic_write(file) as partial:
        partial.write_text(json.dumps(content), "utf-8")


def read_list(file: Path) -> list[Any]:
    """Read what `write_list` wrote."""
    content: list[Any] = json.loads(file.read_text("utf-8"))
    return content


def write_marks(file: Path, table: KeyTable) -> None:
    """Write marks, one file per column; the column written last marks them as complete."""
    for name in reversed(_COLUMNS):
        with atomic_write(file.with_suffix(f".{name}.npy")) as partial, partial.open("wb") as stream:
            np.save(stream, getattr(table, name))


def read_marks(file: Path, rows: slice = slice(None)) -> KeyTable:
    """Read some rows of a file of marks."""
    return key_table(*(np.array(_column(file, name)[rows]) for name in _COLUMNS))


def marks_exist(file: Path) -> bool:
    """Return whether the marks are complete."""
    return file.with_suffix(f".{_COLUMNS[0]}.npy").exists()


def read_marks_between(files: Sequence[Path], column: str, low: int, high: int) -> KeyTable:
    """Read the marks with low ≤ column < high from files that are sorted by this column."""
    parts = []
    for file in files:
        values = _column(file, column)
        bounds = [int(np.searchsorted(values, np.uint64(b))) if b < 2**64 else len(values) for b in (low, high)]
        if bounds[0] < bounds[1]:
            parts.append(read_marks(file, slice(*bounds)))
    return concat_tables(parts)


def _column(file: Path, name: str) -> np.ndarray:
    path = file.with_suffix(f".{name}.npy")
    table: np.ndarray = np.load(path, mmap_mode="r")
    return table


def _strings(texts: Sequence[str], kind: pa.DataType) -> pa.Array:
    """Return texts as a column, with lone surrogates replaced."""
    try:
        return pa.array(texts, kind)
    except UnicodeEncodeError:
        return pa.array(list(map(_storable, texts)), kind)


def _storable(text: str) -> str:
    """Return text that UTF-8 can encode: lone surrogates become "?"."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
