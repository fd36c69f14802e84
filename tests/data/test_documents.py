"""Reading documents of every format, and errors in files."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from demiglace.config.data import ReadConfig
from demiglace.data.text.readers import DamagedFileError, Document, SkippedDocument, decoded, format_of, read_documents
from demiglace.errors import DataError

ROWS = [{"text": "One.", "url": "https://a.example/x"}, {"text": "Two\nlines.", "url": None}, {"text": "Drei ü."}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FOUND = [Document("One.", "a.example"), Document("Two\nlines.", ""), Document("Drei ü.", "")]
PAGE = (
    b"<html><body><nav>Home</nav><article><h1>Title</h1><p>"
    + b"A sentence of the story. " * 20
    + b"</p></article></body></html>"
)


def read(file: Path, **options: object) -> list[Document | SkippedDocument]:
    return list(read_documents(str(file), ReadConfig(**options)))  # type: ignore[arg-type]


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


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
    assert read(written(tmp_path / "y.htm", b"<html></html>")) == [
        SkippedDocument("no text in the HTML", str(tmp_path))
    ]


def test_rows_that_are_no_documents(tmp_path: Path) -> None:
    lines = b'{"text": 3}\n["text"]\n{nonsense\n\n{"body": "x"}\n{"text": "  "}\n{"text": ""}\n{"text": "Good."}\n'
    found = read(written(tmp_path / "x.jsonl", lines))
    assert found[-1] == Document("Good.", "")
    assert [f.reason for f in found[:-1] if isinstance(f, SkippedDocument)] == [
        "no text under 'text'",
        "no text under 'text'",
        "no JSON",
        "no text under 'text'",
        "empty",
        "empty",
    ]


def test_brackets_in_thousands_of_brackets_are_no_document(tmp_path: Path) -> None:
    found = read(written(tmp_path / "x.jsonl", b"[" * 5000 + b'\n{"text": "Good."}\n'))
    assert found == [SkippedDocument("no JSON", "[" * 80), Document("Good.", "")]


def test_half_a_character_in_an_address_does_not_reach_the_site(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path / "x.jsonl", b'{"text": "x", "url": "http://a\\ud800b.example/"}'))
    assert found == Document("x", "a?b.example")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_that_is_no_utf8_or_too_long(tmp_path: Path, kind: pa.DataType) -> None:
    raw = [b"caf\xe9", "ü".encode(), b"x" * 2000, None]
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = pa.array(raw, pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()).view(plain)
    texts = texts.dictionary_encode() if pa.types.is_dictionary(kind) else texts
    pq.write_table(pa.table({"text": texts, "url": texts}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet", max_document_mb=0.001) == [
        Document("café", "", guessed=True),
        Document("ü", ""),
        SkippedDocument("too long", "2000 bytes"),
        SkippedDocument("no text under 'text'", "text, url"),
    ]


def test_columns_of_other_kinds_hold_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [[1], [2]]}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == [SkippedDocument("no text under 'text'", "text")] * 2


def test_encodings(tmp_path: Path) -> None:
    assert decoded("ü".encode()) == decoded("ü".encode("cp1252")) == decoded("\ufeffü".encode()) == "ü"
    assert decoded("ü".encode("utf-16")) == "ü"
    mixed = read(written(tmp_path / "x.txt", "ü\n".encode() + "ö\n".encode("cp1252") + b"a\0b"), unit="line")
    assert mixed == [Document("ü", ""), Document("ö", "", guessed=True), Document("a\0b", "")]
    # an odd line changes no other one
    one = read(written(tmp_path / "x.txt", "ü\n".encode() + "ö\n".encode("cp1252") + "é".encode()))
    assert one == [Document("ü\nö\né", "", guessed=True)]


@pytest.mark.parametrize("unit", ["document", "line"])
def test_a_document_that_is_too_long_is_not_held_in_memory(tmp_path: Path, unit: str) -> None:
    file = written(tmp_path / "x.txt", b"x" * 3_000_000)
    assert [f.reason for f in read(file, unit=unit, max_document_mb=1) if isinstance(f, SkippedDocument)] == [
        "too long"
    ]
    both = written(tmp_path / "y.txt", b"x" * 3_000_000 + b"\nshort\n")
    assert read(both, unit="line", max_document_mb=1)[-1] == Document("short", "")


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.jsonl.gz", "x.txt.zst", "x.html", "x.wet"])
def test_empty_files_are_told(tmp_path: Path, name: str) -> None:
    (found,) = read(written(tmp_path / name, b""))
    assert isinstance(found, SkippedDocument)
    assert found.reason == "empty"


def test_files_without_a_row_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == [SkippedDocument("empty", "nothing in the file")]
    for unit in ("line", "paragraph"):
        assert read(written(tmp_path / "x.txt", b"\n \n"), unit=unit) == [
            SkippedDocument("empty", "nothing in the file")
        ]


def test_utf16_by_lines(tmp_path: Path) -> None:
    file = written(tmp_path / "x.txt", "Grüße\nĊ zwei\n\nfünf".encode("utf-16"))  # U+010A has a byte 0x0A
    assert read(file, unit="line") == [Document(text, "") for text in ("Grüße", "Ċ zwei", "fünf")]
    assert read(file, unit="paragraph") == [Document("Grüße\nĊ zwei", ""), Document("fünf", "")]
    assert read(written(tmp_path / "x.jsonl", LINES.decode().encode("utf-16"))) == FOUND


def test_a_paragraph_that_is_too_long(tmp_path: Path) -> None:
    file = written(tmp_path / "x.txt", b"short\n\n" + b"a line\n" * 500 + b"\nlast")
    found = read(file, unit="paragraph", max_document_mb=0.001)
    assert found == [Document("short", ""), SkippedDocument("too long", "3500 bytes"), Document("last", "")]


def test_a_paragraph_that_is_too_long_is_not_held_in_memory(tmp_path: Path) -> None:
    file = written(tmp_path / "x.txt", (b"a word " * 200 + b"\n") * 8000)
    tracemalloc.start()
    try:
        read(file, unit="paragraph", max_document_mb=0.1)
        assert tracemalloc.get_traced_memory()[1] < file.stat().st_size / 2

    finally:
        tracemalloc.stop()


def test_kinds() -> None:
    assert format_of("a/B.JSONL.zst") == ".jsonl"
    assert format_of("x.txt.gz.zst") == format_of("x.txt.zst.gz") == ".txt"  # refused when read, not passed over
    with pytest.raises(DataError, match=r"x\.pdf has an unknown format; expected \.txt"):
        format_of("x.pdf")


def test_addresses_are_read_by_the_engine(tmp_path: Path) -> None:
    file = written(tmp_path / "x.jsonl", LINES)
    assert list(read_documents(f"file://{file}", ReadConfig())) == FOUND
    with pytest.raises(DataError, match=r"no\.jsonl cannot be read.*Check that it exists"):
        list(read_documents(f"file://{tmp_path}/no.jsonl", ReadConfig()))
