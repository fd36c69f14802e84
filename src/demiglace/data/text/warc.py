"""Read the records of WARC and WET files, and check that they are complete."""

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

from demiglace.data.text.streams import CHUNK, DamagedFileError, SkippedDocument, unpacked


@dataclass(frozen=True)
class Page:
    """The content of an address."""

    url: str | None
    content_type: str | None  # HTTP header; None if the content is extracted text (WET)
    content: bytes


def read_pages(file: str, limit: int) -> Iterator[Page | SkippedDocument]:
    """Yield the responses and conversions of a file, without holding more than `limit` bytes of one in memory.

    Raises `DamagedFileError` for a file that is not WARC, or that ends within a record.
    """
    from fastwarc.warc import WarcRecordType

    for number, record in enumerate(_records(file), 1):
        # Records of other kinds are read too: if one is cut off, the pages after it are missing.
        content, size = _content(record.reader, limit)
        if not (record.headers.get("Content-Length") or "").isdigit() or size < record.content_length:
            raise DamagedFileError(f"{file} is cut off inside the record {record.record_id or number}.")
        if record.record_type not in (WarcRecordType.response, WarcRecordType.conversion):
            continue
        if size > limit:
            yield SkippedDocument("too long", f"{size} bytes")
            continue
        is_text = record.record_type == WarcRecordType.conversion
        url = record.headers.get("WARC-Target-URI")
        headers = record.http_headers or {}  # None for a response that is not of HTTP, whose page is then skipped
        if not is_text and "chunked" in (headers.get("Transfer-Encoding") or "").lower():
            content = joined_chunks(content)
        yield Page(url, None if is_text else record.http_content_type or "", content)


def _records(file: str) -> Iterator[Any]:
    from fastwarc.warc import ArchiveIterator

    records, number = ArchiveIterator(_Stream(unpacked(file)), parse_http=True), 0
    while True:
        try:
            record = next(records, None)
        except OSError as error:
            raise DamagedFileError(
                f"{file} is not a WARC file, or is damaged, after {number} records ({error})."
            ) from error
        if record is None:
            return
        yield record
        number += 1


def _content(reader: Any, limit: int) -> tuple[bytes, int]:
    """Return the first `limit` + 1 bytes of the content, and the full size in bytes."""
    content = reader.read(limit + 1)
    size = len(content)
    while piece := reader.read(CHUNK):
        size += len(piece)
    return content, size


def joined_chunks(body: bytes) -> bytes:
    """Return an HTTP body with its chunks joined; as it is, if a crawler has joined them; of a cut one, the beginning.

    The chunks are those of RFC 9112, section 7.1, which Python's http.client reads.
    """
    response = HTTPResponse(_Socket(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body))  # type: ignore[arg-type]
    pieces = []
    with suppress(HTTPException):
        response.begin()
        while piece := response.read1():
            pieces.append(piece)
    return b"".join(pieces) or body


class _Socket:
    """What `HTTPResponse` reads from."""

    def __init__(self, content: bytes):
        self._content = content

    def makefile(self, mode: str) -> io.BytesIO:
        """Return the content as a file."""
        return io.BytesIO(self._content)


class _Stream:
    """A file object that reads from an iterator of bytes."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces, self._rest, self._position = pieces, b"", 0

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes; none at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        self._position += len(taken)
        return taken

    def tell(self) -> int:
        """Return the number of bytes read so far."""
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        """Raise `OSError`: the stream cannot seek."""
        raise OSError("this stream cannot seek")

    def close(self) -> None:
        """Do nothing."""
