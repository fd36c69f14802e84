"""Reading WARC and WET files, complete and truncated."""

import gzip
from pathlib import Path

import pytest

from demiglace.config.data import ReadConfig
from demiglace.data.text.readers import DamagedFileError, Document, SkippedDocument, read_documents
from demiglace.data.text.warc import joined_chunks

PAGE = b"<html><body><article><h1>Title</h1><p>" + b"A sentence of the story. " * 20 + b"</p></article></body></html>"
RESPONSE = "application/http; msgtype=response"


def record(kind: str, body: bytes, mime: str = "text/plain") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://b.example/p\r\nWARC-Record-ID: <urn:x>\r\n"
    return f"{head}Content-Type: {mime}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"


def read(file: Path, content: bytes, **options: float) -> list[Document | SkippedDocument]:
    file.write_bytes(content)
    return list(read_documents(str(file), ReadConfig(**options)))  # type: ignore[arg-type]


def test_warc_and_wet(tmp_path: Path) -> None:
    wet = record("warcinfo", b"by: us") + record("conversion", "Grüße.".encode()) * 2
    assert read(tmp_path / "x.wet.gz", gzip.compress(wet)) == [Document("Grüße.", "b.example")] * 2
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE
    image = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89"
    request = record("request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "application/http; msgtype=request")
    page, other = read(
        tmp_path / "x.warc", request + record("response", http, RESPONSE) + record("response", image, RESPONSE)
    )
    assert isinstance(page, Document)
    assert page.text.startswith("Title")
    assert other == SkippedDocument("no HTML", "image/png")


def test_a_response_that_is_not_of_http_is_no_page(tmp_path: Path) -> None:
    assert read(tmp_path / "x.warc", record("response", PAGE)) == [SkippedDocument("no HTML", "no content type")]


def test_no_cut_goes_unnoticed(tmp_path: Path) -> None:
    first, second = record("conversion", b"Whole."), record("conversion", b"Cut off here.")
    mark = len(b"\r\n\r\n")  # behind a record; without it the record is whole all the same
    for cut in range(1, len(second) - mark):
        found = []
        (tmp_path / "x.wet").write_bytes(first + second[:cut])
        with pytest.raises(
            DamagedFileError, match=r"cut off inside the record|not a WARC file, or is damaged, after 1 records"
        ):
            for document in read_documents(str(tmp_path / "x.wet"), ReadConfig()):
                found.append(document)
        assert found == [Document("Whole.", "b.example")], cut
    for cut in range(len(second) - mark, len(second) + 1):
        assert len(read(tmp_path / "x.wet", first + second[:cut])) == 2


def test_cuts_in_records_that_are_no_pages_and_in_http(tmp_path: Path) -> None:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE
    whole = record("response", http, RESPONSE) + record("metadata", b"fetched: yes")
    for cut in (20, 60, 150, 190, 210, 300, len(whole) - 100, len(whole) - 6):
        with pytest.raises(DamagedFileError):
            read(tmp_path / "x.warc", whole[:cut])


@pytest.mark.parametrize("content", [b"no archive at all", b"x" * 70_000, b"WARC/1.0\r\n" + b"x" * 99])
def test_what_is_no_warc(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DamagedFileError):
        read(tmp_path / "x.warc", content)


def test_a_cut_archive_of_records(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=r"cut off after \d+ decompressed bytes"):
        read(tmp_path / "x.wet.gz", gzip.compress(record("conversion", b"Text. " * 99))[:-9])


def test_a_record_that_is_too_long_is_told_and_the_next_one_read(tmp_path: Path) -> None:
    wet = record("conversion", b"x" * 3_000_000) + record("conversion", b"short")
    found = read(tmp_path / "x.wet", wet, max_document_mb=0.5)
    assert found == [SkippedDocument("too long", "3000000 bytes"), Document("short", "b.example")]
    assert [type(d) for d in read(tmp_path / "x.wet", wet)] == [Document, Document]


def response(body: bytes, *headers: str) -> bytes:
    head = "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: text/html; charset=utf-8", *headers, "", ""])
    return record("response", head.encode() + body, RESPONSE)


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_chunks_of_a_body_are_joined(tmp_path: Path, size: int) -> None:
    pieces = [PAGE[i : i + size] for i in range(0, len(PAGE), size)]
    chunked = b"".join(b"%x;extension=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    plain = read(tmp_path / "x.warc", response(PAGE))
    assert read(tmp_path / "x.warc", response(chunked, "Transfer-Encoding: chunked")) == plain
    packed = gzip.compress(chunked), gzip.compress(PAGE)
    assert read(tmp_path / "x.warc", response(packed[1], "Content-Encoding: gzip")) == plain
    of_packed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed[1]), packed[1])
    headers = ("Content-Encoding: gzip", "Transfer-Encoding: chunked")
    assert read(tmp_path / "x.warc", response(of_packed, *headers)) == plain


def test_a_body_that_a_crawler_joined_stays_and_a_cut_one_is_joined_to_its_end(tmp_path: Path) -> None:
    plain = read(tmp_path / "x.warc", response(PAGE))
    assert read(tmp_path / "x.warc", response(PAGE, "Transfer-Encoding: chunked")) == plain
    assert joined_chunks(b"5\r\nabcde\r\n6\r\nfgh") == b"abcdefgh"
