"""Documents from files: text, JSON lines, Parquet, HTML, WARC and WET, plain or packed once by gzip or Zstandard.

Files are read as streams. What cannot be read of one is either told as `Unreadable`, or the file is refused with a
`DamagedFileError` that says where.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from demiglace.data.document_config import ReadConfig
from demiglace.errors import DataError

_CHUNK = 1 << 20
_MOST_UNPACKED = 2000  # times the packed size: text reaches some 20, what is made to fill a disk reaches thousands
_PLAIN = (".txt", ".text", ".md")
FORMATS = (*_PLAIN, ".jsonl", ".ndjson", ".parquet", ".html", ".htm", ".xhtml", ".warc", ".wet")
_PACKED = (".gz", ".zst")


@dataclass(frozen=True)
class Document:
    """A text and the site it is from: the host of its address, the folder of an HTML file; else nothing."""

    text: str
    site: str


@dataclass(frozen=True)
class Unreadable:
    """Something in a file that is no document: why, and its size in bytes or how it begins."""

    reason: str
    what: str


class DamagedFileError(DataError):
    """A file that ends or breaks where it should not."""


def format_of(file: str) -> str:
    """The ending that says what is in a file. Raises `DataError` for one that is not known."""
    name = file.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    for ending in FORMATS:
        if name.endswith(ending):
            return ending
    raise DataError(f"{file} is of no known kind; expected {', '.join(FORMATS)}, or one of these with .gz or .zst.")


def read_documents(file: str, config: ReadConfig) -> Iterator[Document | Unreadable]:
    """The documents of a file, in its order. Raises `DamagedFileError`."""
    kind = format_of(file)
    if kind == ".parquet":
        return _parquet(file, config)
    if kind in (".warc", ".wet"):
        return _records(file, config)
    if kind in (".jsonl", ".ndjson"):
        return _json_lines(file, config)
    if kind in _PLAIN and config.unit != "document":
        return _pieces(file, config)
    return _whole(file, config, is_html=kind not in _PLAIN)


def _whole(file: str, config: ReadConfig, is_html: bool) -> Iterator[Document | Unreadable]:
    limit, content = _limit(config), bytearray()
    for chunk in unpacked(file):
        content += chunk
        if len(content) > limit:
            yield Unreadable("too long", f"more than {limit} bytes")
            return
    site = str(Path(file).parent) if is_html else ""
    yield from _documents(_extracted(bytes(content)) if is_html else decoded(bytes(content)), site)


def _pieces(file: str, config: ReadConfig) -> Iterator[Document | Unreadable]:
    """Lines, or paragraphs of lines between blank ones."""
    paragraph: list[str] = []
    for line in lines_of(file, _limit(config)):
        if isinstance(line, Unreadable):
            yield line
        elif config.unit == "line":
            yield from _documents(decoded(line))
        elif line.strip():
            paragraph.append(decoded(line))
        elif paragraph:
            yield from _documents("\n".join(paragraph))
            paragraph = []
    yield from _documents("\n".join(paragraph))


def _json_lines(file: str, config: ReadConfig) -> Iterator[Document | Unreadable]:
    for line in lines_of(file, _limit(config)):
        if isinstance(line, Unreadable):
            yield line
            continue
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            try:
                row = json.loads(decoded(line))
            except ValueError:
                yield Unreadable("no JSON", decoded(line[:80]))
                continue
        yield from _row(row, config)


def _row(row: Any, config: ReadConfig) -> Iterator[Document | Unreadable]:
    text = row.get(config.text_key) if isinstance(row, Mapping) else None
    if isinstance(text, str):
        yield from _documents(text, _site(row.get("url")))
    else:
        given = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        yield Unreadable(f"no text under {config.text_key!r}", given[:80])


def _parquet(file: str, config: ReadConfig) -> Iterator[Document | Unreadable]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        source = pq.ParquetFile(opened(file))
        names = source.schema_arrow.names
        if config.text_key not in names:
            raise DataError(f"{file} has no column {config.text_key!r}; it has {', '.join(names)}. Give --text-key.")
        columns = [config.text_key, *(["url"] if "url" in names else [])]
        for batch in source.iter_batches(batch_size=256, columns=columns):
            for row in batch.to_pylist():
                yield from _row(row, config)
    except (ArrowException, OSError) as error:
        raise DamagedFileError(f"{file} cannot be read as Parquet: {error}") from error


def _records(file: str, config: ReadConfig) -> Iterator[Document | Unreadable]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    kinds = WarcRecordType.response | WarcRecordType.conversion
    for record in ArchiveIterator(_Stream(unpacked(file)), record_types=kinds, parse_http=True):
        declared, body = record.content_length, record.reader.read()
        if len(body) < declared:
            raise DamagedFileError(
                f"{file} is cut off inside the record {record.record_id}: {len(body)} of {declared} bytes."
            )
        if len(body) > _limit(config):
            yield Unreadable("too long", f"{len(body)} bytes")
            continue
        site = _site(record.headers.get("WARC-Target-URI"))
        if record.record_type == WarcRecordType.conversion:
            yield from _documents(decoded(body), site)
        elif "html" in (record.http_content_type or ""):
            yield from _documents(_extracted(body), site)
        else:
            yield Unreadable("no HTML", record.http_content_type or "no content type")


def _documents(text: str | None, site: str = "") -> Iterator[Document | Unreadable]:
    if text is None:
        yield Unreadable("no text in the HTML", site)
    elif text.strip():
        yield Document(text, site)
    elif text:
        yield Unreadable("empty", f"{len(text)} characters")


def _extracted(content: bytes) -> str | None:
    """The main text of an HTML page, without menus and footers, by trafilatura."""
    from trafilatura import extract

    return extract(content)


def _site(url: Any) -> str:
    try:
        return (urlsplit(url).hostname if isinstance(url, str) else None) or ""
    except ValueError:
        return ""


def _limit(config: ReadConfig) -> int:
    return int(config.max_document_mb * 1e6)


def decoded(content: bytes) -> str:
    """UTF-8, or UTF-16 that says so; what is neither is read as Windows-1252, as browsers do."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def lines_of(file: str, limit: int) -> Iterator[bytes | Unreadable]:
    """The lines of a file without their ends; one that is longer than `limit` bytes is not held in memory."""
    rest, skipped = bytearray(), 0
    for chunk in unpacked(file):
        *lines, last = chunk.split(b"\n")
        for line in lines:
            whole = bytes(rest) + line
            rest.clear()
            if skipped or len(whole) > limit:
                yield Unreadable("too long", f"{skipped + len(whole)} bytes")
                skipped = 0
            else:
                yield whole.removesuffix(b"\r")
        if skipped or len(rest) + len(last) > limit:
            skipped += len(rest) + len(last)
            rest.clear()
        else:
            rest += last
    if skipped:
        yield Unreadable("too long", f"{skipped} bytes")
    elif rest:
        yield bytes(rest)


def unpacked(file: str) -> Iterator[bytes]:
    """The content of a file in pieces, unpacked by its ending; of one or more frames. Raises `DamagedFileError`."""
    if file.lower().endswith(".gz"):
        return _frames(file, lambda: zlib.decompressobj(wbits=31), zlib.error)
    if file.lower().endswith(".zst"):
        import zstandard

        return _frames(file, lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError)
    return _chunks(file)


def _chunks(file: str) -> Iterator[bytes]:
    with opened(file) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _frames(file: str, new: Callable[[], Any], damage: type[Exception]) -> Iterator[bytes]:
    unpacker, taken, made = new(), 0, 0
    for chunk in _chunks(file):
        while chunk:
            if unpacker.eof:
                unpacker = new()
            # small bites, so that a bite of a bomb is not large either
            bite, chunk = chunk[: _CHUNK // 16], chunk[_CHUNK // 16 :]
            try:
                content = unpacker.decompress(bite)
            except damage as error:
                raise DamagedFileError(f"{file} is damaged after {made} unpacked bytes ({error}).") from error
            unused = unpacker.unused_data if unpacker.eof else b""
            taken, made, chunk = taken + len(bite) - len(unused), made + len(content), unused + chunk
            if made > _MOST_UNPACKED * max(taken, _CHUNK // 16):
                raise DamagedFileError(f"{file} unpacks to more than {_MOST_UNPACKED} times its size, as no text does.")
            yield content
    if taken and not unpacker.eof:
        raise DamagedFileError(f"{file} is cut off after {made} unpacked bytes.")


def opened(file: str) -> BinaryIO:
    """A file of this machine, or of an object store that Daft reads. Raises `DataError` where it cannot be opened."""
    if "://" in file:
        import daft

        return daft.open_file(file, "rb")  # type: ignore[return-value]
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


class _Stream:
    """A file to read from, over pieces of content."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces, self._rest, self._place = pieces, b"", 0

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        self._place += len(taken)
        return taken

    def tell(self) -> int:
        """How many bytes were read."""
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        """A stream does not go back."""
        raise OSError("this stream cannot seek")

    def close(self) -> None:
        """Nothing is held."""
