"""Which of the documents of files are text to learn from, and why others are not."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from demiglace.data.document_config import ReadConfig
from demiglace.data.text.readers import Document, Unreadable, read_documents


def fault_of(found: Document | Unreadable) -> str:
    """Why this is no document to learn from; empty where it is one."""
    if isinstance(found, Unreadable):
        return found.reason
    return "binary" if "\0" in found.text else ""


def as_utf8(text: str) -> bytes:
    """The bytes of a text, question marks for half characters, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace")


def read_texts(files: Sequence[str], reading: ReadConfig, left_out: Counter[str]) -> Iterator[str]:
    """The texts of all documents to learn from; why and how often others are left out is counted in `left_out`."""
    for file in files:
        for found in read_documents(file, reading):
            fault = fault_of(found)
            if fault or isinstance(found, Unreadable):
                left_out[fault] += 1
            else:
                yield as_utf8(found.text).decode("utf-8")


def counted(left_out: Mapping[str, int]) -> str:
    """Reasons, and how often each, for a message."""
    return ", ".join(f"{why} {n:,}" for why, n in sorted(left_out.items()))
