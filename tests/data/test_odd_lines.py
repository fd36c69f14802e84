"""One odd line changes no other row, whatever the format; other ways to write the same rows give the same rows."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.rows.readers import read_table
from demiglace.data.rows.table import Table
from demiglace.errors import DataError
from demiglace.notices import collected, collecting

COUNT = 30
in_one_folder = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
WORDS = st.text("abé,;' ", min_size=1, max_size=5)


def rows_of(folder: Path, name: str, content: str) -> Table:
    file = folder / name
    file.write_bytes(content.encode())
    return read_table(file)


def pairs(table: Table) -> list[tuple[str, str]]:
    return list(zip(table.columns["text"], table.columns["label"], strict=True))


@st.composite
def stray_quotes(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Texts with quotes that have no second one, as GLUE's files have them."""
    words = draw(st.lists(WORDS, min_size=3, max_size=12))
    ends = draw(st.lists(st.sampled_from(("", "open", "close", "inside")), min_size=len(words), max_size=len(words)))
    quoted = {"": "{}", "open": '"{}', "close": '{}"', "inside": 'a "{} b'}
    return [
        (quoted[end].format(word) + f" {i}", "ab"[i % 2]) for i, (word, end) in enumerate(zip(words, ends, strict=True))
    ]


@given(rows=stray_quotes(), odd=st.sampled_from(("", "   ", "no tab", "a\tb\tc", "no tab\t\t\t")), data=st.data())
@in_one_folder
def test_an_odd_line_of_a_tsv_file_changes_no_other_row(
    tmp_path: Path, rows: list[tuple[str, str]], odd: str, data: st.DataObject
) -> None:
    lines = ["\t".join(row) for row in rows]
    lines.insert(data.draw(st.integers(0, len(rows))), odd)
    table = rows_of(tmp_path, "rows.tsv", "\n".join(["text\tlabel", *lines]) + "\n")
    assert pairs(table) == rows
    assert len(table.problems) == (odd.strip() != "")
    assert all(lines[p.line - 2] == odd for p in table.problems)


@given(
    texts=st.lists(st.text(max_size=12), min_size=3, max_size=12),
    odd=st.sampled_from(("", "   ", "{", "[", "[1, 2]", '"text"', "{'text': 1}", '{"text": "x"},', "}", "null")),
    data=st.data(),
)
@in_one_folder
def test_an_odd_line_of_json_lines_changes_no_other_row(
    tmp_path: Path, texts: list[str], odd: str, data: st.DataObject
) -> None:
    rows = [(text, "ab"[i % 2]) for i, text in enumerate(texts)]
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    lines.insert(data.draw(st.integers(0, len(rows))), odd)
    table = rows_of(tmp_path, "rows.jsonl", "\n".join(lines) + "\n")
    assert pairs(table) == rows
    assert len(table.problems) == (odd.strip() != "")


@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12), min_size=3, max_size=9
    ),
    odd=st.sampled_from(("", "one cell", "a,b,c", 'x "quoted" y,a,b', '"x"y,a', '"open')),
    data=st.data(),
)
@in_one_folder
def test_an_odd_line_of_a_csv_file_changes_no_other_row_or_is_refused(
    tmp_path: Path, texts: list[str], odd: str, data: st.DataObject
) -> None:
    rows = [(text, "ab"[i % 2]) for i, text in enumerate(texts)]
    records = ['"' + text.replace('"', '""') + '",' + label for text, label in rows]
    position = data.draw(st.integers(0, len(rows)))
    records.insert(position, odd)
    try:
        table = rows_of(tmp_path, "rows.csv", "\n".join(["text,label", *records]) + "\n")
    except DataError as error:
        assert odd == '"open'
        assert f"rows.csv:{1 + sum(1 + r.count(chr(10)) for r in records[:position]) + 1}: a cell opens" in str(error)
        return
    assert pairs(table) == rows
    assert len(table.problems) == (odd != "")


@given(texts=st.lists(st.text(max_size=12), min_size=1, max_size=8))
@in_one_folder
def test_json_is_read_however_it_is_laid_out(tmp_path: Path, texts: list[str]) -> None:
    rows = [{"text": text, "label": "ab"[i % 2], "more": {"a": [1, {"b": 2}]}} for i, text in enumerate(texts)]
    forms = {
        "lines": "\n".join(map(json.dumps, rows)),
        "array": json.dumps(rows),
        "pretty array": json.dumps(rows, indent=1),
        "array of lines": "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
        "pretty objects": "\n".join(json.dumps(row, indent=2) for row in rows),
        "Windows": "\r\n".join(map(json.dumps, rows)) + "\r\n",
        "old Macintosh": "\r".join(map(json.dumps, rows)) + "\r",
    }
    for form in forms.values():
        table = rows_of(tmp_path, "rows.json", form)
        assert [dict(zip(table.columns, row, strict=True)) for row in zip(*table.columns.values(), strict=True)] == rows
        assert table.problems == ()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("name", "delimiter"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_every_line_end_ends_a_row(tmp_path: Path, ending: str, name: str, delimiter: str) -> None:
    lines = [delimiter.join(row) for row in (("text", "label"), ("one", "a"), ("two", "b"))]
    assert pairs(rows_of(tmp_path, name, ending.join(lines) + ending)) == [("one", "a"), ("two", "b")]


def test_lines_of_json_are_those_of_the_file(tmp_path: Path) -> None:
    pretty = '{\n  "text": "a"\n}\n{\n  "text": oops\n}\n{\n  "text": "b"\n}\n'
    table = rows_of(tmp_path, "rows.json", pretty)
    assert list(table.lines) == [1, 7]
    assert [(p.line, p.detail) for p in table.problems] == [
        (4, "broken JSON: Expecting value at line 2 of the object, character 11")
    ]
    assert list(rows_of(tmp_path, "rows.json", '[{"text": "a"},\n\n{"text": "b"}]').lines) == [1, 3]


def test_row_problems_are_shown_before_column_problems(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{'text': 'a', 'label': 'b'}\n" * 40)
    with pytest.raises(
        DataError, match=r"40 of 40 rows cannot be read:\n.*malformed row: 40\n.*:1  broken JSON"
    ) as caught:
        load(tmp_path / "rows.jsonl")
    assert "column" not in str(caught.value)
    (tmp_path / "rows.jsonl").write_text("{'text': 'a'}\n" * 40 + '{"phrase": "a"}\n')
    with pytest.raises(DataError, match=r"40 of 41 rows cannot be read(.|\n)*no label column.*phrase"):
        load(tmp_path / "rows.jsonl")


def load(file: Path, **options: object) -> list[tuple[str, object]]:
    """Return the loaded rows with the names of their classes, or with their numbers, in the file's order."""
    dataset = load_dataset(DataConfig(data=str(file), **options), DataLocation())  # type: ignore[arg-type]
    names = dataset.labels.names
    found = {
        line: (text, names[label] if names else float(label))
        for split in dataset.splits.values()
        for text, label, (_, line) in zip(split.texts, split.labels, split.lines, strict=True)
    }
    return [found[line] for line in sorted(found)]


@pytest.mark.parametrize(
    "odd",
    [
        {"sentence1": "x", "sentence2": "y", "label": "a"},
        {"text": "x", "label": "a", "category": "z", "sentence": "w"},
        {"review": "x", "label": None},
        {"text": "x", "labels": "b"},
        {"text": 5, "label": 2.5},
        {"text": "x", "label": "n/a"},
    ],
)
@pytest.mark.parametrize("kind", ["names", "integers", "numbers"])
def test_an_odd_object_changes_no_other_row(tmp_path: Path, odd: dict[str, object], kind: str) -> None:
    label = {"names": lambda i: "ab"[i % 2], "integers": lambda i: float(i % 3), "numbers": lambda i: i % 5 / 2}[kind]
    rows = [{"text": f"row {i}", "category": label(i)} for i in range(COUNT)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    plain = load(file)
    renamed = {"category" if name == "label" else name: value for name, value in odd.items()}
    file.write_text("\n".join(map(json.dumps, [renamed, *rows])))
    try:
        found = load(file, on_bad_rows="drop")
    except DataError as error:
        assert "2.5' alone is a number with a fraction" in str(error)
        assert kind == "integers"
        return
    assert [row for row in found if row[0].startswith("row")] == plain


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (("3,5", "4", "0,25"), (3.5, 4.0, 0.25)),
        (("1.234,5", "7", "1.000"), (1234.5, 7.0, 1000.0)),
        (("1,234.5", "7.5", "-2,000"), (1234.5, 7.5, -2000.0)),
        (("1 234,5", "7", "12 000,25"), (1234.5, 7.0, 12000.25)),
    ],
)
def test_numbers_with_separators_are_read_as_numbers_if_asked_for(
    tmp_path: Path, labels: tuple[str, ...], numbers: tuple[float, ...]
) -> None:
    lines = [f"row {i}\t{labels[i % 3]}" for i in range(COUNT)]
    file = tmp_path / "rows.tsv"
    file.write_text("\n".join(["text\tscore", *lines]))
    assert [value for _, value in load(file, problem="regression")] == [numbers[i % 3] for i in range(COUNT)]
    assert {value for _, value in load(file, problem="classification")} == {*labels}
    with pytest.raises(DataError, match=r"labels are numbers with a separator, such as .*--problem regression"):
        load(file)


def test_a_comma_that_may_be_either_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_text("\n".join(["text\tscore", *(f"row {i}\t{i},{i % 9}00" for i in range(1, COUNT))]))
    with pytest.raises(DataError, match=r"29 labels have commas or points.*'1,100'.*write them as 1234\.5"):
        load(file, problem="regression")


def test_texts_with_several_labels_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [(f"row {i}", "ab"[i % 2]) for i in range(40)]
    for split, more in (("train", [("twice", "a"), ("twice ", "b"), ("same", "a"), ("same", "a")]), ("test", [])):
        lines = [f"{text},{label}" for text, label in rows + more] if split == "train" else ["alone,a", "alone,b"]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *lines]))
    (tmp_path / "validation.csv").write_text("text,label\nx,a\ny,b\n")
    with collecting():
        load(tmp_path)
        found = collected()
    assert [(n["kind"], n["texts"], n["rows"]) for n in found] == [("contradictions", 1, 2), ("contradictions", 1, 2)]
    said = capsys.readouterr().err
    assert "1 texts of the train rows occur with several labels (2 of 44 rows)" in said
    assert "1 texts of the test rows occur with several labels (2 of 2 rows)" in said


def test_rows_that_an_open_quote_joins_are_reported(tmp_path: Path) -> None:
    rows = [(f"row {i}", "ab"[i % 2]) for i in range(40)]
    rows[10], rows[13] = ('"' + rows[10][0], rows[10][1]), (rows[13][0] + '"', rows[13][1])
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *map(",".join, rows)]))
    with collecting():
        load(tmp_path / "train.csv")
        (notice,) = collected()
    assert (notice["kind"], notice["rows"]) == ("rows in texts", 1)
    assert "train.csv:12" in notice["message"]
    (tmp_path / "train.csv").write_text(
        "text,label\n" + "".join(f'"Two, lines\nof {i}",{"ab"[i % 2]}\n' for i in range(40))
    )
    with collecting():
        load(tmp_path / "train.csv")
        assert collected() == []
