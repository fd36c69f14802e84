"""The files between the steps of a cleaning run: parts of documents, marks, books. Each appears whole or not at all."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from demiglace.cleaning.pipeline import Ledger
from demiglace.cleaning.rules.dedup import KeyTable, joined, marks
from demiglace.cleaning.statistics import Entry, RemovedLineEntries

_SOURCE = np.uint64(32)  # a document's number: its source's in the high bits, its place there in the low ones
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
        ("first_source", pa.string()),  # of what is dropped as a copy: the document that is, or has, the first one
        ("first_number", pa.int64()),
        ("excerpt", pa.string()),
    ]
)


@dataclass(frozen=True)
class Part:
    """Documents: texts, numbers in the collection, sites; and the texts' words, where they are counted."""

    texts: list[str]
    documents: np.ndarray
    sites: list[str]
    words: np.ndarray | None = None


def document_number(source: int, place: int) -> int:
    """The number in the collection of a source's document, both counted from 0."""
    return (source << 32) | place


def source_and_place(document: int) -> tuple[int, int]:
    """What `document_number` was made of."""
    return int(document) >> 32, int(document) & 0xFFFFFFFF


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """A path to write to that becomes `file` at the end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}.part")
    yield draft
    draft.replace(file)


def partial_files(directory: Path) -> list[Path]:
    """What `atomic_write` leaves below a directory where its process was killed."""
    return list(directory.rglob("*.part"))


def write_part(file: Path, part: Part) -> None:
    """Documents, for the next step."""
    columns = {
        "document": pa.array(part.documents, pa.uint64()),
        "site": pa.array(part.sites, pa.string()).dictionary_encode(),
        "words": pa.array(part.words, pa.int64()),
        "text": _strings(part.texts, pa.large_string()),
    }
    with atomic_write(file) as draft:
        # it is read once or twice: texts are not looked through for equal ones, and packed fast
        pq.write_table(pa.table(columns), draft, compression="lz4", use_dictionary=["site"], write_statistics=False)


def read_part(file: Path) -> Part:
    """Documents of the step before."""
    table = pq.read_table(file)
    documents, words = (table[name].to_numpy() for name in ("document", "words"))
    return Part(table["text"].to_pylist(), documents, table["site"].to_pylist(), words)


def texts_of(file: Path, documents: Iterable[int]) -> dict[int, str]:
    """The texts of those of some documents that are in a file of `write_part`, which is not read if none is."""
    there = pq.read_table(file, columns=["document"])["document"].to_numpy()
    rows = np.flatnonzero(np.isin(there, np.fromiter(documents, np.uint64)))
    texts = pq.read_table(file, columns=["text"])["text"].take(rows).to_pylist() if len(rows) else []
    return dict(zip(there[rows].tolist(), texts, strict=True))


def write_shard(file: Path, part: Part, sources: Sequence[str], kind: str) -> None:
    """Documents as they leave: text, source and place in it, site."""
    places = [source_and_place(d) for d in part.documents.tolist()]
    columns: dict[str, Sequence[Any]] = {
        "text": [_storable(t) for t in part.texts],
        "source": [sources[s] for s, _ in places],
        "number": [n for _, n in places],
        "site": part.sites,
    }
    with atomic_write(file) as draft:
        if kind == "parquet":
            schema = pa.schema([("text", pa.large_string()), ("source", pa.string()), ("number", pa.int64())])
            pq.write_table(pa.table(columns, schema.append(pa.field("site", pa.string()))), draft, compression="zstd")
        else:
            _write_json_lines(draft, columns)


def _write_json_lines(file: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    import zstandard

    rows = zip(*columns.values(), strict=True)
    content = "".join(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
    file.write_bytes(zstandard.ZstdCompressor().compress(content.encode("utf-8")))


def write_ledger(file: Path, books: Ledger, sources: Sequence[str]) -> None:
    """The ledger's rows: of documents, and behind them of lines."""
    tables = [_document_rows(books.entries, sources), *(_line_rows(lines, sources) for lines in books.lines)]
    with atomic_write(file) as draft:
        pq.write_table(pa.concat_tables(tables).combine_chunks(), draft, compression="zstd", compression_level=1)


def _document_rows(entries: Sequence[Entry], sources: Sequence[str]) -> pa.Table:
    source, number = _places(np.array([e.document for e in entries], np.uint64), sources)
    fields = zip(*entries, strict=True) if entries else ((),) * len(Entry._fields)
    columns: dict[str, Any] = dict(zip(Entry._fields, map(list, fields), strict=True))
    columns |= {"source": source, "number": number, "line": [None] * len(entries)}
    known = np.array([e.first is not None for e in entries], bool)
    columns |= _firsts(np.array([e.first or 0 for e in entries], np.uint64), known, sources)
    columns["excerpt"] = _strings(columns["excerpt"], pa.string())
    return pa.table([pa.array(columns[f.name], f.type) for f in _LEDGER], _LEDGER)


def _line_rows(lines: RemovedLineEntries, sources: Sequence[str]) -> pa.Table:
    source, number = _places(lines.document, sources)
    count = len(lines.line)
    columns = {"source": source, "number": number, "line": lines.line, "reason": lines.reason}
    columns |= {"rule": pa.repeat(lines.rule, count), "action": pa.repeat("removed a line", count)}
    columns |= {"value": lines.value, "threshold": lines.threshold, "excerpt": _strings(lines.excerpt, pa.string())}
    first = np.zeros(count, np.uint64) if lines.first is None else lines.first
    return pa.table(columns | _firsts(first, np.full(count, lines.first is not None), sources), _LEDGER)


def _firsts(documents: np.ndarray, known: np.ndarray, sources: Sequence[str]) -> dict[str, pa.Array]:
    """The columns that say which document is the first one, where that is known."""
    columns = zip(("first_source", "first_number"), _places(documents, sources), strict=True)
    return {name: pc.if_else(pa.array(known), values, None) for name, values in columns}


def _places(documents: np.ndarray, sources: Sequence[str]) -> tuple[pa.Array, np.ndarray]:
    """The source and the place in it of each document."""
    source = pa.array(sources, pa.string()).take(pa.array(documents >> _SOURCE))
    return source, (documents & np.uint64(0xFFFFFFFF)).astype(np.int64)


def write_books(file: Path, books: Ledger, **more: Any) -> None:
    """Tallies, and the names of what was made: written last, so that what is named is there."""
    with atomic_write(file) as draft:
        tallies = {rule: tally.as_json() for rule, tally in books.tallies.items()}
        draft.write_text(json.dumps({"rules": tallies, **more}, ensure_ascii=False), "utf-8", "surrogatepass")


def read_books(file: Path) -> dict[str, Any]:
    """What `write_books` wrote."""
    content: dict[str, Any] = json.loads(file.read_text("utf-8", "surrogatepass"))
    return content


def write_list(file: Path, content: Sequence[Any]) -> None:
    """A list for the tasks, which is too long to be given to each."""
    with atomic_write(file) as draft:
        draft.write_text(json.dumps(content), "utf-8")


def read_list(file: Path) -> list[Any]:
    """What `write_list` wrote."""
    content: list[Any] = json.loads(file.read_text("utf-8"))
    return content


def write_marks(file: Path, found: KeyTable) -> None:
    """Marks; the last of their columns to appear makes them complete."""
    for name in reversed(_COLUMNS):
        with atomic_write(file.with_suffix(f".{name}.npy")) as draft, draft.open("wb") as stream:
            np.save(stream, getattr(found, name))


def read_marks(file: Path, rows: slice = slice(None)) -> KeyTable:
    """Some of a file's marks, the others not being read."""
    return marks(*(np.array(_column(file, name)[rows]) for name in _COLUMNS))


def marks_there(file: Path) -> bool:
    """Whether the marks are written."""
    return file.with_suffix(f".{_COLUMNS[0]}.npy").exists()


def marks_between(files: Sequence[Path], column: str, low: int, high: int) -> KeyTable:
    """The marks whose column, by which each file is sorted, is from low to below high."""
    parts = []
    for file in files:
        values = _column(file, column)
        bounds = [int(np.searchsorted(values, np.uint64(b))) if b < 2**64 else len(values) for b in (low, high)]
        if bounds[0] < bounds[1]:
            parts.append(read_marks(file, slice(*bounds)))
    return joined(parts)


def _column(file: Path, name: str) -> np.ndarray:
    path = file.with_suffix(f".{name}.npy")
    found: np.ndarray = np.load(path, mmap_mode="r")
    return found


def _strings(texts: Sequence[str], kind: pa.DataType) -> pa.Array:
    """Texts as a column, half characters replaced."""
    try:
        return pa.array(texts, kind)
    except UnicodeEncodeError:
        return pa.array(list(map(_storable, texts)), kind)


def _storable(text: str) -> str:
    """Text that UTF-8 can hold: half characters become the mark for what is unknown."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
