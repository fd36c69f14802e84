"""Read documents from text, JSON lines, Parquet, HTML, WARC and WET files, plain or compressed by gzip or Zstandard.

`read_documents` streams the documents of one file. A document that cannot be read becomes a `SkippedDocument` with the
reason; a damaged file raises `DamagedFileError` with the position. `read_texts` yields the texts of several files that
are usable for training, and counts the others.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from demiglace.config.data import ReadConfig
from demiglace.console import notice, say
from demiglace.data.text.streams import (
    PACKED,
    DamagedFileError,
    SkippedDocument,
    decode,
    decoded,
    lines_of,
    open_source,
    unpacked,
)
from demiglace.data.text.warc import read_pages
from demiglace.errors import DataError

__all__ = ["DamagedFileError", "Document", "SkippedDocument", "decoded", "format_of", "read_documents", "unpacked"]

_PLAIN = (".txt", ".text", ".md")
FORMATS = (*_PLAIN, ".jsonl", ".ndjson", ".parquet", ".html", ".htm", ".xhtml", ".warc", ".wet")


@dataclass(frozen=True)
class Document:
    """A document."""

    text: str
    site: str  # the host of its address, or the folder of an HTML file; otherwise empty
    guessed: bool = False  # its bytes are not UTF-8, and were read as Windows-1252


def format_of(file: str) -> str:
    """Return the file name extension that decides the format. Raises `DataError` for an unknown one."""
    name = file.lower()
    while name.endswith(PACKED):  # a file that was compressed twice is refused when it is read
        name = name.rpartition(".")[0]
    for ending in FORMATS:
        if name.endswith(ending):
            return ending
    raise DataError(f"{file} has an unknown format; expected {', '.join(FORMATS)}, or one of these with .gz or .zst.")


def read_documents(file: str, config: ReadConfig) -> Iterator[Document | SkippedDocument]:
    """Yield the documents of a file in order; for a file without any, one `SkippedDocument` "empty".

    Raises:
        DamagedFileError: the file is damaged or cut off.
        DataError: the file cannot be opened, or has no column of texts.
    """
    document = None
    for document in _read(file, format_of(file), config):
        yield document
    if document is None:
        yield SkippedDocument("empty", "nothing in the file")


def _read(file: str, kind: str, config: ReadConfig) -> Iterator[Document | SkippedDocument]:
    if kind == ".parquet":
        return _parquet(file, config)
    if kind in (".warc", ".wet"):
        return _pages(file, config)
    if kind in (".jsonl", ".ndjson"):
        return _json_lines(file, config)
    if kind in _PLAIN and config.unit == "document":
        return _full_file(file, config, is_html=False)
    if kind in _PLAIN:
        return _lines(file, config) if config.unit == "line" else _paragraphs(file, config)
    return _full_file(file, config, is_html=True)


def _full_file(file: str, config: ReadConfig, is_html: bool) -> Iterator[Document | SkippedDocument]:
    limit, content = _limit(config), bytearray()
    for chunk in unpacked(file):
        content += chunk
        if len(content) > limit:
            yield SkippedDocument("too long", f"more than {limit} bytes")
            return
    site = str(Path(file).parent) if is_html else ""
    yield _document(_extracted(bytes(content)) if is_html and content else bytes(content), site)


def _lines(file: str, config: ReadConfig) -> Iterator[Document | SkippedDocument]:
    for line in lines_of(file, _limit(config)):
        if isinstance(line, SkippedDocument):
            yield line
        elif line.strip():
            yield _document(line)


def _paragraphs(file: str, config: ReadConfig) -> Iterator[Document | SkippedDocument]:
    """Yield the paragraphs, which are separated by blank lines. Of a too long one, only the size is kept in memory."""
    limit, paragraph, size = _limit(config), list[tuple[str, bool]](), 0
    for line in lines_of(file, limit):
        if isinstance(line, SkippedDocument):
            yield line
        elif line.strip():
            size += len(line) + 1
            if size <= limit:
                paragraph.append(decode(line))
            else:
                paragraph.clear()
        elif size:
            yield _paragraph(paragraph, size)
            paragraph, size = [], 0
    if size:
        yield _paragraph(paragraph, size)


def _paragraph(lines: list[tuple[str, bool]], size: int) -> Document | SkippedDocument:
    if not lines:
        return SkippedDocument("too long", f"{size} bytes")
    return _document("\n".join(text for text, _ in lines), guessed=any(guessed for _, guessed in lines))


def _json_lines(file: str, config: ReadConfig) -> Iterator[Document | SkippedDocument]:
    for line in lines_of(file, _limit(config)):
        if isinstance(line, SkippedDocument):
            yield line
        elif line.strip():
            yield _json_line(line, config)


def _json_line(line: bytes, config: ReadConfig) -> Document | SkippedDocument:
    guessed = False
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
        guessed = isinstance(error, UnicodeDecodeError)
        try:
            row = json.loads(decoded(line))
        except (ValueError, RecursionError):
            return SkippedDocument("no JSON", decoded(line[:80]))
    return _row(row, config, guessed)


def _row(row: Any, config: ReadConfig, guessed: bool = False) -> Document | SkippedDocument:
    text = row.get(config.text_key) if isinstance(row, Mapping) else None
    if isinstance(text, (str, bytes)):
        url = row.get("url")
        return _document(text, _site(decoded(url) if isinstance(url, bytes) else url), guessed)
    given = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
    return SkippedDocument(f"no text under {config.text_key!r}", given[:80])


def _parquet(file: str, config: ReadConfig) -> Iterator[Document | SkippedDocument]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        source = pq.ParquetFile(open_source(file))
        names = source.schema_arrow.names
        if config.text_key not in names:
            raise DataError(f"{file} has no column {config.text_key!r}; it has {', '.join(names)}. Give --text-key.")
        columns = [config.text_key, *(["url"] if "url" in names else [])]
        for batch in source.iter_batches(batch_size=256, columns=columns):
            values = [_values(batch.column(name)) for name in columns]
            for row in zip(*values, strict=True):
                yield _parquet_row(dict(zip(columns, row, strict=True)), config)
    except (ArrowException, OSError, UnicodeDecodeError) as error:  # the last for names of columns
        raise DamagedFileError(f"{file} cannot be read as Parquet: {error}") from error


def _values(column: Any) -> Iterator[Any]:
    """Yield the values; strings as bytes, since they may not be valid UTF-8."""
    from pyarrow import large_binary, types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_string(column.type) or types.is_large_string(column.type):
        column = column.cast(large_binary())
    return (value.as_py() for value in column)


def _parquet_row(row: dict[str, Any], config: ReadConfig) -> Document | SkippedDocument:
    text = row[config.text_key]
    if isinstance(text, bytes) and len(text) > _limit(config):
        return SkippedDocument("too long", f"{len(text)} bytes")
    return _row(row, config)


def _pages(file: str, config: ReadConfig) -> Iterator[Document | SkippedDocument]:
    for page in read_pages(file, _limit(config)):
        if isinstance(page, SkippedDocument):
            yield page
        elif page.content_type is None:
            yield _document(page.content, _site(page.url))
        elif "html" in page.content_type:
            yield _document(_extracted(page.content), _site(page.url))
        else:
            yield SkippedDocument("no HTML", page.content_type or "no content type")


def _document(content: str | bytes | None, site: str = "", guessed: bool = False) -> Document | SkippedDocument:
    if content is None:
        return SkippedDocument("no text in the HTML", site)
    text, guessed = decode(content) if isinstance(content, bytes) else (content, guessed)
    if not text.strip():
        return SkippedDocument("empty", f"{len(text)} characters")
    return Document(text, site, guessed)


def _extracted(content: bytes) -> str | None:
    """Return the main text of an HTML page, without menus and footers, by trafilatura; None if there is none."""
    from trafilatura import extract

    return extract(content)


def _site(url: Any) -> str:
    try:
        host = (urlsplit(url).hostname if isinstance(url, str) else None) or ""
    except ValueError:
        return ""
    return host.encode("utf-8", "replace").decode()  # without lone surrogates, which UTF-8 cannot encode


def _limit(config: ReadConfig) -> int:
    return int(config.max_document_mb * 1e6)


def fault_of(document: Document | SkippedDocument) -> str:
    """Return why a document is not usable for training, or an empty string if it is."""
    if isinstance(document, SkippedDocument):
        return document.reason
    return "binary" if "\0" in document.text else ""


def as_utf8(text: str) -> bytes:
    """Encode a text as UTF-8, with "?" for lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace")


GUESSED = "not UTF-8, read as Windows-1252"  # counted with the reasons, but these documents are used


def read_texts(files: Sequence[str], reading: ReadConfig, left_out: Counter[str]) -> Iterator[str]:
    """Yield the texts of all documents that are usable for training; count the reasons of others in `left_out`.

    Documents in another encoding are counted there too, as `GUESSED`.
    """
    for file in files:
        for document in read_documents(file, reading):
            fault = fault_of(document)
            if fault or isinstance(document, SkippedDocument):
                left_out[fault] += 1
            else:
                left_out[GUESSED] += document.guessed
                yield as_utf8(document.text).decode("utf-8")


def drops(left_out: Mapping[str, int]) -> dict[str, int]:
    """Return the documents that were left out, by reason."""
    return {reason: count for reason, count in left_out.items() if reason != GUESSED and count}


def counted(left_out: Mapping[str, int]) -> str:
    """Format the reasons and the counts of documents that were left out, for a message."""
    return ", ".join(f"{why} {n:,}" for why, n in sorted(drops(left_out).items()))


def report_left_out(left_out: Mapping[str, int], where: str = "") -> None:
    """Print how many documents were left out and why, and how many were read in another encoding than UTF-8."""
    if drops(left_out):
        say(f"left out{where and f' of {where}'}: {counted(left_out)}")
    if count := left_out.get(GUESSED, 0):
        notice(
            "encoding",
            f"warning: {count:,} documents{where and f' of {where}'} are not UTF-8, and were read as Windows-1252; "
            "convert files in other encodings to UTF-8.",
            documents=count,
        )
