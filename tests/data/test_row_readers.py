"""Files of every kind, whole and broken."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from demiglace.data.rows import readers
from demiglace.data.rows import table as rows_table
from demiglace.data.rows.readers import ENDINGS, read_table
from demiglace.errors import DataError

ROWS = [("plain", "a"), ("with, comma", "b"), ('a "quote"', "a"), ("Ünïcödé 😀", "b")]


def content(kind: str) -> bytes:
    if kind == ".csv":
        cells = ["text,label", "plain,a", '"with, comma",b', '"a ""quote""",a', "Ünïcödé 😀,b"]
    elif kind == ".tsv":
        cells = ["text\tlabel", *("\t".join(row) for row in ROWS)]
    else:
        cells = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    return ("\n".join(cells) + "\n").encode()


def packed(data: bytes, ending: str) -> bytes:
    if ending.endswith(".gz"):
        return gzip.compress(data, mtime=0)
    return zstandard.compress(data) if ending.endswith(".zst") else data


def write(folder: Path, name: str, data: bytes | str) -> Path:
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


@pytest.mark.parametrize("ending", [e for e in ENDINGS if "." + e.split(".")[1] in (".csv", ".tsv", ".jsonl", ".json")])
def test_every_ending_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    kind = "." + ending.split(".")[1]
    table = read_table(write(tmp_path, "rows" + ending, packed(content(kind), ending)))
    assert list(zip(table.columns["text"], table.columns["label"], strict=True)) == ROWS
    assert list(table.lines) == ([1, 2, 3, 4] if "json" in kind else [2, 3, 4, 5])
    assert table.problems == ()


def test_parquet_gives_rows_by_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [t for t, _ in ROWS], "label": [0, 1, 0, None]}), tmp_path / "rows.parquet")
    table = read_table(tmp_path / "rows.parquet")
    assert table.columns["text"] == [t for t, _ in ROWS]
    assert table.columns["label"] == [0, 1, 0, None]
    assert list(table.lines) == [1, 2, 3, 4]


def test_parquet_text_that_is_not_utf8_is_carried_as_surrogates(tmp_path: Path) -> None:
    bad = pa.array([b"fine", b"\xff"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, bad.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "rows.parquet")
    assert read_table(tmp_path / "rows.parquet").columns["text"] == ["fine", "\udcff"]


def test_lines_are_those_on_which_a_record_starts(tmp_path: Path) -> None:
    file = write(tmp_path, "rows.csv", 'text,label\n"one\ntwo\n\nfour",a\n\nnext,b\n')
    table = read_table(file)
    assert table.columns["text"] == ("one\ntwo\n\nfour", "next")
    assert list(table.lines) == [2, 7]


def test_windows_files_with_a_byte_order_mark(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "rows.csv", b"\xef\xbb\xbftext,label\r\none,a\r\ntwo,b\r\n"))
    assert table.columns == {"text": ("one", "two"), "label": ("a", "b")}
    table = read_table(write(tmp_path, "rows.tsv", b"\xef\xbb\xbftext\tlabel\r\none\ta\r\n"))
    assert table.columns == {"text": ("one",), "label": ("a",)}


def test_unicode_line_separators_end_no_row(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "rows.jsonl", json.dumps({"text": "a\u2028b\x85c"}, ensure_ascii=False)))
    assert table.columns["text"] == ["a\u2028b\x85c"]


def test_cells_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    long = "x" * 200_000
    assert read_table(write(tmp_path, "rows.csv", f"text,label\n{long},a\n")).columns["text"] == (long,)


def test_tsv_keeps_stray_quotes_and_reads_quoted_cells(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.tsv", 'text\tlabel\n"Stop, he said\ta\n"two ""words"""\tb\n'))
    assert table.columns["text"] == ('"Stop, he said', 'two "words"')
    table = read_table(write(tmp_path, "b.tsv", 'text\tlabel\n"a tab\t, a"\ta\nplain\tb\n"two\nlines"\tb\n'))
    assert table.columns["text"] == ("a tab\t, a", "plain", "two\nlines")
    assert list(table.lines) == [2, 3, 4]


def test_rows_that_cannot_be_read_are_problems_with_their_line(tmp_path: Path) -> None:
    csv = read_table(write(tmp_path, "rows.csv", 'text,label\nok,a\none,two,three\n"x"y,b\nfine,b\n'))
    assert [(p.kind, p.line) for p in csv.problems] == [("malformed row", 3), ("malformed row", 4)]
    assert csv.columns["text"] == ("ok", "fine")
    lines = ['{"text": "ok"}', '{"text": ', "[1, 2]", "", '{"text": "fine"}']
    jsonl = read_table(write(tmp_path, "rows.jsonl", "\n".join(lines)))
    assert [p.line for p in jsonl.problems] == [2, 3]
    assert "broken JSON" in jsonl.problems[0].detail
    assert list(jsonl.lines) == [1, 5]


def test_json_rows_may_lack_a_key(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "rows.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n'))
    assert table.columns["label"] == [1, None]


def test_deeply_nested_json_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "rows.jsonl", '{"text": "a"}\n' + "[" * 100_000 + "\n"))
    assert [p.line for p in table.problems] == [2]


def test_bytes_that_are_not_utf8_are_carried_as_surrogates(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "rows.csv", b"text,label\nfine,a\nb\xe9d,b\n"))
    assert table.columns["text"] == ("fine", "b\udce9d")


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_a_cut_off_archive_says_how_far_it_goes(tmp_path: Path, ending: str) -> None:
    noise = "".join(chr(97 + (i * i * 7919 + i) % 26) for i in range(200_000))
    lines = "".join(json.dumps({"text": noise[i * 100 : i * 100 + 100]}) + "\n" for i in range(2000))
    whole = packed(lines.encode(), ending)
    file = write(tmp_path, "rows" + ending, whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"rows{ending} is damaged after line \d+ .*cut off"):
        read_table(file)


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.zst"])
def test_an_archive_that_is_none_is_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(DataError, match="is not compressed as its name says"):
        read_table(write(tmp_path, "rows" + ending, b"text,label\nnot compressed,a\n"))


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.zst"])
def test_an_archive_may_have_several_frames(tmp_path: Path, ending: str) -> None:
    parts = packed(b"text,label\none,a\n", ending) + packed(b"two,b\n", ending)
    assert read_table(write(tmp_path, "rows" + ending, parts)).columns["text"] == ("one", "two")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("rows.xlsx", b"x", r"known endings: \.csv"),
        ("rows.csv", b"", "is empty"),
        ("rows.csv", b"text,label\n", "holds no rows"),
        ("rows.jsonl", b"\n\n", "holds no rows"),
        ("rows.csv", b"text,text\na,b\n", "occurs twice"),
        ("rows.csv", b"text;label\na;b\n", "wants commas"),
        ("rows.csv", b'text,label\na,b\n"open,c\nd,e\n', r"rows.csv:3: a cell opens with \""),
        ("rows.csv", "text,label\na,b\n".encode("utf-16"), "is UTF-16"),
        ("rows.parquet", b"nothing of the kind", "cannot be read as Parquet"),
        ("rows.csv.gz", b"", "is empty"),
        ("rows.csv", gzip.compress(b"text,label\na,b\n", mtime=0), "compressed by gzip but its name does not end so"),
        (
            "rows.csv.gz",
            gzip.compress(gzip.compress(b"text,label\na,b\n", mtime=0), mtime=0),
            "compressed by gzip once more",
        ),
        ("rows.csv", b"PK\x03\x04rest", "a zip archive or a spreadsheet"),
        ("rows.json", b'[{"text": "a"},\n{"text": "b"},\n{"te', r"rows.json:3: the JSON array is broken after 2 rows"),
    ],
)
def test_files_that_cannot_be_read_are_clear_errors(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_table(write(tmp_path, name, data))


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("missing.csv", "folder.csv"):
        with pytest.raises(DataError, match="there is no file"):
            read_table(tmp_path / name)


@pytest.mark.parametrize(("ending", "size"), [(".gz", 60_000_000), (".zst", 150_000_000)])
def test_rows_that_unpack_to_more_than_text_does_are_refused(tmp_path, ending, size):
    bomb = tmp_path / f"rows.csv{ending}"
    bomb.write_bytes({".gz": gzip.compress, ".zst": zstandard.compress}[ending](b"text,label\n" + b"a" * size))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="it unpacks to far more than text does"):
            read_table(bomb)
        assert tracemalloc.get_traced_memory()[1] < 170_000_000
    finally:
        tracemalloc.stop()


def test_rows_that_do_not_fit_into_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MOST_BYTES", 100_000)
    (tmp_path / "rows.csv").write_text("text,label\n" + "a,b\n" * 50_000)
    table = pa.table({"text": pa.array(["a" * 1000] * 5000).dictionary_encode(), "label": ["b"] * 5000})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_size < 100_000
    for name in ("rows.csv", "rows.parquet"):
        with pytest.raises(DataError, match="more than can be read into memory as rows; split it"):
            read_table(tmp_path / name)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_too_many_columns_are_refused_at_once(tmp_path, ending):
    names, file = [f"c{i}" for i in range(100_000)], tmp_path / f"rows{ending}"
    if ending == ".parquet":
        pq.write_table(pa.table({name: [1] for name in names[:10_001]}), file)
    elif ending == ".jsonl":
        file.write_text(json.dumps(dict.fromkeys(names, 1)))
    else:
        file.write_text(("," if ending == ".csv" else "\t").join(names) + "\n")
    with pytest.raises(DataError, match=r"10.,?0.. columns in 1 rows, and a file can have at most 10,000 columns"):
        read_table(file)


def test_rows_with_a_key_each_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_table, "MOST_CELLS", 10_000)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": "a", f"key {i}": i}) + "\n" for i in range(200)))
    with pytest.raises(DataError, match="201 columns in 200 rows"):
        read_table(file)
