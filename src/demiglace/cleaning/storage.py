"""The files between the steps of a cleaning run: parts of documents, marks, books. Each appears whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from demiglace.cleaning.collection import Marks, joined, marks
from demiglace.cleaning.pipeline import Books
from demiglace.cleaning.tally import Entry

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
        ("excerpt", pa.string()),
    ]
)


@dataclass(frozen=True)
class Part:
    """Documents: texts, numbers in the collection, sites."""

    texts: list[str]
    documents: np.ndarray
    sites: list[str]


def document_number(source: int, place: int) -> int:
    """The number in the collection of a source's document, both counted from 0."""
    return (source << 32) | place


def source_and_place(document: int) -> tuple[int, int]:
    """What `document_number` was made of."""
    return int(document) >> 32, int(document) & 0xFFFFFFFF


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A path to write to that becomes `file` at the end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}.part")
    yield draft
    draft.replace(file)


def write_part(file: Path, part: Part) -> None:
    """Documents, for the next step."""
    columns = {
        "document": pa.array(part.documents, pa.uint64()),
        "site": pa.array(part.sites, pa.string()).dictionary_encode(),
        "text": pa.array([_storable(t) for t in part.texts], pa.large_string()),
    }
    with whole(file) as draft:
        pq.write_table(pa.table(columns), draft, compression="zstd", compression_level=1)


def read_part(file: Path) -> Part:
    """Documents of the step before."""
    table = pq.read_table(file)
    documents = table["document"].to_numpy().astype(np.uint64)
    return Part(table["text"].to_pylist(), documents, table["site"].to_pylist())


def write_shard(file: Path, part: Part, sources: Sequence[str], kind: str) -> None:
    """Documents as they leave: text, source and place in it, site."""
    places = [source_and_place(d) for d in part.documents.tolist()]
    columns: dict[str, Sequence[Any]] = {
        "text": [_storable(t) for t in part.texts],
        "source": [sources[s] for s, _ in places],
        "number": [n for _, n in places],
        "site": part.sites,
    }
    with whole(file) as draft:
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


def write_ledger(file: Path, entries: Sequence[Entry], sources: Sequence[str]) -> None:
    """The ledger's rows."""
    places = [source_and_place(e.document) for e in entries]
    columns: dict[str, list[Any]] = {
        "source": [sources[s] for s, _ in places],
        "number": [n for _, n in places],
    }
    for name in ("rule", "action", "reason", "value", "threshold", "line"):
        columns[name] = [getattr(e, name) for e in entries]
    columns["excerpt"] = [_storable(e.excerpt) for e in entries]
    with whole(file) as draft:
        pq.write_table(pa.table(columns, _LEDGER), draft, compression="zstd")


def write_books(file: Path, books: Books, **more: Any) -> None:
    """Tallies, and the names of what was made: written last, so that what is named is there."""
    with whole(file) as draft:
        tallies = {rule: tally.as_json() for rule, tally in books.tallies.items()}
        draft.write_text(json.dumps({"rules": tallies, **more}, ensure_ascii=False), "utf-8", "surrogatepass")


def read_books(file: Path) -> dict[str, Any]:
    """What `write_books` wrote."""
    content: dict[str, Any] = json.loads(file.read_text("utf-8", "surrogatepass"))
    return content


def write_marks(file: Path, found: Marks) -> None:
    """Marks; the last of their columns to appear makes them complete."""
    for name in reversed(_COLUMNS):
        with whole(file.with_suffix(f".{name}.npy")) as draft, draft.open("wb") as stream:
            np.save(stream, getattr(found, name))


def read_marks(file: Path, rows: slice = slice(None)) -> Marks:
    """Some of a file's marks, the others not being read."""
    return marks(*(np.array(_column(file, name)[rows]) for name in _COLUMNS))


def marks_there(file: Path) -> bool:
    """Whether the marks are written."""
    return file.with_suffix(f".{_COLUMNS[0]}.npy").exists()


def marks_between(files: Sequence[Path], column: str, low: int, high: int) -> Marks:
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


def _storable(text: str) -> str:
    """Text that UTF-8 can hold: half characters become the mark for what is unknown."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
