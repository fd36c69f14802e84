"""Reading documents of every kind, and what is wrong with files."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from demiglace.data.document_config import ReadConfig
from demiglace.data.documents import DamagedFileError, Document, Unreadable, decoded, format_of, read_documents
from demiglace.errors import DataError

ROWS = [{"text": "One.", "url": "https://a.example/x"}, {"text": "Two\nlines.", "url": None}, {"text": "Drei ü."}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FOUND = [Document("One.", "a.example"), Document("Two\nlines.", ""), Document("Drei ü.", "")]
PAGE = (
    b"<html><body><nav>Home</nav><article><h1>Title</h1><p>"
    + b"A sentence of the story. " * 20
    + b"</p></article></body></html>"
)


def read(file: Path, **options: object) -> list[Document | Unreadable]:
    return list(read_documents(str(file), ReadConfig(**options)))  # type: ignore[arg-type]


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def record(kind: str, body: bytes, mime: str = "text/plain") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://b.example/p\r\nWARC-Record-ID: <urn:x>\r\n"
    return f"{head}Content-Type: {mime}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_json_lines(tmp_path: Path, ending: str) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[ending]
    assert read(written(tmp_path / f"x.jsonl{ending}", pack(LINES))) == FOUND


def test_archives_of_several_frames(tmp_path: Path) -> None:
    half = LINES.index(b"\n") + 1
    for ending, pack in ((".gz", gzip.compress), (".zst", zstandard.compress)):
        file = written(tmp_path / f"x.jsonl{ending}", pack(LINES[:half]) + pack(LINES[half:]))
        assert read(file) == FOUND


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"url": None, **row} for row in ROWS]), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == FOUND
    with pytest.raises(DataError, match="no column 'body'; it has url, text"):
        read(tmp_path / "x.parquet", text_key="body")
    with pytest.raises(DamagedFileError, match="as Parquet"):
        read(written(tmp_path / "y.parquet", b"PAR1 nothing"))


@pytest.mark.parametrize(
    ("unit", "texts"),
    [
        ("document", ["a\nb\n\n\nc\r\nd"]),
        ("line", ["a", "b", "c", "d"]),
        ("paragraph", ["a\nb", "c\nd"]),
    ],
)
def test_text_files(tmp_path: Path, unit: str, texts: list[str]) -> None:
    found = read(written(tmp_path / "x.txt", b"a\nb\n\n\nc\r\nd"), unit=unit)
    assert [d.text for d in found if isinstance(d, Document)] == texts


def test_html_is_extracted_and_its_site_is_its_folder(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path / "x.html", PAGE))
    assert isinstance(found, Document)
    assert found.text.startswith("Title\nA sentence of the story.")
    assert "Home" not in found.text
    assert found.site == str(tmp_path)
    assert read(written(tmp_path / "y.htm", b"<html></html>")) == [Unreadable("no text in the HTML", str(tmp_path))]


def test_warc_and_wet(tmp_path: Path) -> None:
    wet = record("warcinfo", b"by: us") + record("conversion", "Grüße.".encode()) * 2
    assert read(written(tmp_path / "x.wet.gz", gzip.compress(wet))) == [Document("Grüße.", "b.example")] * 2
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE
    image = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89"
    mime = "application/http; msgtype=response"
    page, other = read(written(tmp_path / "x.warc", record("response", http, mime) + record("response", image, mime)))
    assert isinstance(page, Document)
    assert page.text.startswith("Title")
    assert other == Unreadable("no HTML", "image/png")


def test_a_cut_off_warc(tmp_path: Path) -> None:
    wet = record("conversion", b"Whole.") + record("conversion", b"Cut off here.")[:-10]
    with pytest.raises(DamagedFileError, match="is cut off inside the record <urn:x>"):
        read(written(tmp_path / "x.wet", wet))


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_cut_off_and_damaged_archives(tmp_path: Path, ending: str, pack) -> None:
    packed = pack(LINES * 2000)
    with pytest.raises(DamagedFileError, match=r"cut off after \d+ unpacked bytes"):
        read(written(tmp_path / f"x.jsonl{ending}", packed[:-20]))
    with pytest.raises(DamagedFileError, match="is damaged after"):
        read(written(tmp_path / f"y.jsonl{ending}", packed + b"rubbish that is no frame"))


def test_an_archive_that_is_made_to_burst(tmp_path: Path) -> None:
    bomb = zstandard.compress(bytes(300_000_000))
    with pytest.raises(DamagedFileError, match="unpacks to more than 2000 times its size"):
        read(written(tmp_path / "x.txt.zst", bomb), max_document_mb=1e6, unit="line")


def test_nested_packing_is_not_text(tmp_path: Path) -> None:
    twice = zstandard.compress(zstandard.compress(LINES))
    (found,) = read(written(tmp_path / "x.jsonl.zst", twice))
    assert isinstance(found, Unreadable)
    assert found.reason == "no JSON"


def test_rows_that_are_no_documents(tmp_path: Path) -> None:
    lines = b'{"text": 3}\n["text"]\n{nonsense\n\n{"body": "x"}\n{"text": "  "}\n{"text": ""}\n{"text": "Good."}\n'
    found = read(written(tmp_path / "x.jsonl", lines))
    assert found[-1] == Document("Good.", "")
    assert [f.reason for f in found[:-1] if isinstance(f, Unreadable)] == [
        "no text under 'text'",
        "no text under 'text'",
        "no JSON",
        "no text under 'text'",
        "empty",
    ]


def test_encodings(tmp_path: Path) -> None:
    assert decoded("ü".encode()) == decoded("ü".encode("cp1252")) == decoded("\ufeffü".encode()) == "ü"
    assert decoded("ü".encode("utf-16")) == "ü"
    mixed = read(written(tmp_path / "x.txt", "ü\n".encode() + "ö\n".encode("cp1252") + b"a\0b"), unit="line")
    assert mixed == [Document("ü", ""), Document("ö", ""), Document("a\0b", "")]


@pytest.mark.parametrize("unit", ["document", "line"])
def test_a_document_that_is_too_long_is_not_held_in_memory(tmp_path: Path, unit: str) -> None:
    file = written(tmp_path / "x.txt", b"x" * 3_000_000)
    assert [f.reason for f in read(file, unit=unit, max_document_mb=1) if isinstance(f, Unreadable)] == ["too long"]
    both = written(tmp_path / "y.txt", b"x" * 3_000_000 + b"\nshort\n")
    assert read(both, unit="line", max_document_mb=1)[-1] == Document("short", "")


def test_empty_files(tmp_path: Path) -> None:
    for name in ("x.txt", "x.jsonl", "x.jsonl.gz", "x.txt.zst", "x.wet"):
        assert read(written(tmp_path / name, b"")) == []


def test_kinds() -> None:
    assert format_of("a/B.JSONL.zst") == ".jsonl"
    with pytest.raises(DataError, match=r"x\.pdf is of no known kind; expected \.txt"):
        format_of("x.pdf")


def test_addresses_are_read_by_the_engine(tmp_path: Path) -> None:
    file = written(tmp_path / "x.jsonl", LINES)
    assert list(read_documents(f"file://{file}", ReadConfig())) == FOUND
