"""The text of a file that may be packed with gzip or Zstandard."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demiglace.errors import DataError

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
