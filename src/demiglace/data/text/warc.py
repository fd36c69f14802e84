"""Records of WARC and WET files, checked for being whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from demiglace.data.text.streams import CHUNK, DamagedFileError, SkippedDocument, unpacked


@dataclass(frozen=True)
class Page:
    """What was at an address: its content and HTTP content type; that is none where the content is text already."""

    url: str | None
    content_type: str | None
    content: bytes


def read_pages(file: str, limit: int) -> Iterator[Page | SkippedDocument]:
    """The responses and conversions of a file; of one with over `limit` bytes no more than these are held in memory.

    Raises `DamagedFileError` for a file that is no WARC, or is cut off anywhere but behind a record's content.
    """
    from fastwarc.warc import WarcRecordType

    for number, record in enumerate(_records(file), 1):
        # other kinds are read as well: where one of these is cut off, the pages behind it are missing
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
        yield Page(url, None if is_text else record.http_content_type or "", content)


def _records(file: str) -> Iterator[Any]:
    from fastwarc.warc import ArchiveIterator

    records, number = ArchiveIterator(_Stream(unpacked(file)), parse_http=True), 0
    while True:
        try:
            record = next(records, None)
        except OSError as error:
            raise DamagedFileError(f"{file} is no WARC file, or damaged, after {number} records ({error}).") from error
        if record is None:
            return
        yield record
        number += 1


def _content(reader: Any, limit: int) -> tuple[bytes, int]:
    """The content up to a byte more than `limit`, and the size of all of it in bytes."""
    content = reader.read(limit + 1)
    size = len(content)
    while piece := reader.read(CHUNK):
        size += len(piece)
    return content, size


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
