"""Files as streams of bytes and of lines, plain or packed once by gzip or Zstandard, in memory that has a bound."""

import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, iterdecode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from demiglace.errors import DataError

CHUNK = 1 << 20
PACKED = (".gz", ".zst")
_UTF16 = (BOM_UTF16_LE, BOM_UTF16_BE)
_MAGIC = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "Zstandard"}  # how packed content begins


@dataclass(frozen=True)
class SkippedDocument:
    """Something in a file that is no document: why, and its size in bytes or how it begins."""

    reason: str
    what: str


class DamagedFileError(DataError):
    """A file that ends or breaks where it should not."""


@dataclass(frozen=True)
class _Packing:
    """How to unpack: a new unpacker, what it raises, packed bytes at a time, and how often the packed size is too much.

    Bites are small since what is made to fill the memory grows up to 1032-fold in gzip and 32,768-fold in Zstandard (a
    block of 4 bytes says 128 KiB): one makes at most 17 or 34 MB. Text, even very repetitive, grows some 20-fold, and
    never by `most`.
    """

    new: Callable[[], Any]
    damage: type[Exception]
    bite: int
    most: int


def open_source(file: str) -> BinaryIO:
    """A file of this machine, or of an object store that Daft reads. Raises `DataError` where it cannot be opened."""
    try:
        if "://" in file:
            import daft

            return daft.open_file(file, "rb")  # type: ignore[return-value]
        return Path(file).open("rb")
    except (OSError, ValueError) as error:  # Daft's own are ValueErrors
        raise cannot_read(file, error) from error


def cannot_read(file: str, error: Exception) -> DataError:
    """What to say of a file that cannot be opened or read."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip().split("\n")[0]
    return DataError(f"{file} cannot be read: {why}. Check that it exists and that you may read it.")


def unpacked(file: str) -> Iterator[bytes]:
    """The content of a file in pieces of at most 1 MiB, unpacked by its ending; of one or more frames.

    The first piece has at least 4 bytes where the file has. Raises `DamagedFileError`, for content that is packed once
    more than the name says too, and `DataError` where the file cannot be opened.
    """
    packing = _packing(file)
    pieces = _frames(file, packing) if packing else _chunks(file)
    head = b""
    while len(head) < 4 and (piece := next(pieces, b"")):
        head += piece
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            once_more = "once more than its name says; unpack it" if packing else "and its name does not say so; add it"
            raise DamagedFileError(f"{file} is packed by {name} {once_more}.")
    if head:
        yield head
        yield from pieces


def _packing(file: str) -> _Packing | None:
    if file.lower().endswith(".gz"):
        return _Packing(lambda: zlib.decompressobj(wbits=31), zlib.error, 1 << 14, 500)
    if file.lower().endswith(".zst"):
        import zstandard

        return _Packing(lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError, 1 << 10, 2000)
    return None


def _chunks(file: str) -> Iterator[bytes]:
    with open_source(file) as stream:
        try:
            while chunk := stream.read(CHUNK):
                yield chunk
        except (OSError, ValueError) as error:
            raise cannot_read(file, error) from error


def _frames(file: str, packing: _Packing) -> Iterator[bytes]:
    unpacker, taken, made = packing.new(), 0, 0
    for bite in _compressed_chunks(file, packing.bite):
        taken += len(bite)
        while bite:
            if unpacker.eof:
                unpacker = packing.new()
            try:
                content = unpacker.decompress(bite)
            except packing.damage as error:
                raise DamagedFileError(f"{file} is damaged after {made} unpacked bytes ({error}).") from error
            bite = unpacker.unused_data if unpacker.eof else b""
            made += len(content)
            if made > packing.most * max(taken, CHUNK // 16):
                raise DamagedFileError(f"{file} unpacks to more than {packing.most} times its size, as no text does.")
            yield from (content[at : at + CHUNK] for at in range(0, len(content), CHUNK))
    if taken and not unpacker.eof:
        raise DamagedFileError(f"{file} is cut off after {made} unpacked bytes.")


def _compressed_chunks(file: str, size: int) -> Iterator[bytes]:
    return (chunk[at : at + size] for chunk in _chunks(file) for at in range(0, len(chunk), size))


def lines_of(file: str, limit: int) -> Iterator[bytes | SkippedDocument]:
    """The lines of a file without their ends; one that is longer than `limit` bytes is not held in memory.

    UTF-16 that says so comes as UTF-8. Raises as `unpacked` does.
    """
    rest, skipped = bytearray(), 0
    for chunk in _in_utf8(unpacked(file)):
        *lines, last = chunk.split(b"\n")
        for line in lines:
            whole = bytes(rest) + line
            rest.clear()
            if skipped or len(whole) > limit:
                yield SkippedDocument("too long", f"{skipped + len(whole)} bytes")
                skipped = 0
            else:
                yield whole.removesuffix(b"\r")
        if skipped or len(rest) + len(last) > limit:
            skipped += len(rest) + len(last)
            rest.clear()
        else:
            rest += last
    if skipped:
        yield SkippedDocument("too long", f"{skipped} bytes")
    elif rest:
        yield bytes(rest)


def _in_utf8(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """UTF-16, in which the end of a line is two bytes, as UTF-8; anything else as it is."""
    head = next(pieces, b"")
    pieces = chain([head], pieces)
    if not head.startswith(_UTF16):
        return pieces
    return (text.encode("utf-8", "replace") for text in iterdecode(pieces, "utf-16", "replace"))


def decoded(content: bytes) -> str:
    """UTF-8, or UTF-16 that says so; what is neither is read as Windows-1252, as browsers do."""
    if content.startswith(_UTF16):
        return content.decode("utf-16", "replace")
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


_CHUNK = 1 << 20  # packed bytes taken at a time, so that a damaged archive tells how far it can be read


def read_text(path: Path) -> str:
    """The text of a file, unpacked by its ending; what is not UTF-8 comes as surrogates.

    Raises `DataError` for a damaged or cut-off archive and for UTF-16.
    """
    content = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        content = _unpacked(path, content, lambda: zlib.decompressobj(wbits=31), zlib.error)
    elif path.name.lower().endswith(".zst"):
        import zstandard

        content = _unpacked(path, content, zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path} is UTF-16; save it as UTF-8.")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("utf-8", "surrogateescape")


def _unpacked(path: Path, packed: bytes, new: Callable[[], Any], damage: type[Exception]) -> bytes:
    """Unpack an archive of one or more frames; a damaged or cut-off one tells after which line it ends."""
    parts: list[bytes] = []
    unpacker, at = new(), 0
    try:
        while at < len(packed):
            if unpacker.eof:
                unpacker = new()
            chunk = packed[at : at + _CHUNK]
            parts.append(unpacker.decompress(chunk))
            at += len(chunk) - len(unpacker.unused_data)
        fault = None if unpacker.eof else "it is cut off"
    except damage as error:
        fault = str(error)
    content = b"".join(parts)
    if fault and packed:
        line = content.count(b"\n")
        raise DataError(f"{path} is damaged after line {line} ({fault}); fetch or compress it again.")
    return content
