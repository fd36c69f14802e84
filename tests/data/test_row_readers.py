"""Files of every kind, whole and broken."""

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from demiglace.data.rows import readers
from demiglace.data.rows import table as rows_table
from demiglace.data.rows.readers import ENDINGS, read_table
from demiglace.data.rows.sampling import RowSample
from demiglace.data.rows.table import Lines
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
        assert tracemalloc.get_traced_memory()[1] < 210_000_000  # 131 MB of text, and two pieces of 34 MB
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


def content_of_all_kinds(folder: Path, rows: list[tuple[str, str]]) -> list[Path]:
    text = {
        ".csv": "text,label\n" + "".join(f'"{t}",{label}\n' for t, label in rows),
        ".tsv": "text\tlabel\n" + "".join(f"{t}\t{label}\n" for t, label in rows),
        ".jsonl": "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows),
        ".json": "[" + ",\n".join(json.dumps({"text": t, "label": label}) for t, label in rows) + "]",
        ".conll": "".join(f"{t} {label}\n\n" for t, label in rows),
    }
    files = [write(folder, f"rows{kind}", content) for kind, content in text.items()]
    files += [write(folder, f"rows.csv{ending}", packed(text[".csv"].encode(), ending)) for ending in (".gz", ".zst")]
    pq.write_table(pa.table({"text": [t for t, _ in rows], "label": [x for _, x in rows]}), folder / "rows.parquet")
    return [*files, folder / "rows.parquet"]


def test_a_sample_is_rows_of_the_file_in_their_order_and_with_their_lines(tmp_path: Path) -> None:
    rows = [(f"row{i}", "ab"[i % 2]) for i in range(5000)]
    for file in content_of_all_kinds(tmp_path, rows):
        full, drawn = read_table(file), read_table(file, RowSample(300, seed=1))
        assert (full.total, drawn.total, len(full), len(drawn)) == (None, 5000, 5000, 300), file
        positions = [list(full.lines).index(line) for line in drawn.lines]
        assert positions == sorted(set(positions))
        for name, values in full.columns.items():
            assert list(drawn.columns[name]) == [values[i] for i in positions]
        assert abs(sum(positions) / 300 - 2500) < 5 * 5000 / (12 * 300) ** 0.5  # from all of it
        assert read_table(file, RowSample(300, seed=1)).lines == drawn.lines
        assert read_table(file, RowSample(300, seed=2)).lines != drawn.lines
        assert dict(read_table(file, RowSample(5000)).columns) == dict(full.columns)


def test_a_sample_is_uniform_over_blocks_of_rows() -> None:
    counts = np.zeros(200_000, dtype=int)
    for seed in range(60):
        rows, total = RowSample(20_000, seed).of(iter(range(200_000)))
        assert total == 200_000 and rows == sorted(set(rows))
        counts[rows] += 1
    tenths = counts.reshape(10, -1).sum(axis=1) / (60 * 20_000)
    assert np.abs(tenths - 0.1).max() < 0.002  # four standard errors are 0.001


def test_rows_that_are_not_drawn_take_no_memory(tmp_path: Path) -> None:
    text = "".join(f'"row {i} {"x" * 500}",a\n' for i in range(40_000))
    for ending in ("", ".zst"):
        file = write(tmp_path, f"rows.csv{ending}", packed(f"text,label\n{text}".encode(), ending))
        tracemalloc.start()
        assert len(read_table(file, RowSample(100))) == 100
        assert tracemalloc.get_traced_memory()[1] < len(text)  # a block of rows, not the 20 MB in pieces and as rows
        tracemalloc.stop()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_do_not_depend_on_the_pieces_that_are_read(end: str, size: int) -> None:
    lines = ["", "one", "", "", "two words", "é😀", "last"]
    text = end.join(lines) + end
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    if end == "\r":
        pieces = [text[:5], *(text[i : i + size] for i in range(5, len(text), size))]  # the kind is seen in the first
    found = Lines(iter(pieces))
    assert (found.peek(4), found.peek(99), found.number) == ("two words", None, 1)
    assert found.take(2) == ["", "one"] and found.number == 3
    assert list(found) == lines[2:]


@pytest.mark.parametrize(
    "metadata", ['{"info": 3}', "{", "[]", '{"info": {"features": {"text": [{"_type": "ClassLabel"}]}}}']
)
def test_parquet_metadata_of_another_form_names_nothing(tmp_path: Path, metadata: str) -> None:
    table = pa.table({"text": ["a"], "label": ["b"]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert dict(read_table(tmp_path / "rows.parquet").columns) == {"text": ["a"], "label": ["b"]}


def test_parquet_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "LABEL": ["b"]}), tmp_path / "rows.parquet")
    content = (tmp_path / "rows.parquet").read_bytes().replace(b"LABEL", b"LA\xe1EL")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_table(write(tmp_path, "rows.parquet", content))
