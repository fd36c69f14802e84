"""Read files as bytes, lines or text, optionally compressed by gzip or Zstandard.

`unpacked` and `lines_of` stream documents for corpora, `open_text` streams text for rows. Both decompress by
`_decompress`.
"""

import io
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, iterdecode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from demiglace.data.text.addresses import is_address
from demiglace.errors import DataError

CHUNK = 1 << 20  # bytes
PACKED = (".gz", ".zst")
_UTF16 = (BOM_UTF16_LE, BOM_UTF16_BE)
_MAGIC = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "Zstandard"}  # first bytes of compressed content
_OTHER_MAGIC = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"BZh91AY&SY": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"PAR1\x15": "a Parquet file",
}


@dataclass(frozen=True)
class SkippedDocument:
    """A part of a file that could not be read as a document."""

    reason: str
    what: str  # its size in bytes, or its beginning


class DamagedFileError(DataError):
    """A file is damaged or cut off."""


@dataclass(frozen=True)
class _Codec:
    """A compression format.

    Chunks are small to bound the memory. A decompression bomb expands up to 1032-fold in gzip and 32,768-fold in
    Zstandard (a block of 4 bytes for 128 KiB), so one chunk yields at most 17 or 34 MB. Text, even very repetitive,
    expands about 20-fold, and never `max_ratio`-fold.
    """

    magic: bytes  # the first bytes of every frame
    new: Callable[[], Any]  # makes a decompressor of one frame
    error: type[Exception]  # what it raises for damaged content
    chunk: int  # compressed bytes at a time
    max_ratio: int  # decompressed bytes per compressed byte


class _CorruptError(Exception):
    """Compressed content is damaged."""


class _CutOffError(_CorruptError):
    """Compressed content ends within a frame."""


def open_source(file: str) -> BinaryIO:
    """Open a local file, or one of an object store by Daft. Raises `DataError` if it cannot be opened."""
    try:
        if is_address(file):
            import daft

            return daft.open_file(file, "rb")  # type: ignore[return-value]
        return Path(file).open("rb")
    except (OSError, ValueError) as error:  # Daft raises ValueErrors
        raise cannot_read(file, error) from error


def cannot_read(file: str, error: Exception) -> DataError:
    """Return the error for a file that cannot be opened or read."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip().split("\n")[0]
    return DataError(f"{file} cannot be read: {why}. Check that it exists and that you may read it.")


def unpacked(file: str) -> Iterator[bytes]:
    """Yield the content of a file in pieces of at most 1 MiB, decompressed if its name ends in .gz or .zst.

    The first piece has at least 4 bytes, if the file has.

    Raises:
        DamagedFileError: the file is damaged or cut off, or is compressed once more than its name says.
        DataError: the file cannot be opened.
    """
    codec = _codec(file)
    pieces = _decompressed_chunks(file, codec) if codec else _chunks(file)
    head = b""
    while len(head) < 4 and (piece := next(pieces, b"")):
        head += piece
    _check_kind(file, head, codec)
    if head:
        yield head
        yield from pieces


def _check_kind(file: str, head: bytes, codec: _Codec | None) -> None:
    """Raise `DamagedFileError` if decompressed content begins as a file of another kind than its name says."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            how = "once more than its name says; decompress it" if codec else "but its name does not end so; rename it"
            raise DamagedFileError(f"{file} is compressed by {name} {how}.")
    for magic, kind in _OTHER_MAGIC.items():
        if head.startswith(magic):
            raise DamagedFileError(f"{file} is {kind}, which its name does not say; convert or rename it.")


def _codec(file: str) -> _Codec | None:
    """Return the compression format that a file's name ends in, or None."""
    if file.lower().endswith(".gz"):
        return _Codec(b"\x1f\x8b", lambda: zlib.decompressobj(wbits=31), zlib.error, 1 << 14, 500)
    if file.lower().endswith(".zst"):
        import zstandard

        new = zstandard.ZstdDecompressor
        return _Codec(b"\x28\xb5\x2f\xfd", lambda: new().decompressobj(), zstandard.ZstdError, 1 << 10, 2000)
    return None


def _decompress(chunks: Iterable[bytes], codec: _Codec) -> Iterator[bytes]:
    """Yield the decompressed content of one or more frames. Raises `_CorruptError`."""
    decompressor = None
    for compressed in chunks:
        rest = compressed
        while rest:
            if decompressor is None or decompressor.eof:
                decompressor = codec.new()
            try:
                content = decompressor.decompress(rest)
            except codec.error as error:
                raise _CorruptError(str(error)) from error
            rest = decompressor.unused_data if decompressor.eof else b""
            yield content
    if decompressor is not None and not decompressor.eof:
        raise _CutOffError("it is cut off")


def _chunks(file: str) -> Iterator[bytes]:
    with open_source(file) as stream:
        try:
            while chunk := stream.read(CHUNK):
                yield chunk
        except (OSError, ValueError) as error:
            raise cannot_read(file, error) from error


def _decompressed_chunks(file: str, codec: _Codec) -> Iterator[bytes]:
    """Yield the decompressed content in pieces of at most 1 MiB. Raises `DamagedFileError`, also for bombs."""
    compressed = size = 0

    def read() -> Iterator[bytes]:
        nonlocal compressed
        for chunk in _chunks(file):
            for piece in _split(chunk, codec.chunk):
                compressed += len(piece)
                yield piece

    try:
        for content in _decompress(read(), codec):
            size += len(content)
            if size > codec.max_ratio * max(compressed, CHUNK // 16):
                raise DamagedFileError(
                    f"{file} decompresses to more than {codec.max_ratio} times its size, which text never does."
                )
            yield from _split(content, CHUNK)
    except _CutOffError as error:
        raise DamagedFileError(f"{file} is cut off after {size} decompressed bytes.") from error
    except _CorruptError as error:
        raise DamagedFileError(f"{file} is damaged after {size} decompressed bytes ({error}).") from error


def _split(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


def lines_of(file: str, limit: int) -> Iterator[bytes | SkippedDocument]:
    """Yield the lines of a file without line ends. Of a line over `limit` bytes only the size is kept in memory.

    UTF-16 with a byte order mark is converted to UTF-8. Raises as `unpacked` does.
    """
    rest, skipped = bytearray(), 0
    for chunk in _in_utf8(unpacked(file)):
        *lines, last = chunk.split(b"\n")
        for line in lines:
            full_line = bytes(rest) + line
            rest.clear()
            if skipped or len(full_line) > limit:
                yield SkippedDocument("too long", f"{skipped + len(full_line)} bytes")
                skipped = 0
            else:
                yield full_line.removesuffix(b"\r")
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
    """Convert UTF-16, in which a line end is two bytes, to UTF-8; leave anything else unchanged."""
    head = next(pieces, b"")
    pieces = chain([head], pieces)
    if not head.startswith(_UTF16):
        return pieces
    return (text.encode("utf-8", "replace") for text in iterdecode(pieces, "utf-16", "replace"))


def decoded(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark; lines of other bytes as Windows-1252, as browsers do."""
    return decode(content)[0]


def decode(content: bytes) -> tuple[str, bool]:
    """Return the text that `decoded` returns, and whether a line of it was read as Windows-1252."""
    if content.startswith(_UTF16):
        return content.decode("utf-16", "replace"), False
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode("utf-8"), False
    except UnicodeDecodeError:
        return "\n".join(map(_decoded_line, content.split(b"\n"))), True


def _decoded_line(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace")


def plain_line_ends(text: str) -> str:
    r"""Return a text with \n for \r\n, and for \r if it has no other line end; the same object if there are none."""
    if "\r" not in text:
        return text
    return text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")


def too_large(path: Path) -> DataError:
    """Return the error for a file whose content takes too much memory."""
    return DataError(
        f"{path} holds more than can be read into memory as rows; split it, or give its text as --corpus. If it is "
        "small on the disk, it is no real data: it unpacks to far more than text does."
    )


@contextmanager
def open_text(path: Path, most: int) -> Iterator[TextIO]:
    """Open a file as text to stream, decompressed if its name ends in .gz or .zst; line ends are kept.

    Invalid UTF-8 becomes surrogates. Here, or while it is read, it raises `DataError` for UTF-16, for damaged or
    cut-off content, for another kind of file than the name says, and for a file of more than `most` bytes,
    decompressed, or that decompresses to more than text does.
    """
    if path.stat().st_size > most:
        raise too_large(path)
    buffer = io.BufferedReader(_PieceReader(_text_pieces(path, most)), CHUNK)
    with io.TextIOWrapper(buffer, "utf-8", "surrogateescape", newline="") as stream:
        yield stream


class _PieceReader(io.RawIOBase):
    """Reads from pieces of bytes as from a file."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, target: Any) -> int:
        """Copy the next bytes to `target` and return their number, 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(target), len(self._rest))
        target[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _text_pieces(path: Path, most: int) -> Iterator[bytes]:
    """Yield the content of a file of rows, without a byte order mark; see `open_text`."""
    codec = _codec(path.name)
    with path.open("rb") as file:
        pieces = iter(partial(file.read, CHUNK if codec is None else codec.chunk), b"")
        if codec is not None:
            pieces = _decompressed(path, pieces, codec, most)
        head = b""
        while len(head) < 16 and (piece := next(pieces, b"")):
            head += piece
        _check_kind(str(path), head, codec)
        if head.startswith(_UTF16):
            raise DataError(f"{path} is UTF-16; save it as UTF-8.")
        yield head.removeprefix(b"\xef\xbb\xbf")
        yield from pieces


def _decompressed(path: Path, pieces: Iterator[bytes], codec: _Codec, most: int) -> Iterator[bytes]:
    """Yield the decompressed content. Raises `DataError` that names the line of the damage, and for a bomb."""
    most = min(most, codec.max_ratio * max(path.stat().st_size, CHUNK // 16))
    head = next(pieces, b"")
    if head and not head.startswith(codec.magic):
        raise DataError(f"{path} is not compressed as its name says; rename it without {path.suffix}.")
    size = lines = 0
    try:
        for content in _decompress(chain([head], pieces), codec):
            size, lines = size + len(content), lines + content.count(b"\n")
            if size > most:
                raise too_large(path)
            if content:
                yield content
    except _CorruptError as error:
        raise DataError(f"{path} is damaged after line {lines} ({error}); fetch or compress it again.") from error
