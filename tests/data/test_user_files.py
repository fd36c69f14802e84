"""A user's own files: columns, labels, splits, and what is said of bad rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from demiglace import notices
from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows import sources
from demiglace.data.rows.dataset import load_dataset, load_unlabelled
from demiglace.data.rows.schema import Dataset
from demiglace.errors import DataError
from demiglace.tasks.classification import UNLABELLED


def csv(folder: Path, name: str, rows: list[tuple[object, ...]], header: str = "text,label") -> str:
    file = folder / name
    file.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return str(file)


def many(count: int, start: int = 0) -> list[tuple[object, ...]]:
    return [(f"row {i}", "good" if i % 3 else "bad") for i in range(start, start + count)]


def load(data: str, **options: object) -> Dataset:
    return load_dataset(DataConfig(data=data, **options), DataLocation())  # type: ignore[arg-type]


def test_three_files(tmp_path: Path) -> None:
    files = [csv(tmp_path, f"{i}.csv", many(6, 10 * i)) for i in range(3)]
    dataset = load(files[0], validation=files[1], test=files[2])
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 6, "validation": 6, "test": 6}
    assert dataset.labels.names == ("bad", "good")
    assert dataset.metrics == ("accuracy", "macro_f1")
    train = dataset.splits["train"]
    assert train.texts[:2] == ["row 0", "row 1"]
    assert train.labels.tolist() == [0, 1, 1, 0, 1, 1]
    assert train.lines[0] == (files[0], 2)
    assert train.pairs is None
    assert dataset.drops == {}


def test_a_folder_and_other_names_for_validation(tmp_path: Path) -> None:
    csv(tmp_path, "train.csv", many(6))
    csv(tmp_path, "dev.csv", many(3, 10))
    assert {n: len(s) for n, s in load(str(tmp_path)).splits.items()} == {"train": 6, "validation": 3}
    csv(tmp_path, "valid.csv", many(3, 20))
    with pytest.raises(DataError, match=r"several files of validation rows \(dev.csv, valid.csv\)"):
        load(str(tmp_path))


def test_validation_is_split_off_without_a_file(tmp_path: Path) -> None:
    file = csv(tmp_path, "all.csv", many(60))
    dataset = load(file, validation_fraction=0.2)
    assert list(dataset.splits) == ["train", "validation"]
    assert len(dataset.splits["validation"]) == 12
    assert np.bincount(dataset.splits["validation"].labels).tolist() == [4, 8]
    held, kept = (set(dataset.splits[name].texts) for name in ("validation", "train"))
    assert not held & kept
    assert held | kept == {text for text, _ in many(60)}
    assert load(file, validation_fraction=0.2).fingerprint == dataset.fingerprint


def test_rows_that_occur_twice_are_not_split_apart(tmp_path: Path) -> None:
    dataset = load(csv(tmp_path, "all.csv", many(40) * 2), validation_fraction=0.25)
    assert not set(dataset.splits["validation"].texts) & set(dataset.splits["train"].texts)
    assert len(dataset.splits["validation"]) == 20


def test_pairs_and_integer_labels_in_json(tmp_path: Path) -> None:
    rows = [{"premise": f"p{i}", "hypothesis": f"h{i}", "label": (10, 9)[i % 2]} for i in range(8)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = load(str(file), validation_fraction=0.5)
    assert dataset.labels.names == ("9", "10")
    split = dataset.splits["train"]
    assert split.pairs is not None
    assert [p[1:] for p in split.pairs] == [t[1:] for t in split.texts]


def test_numbers_with_a_fraction_are_regression(tmp_path: Path) -> None:
    file = csv(tmp_path, "all.csv", [(f"row {i}", i % 10 / 4) for i in range(20)], "text,score")
    dataset = load(file)
    assert dataset.labels.task.name == "regression"
    assert dataset.labels.size == 1
    assert dataset.metrics == ("pearson", "spearman")
    train = dataset.splits["train"]
    assert train.labels.dtype == np.float32
    assert [int(text.split()[1]) % 10 / 4 for text in train.texts] == train.labels.tolist()
    assert load(file, problem="classification").labels.size == 10


def test_labels_written_with_and_without_a_point_are_the_same(tmp_path: Path) -> None:
    train = csv(tmp_path, "train.csv", [("a", "0.0"), ("b", "1.0")])
    validation = csv(tmp_path, "validation.csv", [("c", "1"), ("d", "0")])
    dataset = load(train, validation=validation)
    assert dataset.labels.names == ("0", "1")
    assert dataset.splits["validation"].labels.tolist() == [1, 0]


BAD_TRAIN = (
    b"text,label\n"
    b"one,a\n"
    b"two,b\n"
    b"no label,\n"  # 4
    b"  ,a\n"  # 5
    b"b\xe9d,a\n"  # 6
    b"shared,b\n"  # 7
    b"\xff,only here\n"  # 8
    b"a,b,c\n"  # 9
)
BAD_VALIDATION = b"text,label\nthree,a\n shared ,b\nfour,unheard\nfive,only here\n"


def bad_files(folder: Path) -> tuple[str, str]:
    (folder / "train.csv").write_bytes(BAD_TRAIN)
    (folder / "validation.csv").write_bytes(BAD_VALIDATION)
    return str(folder / "train.csv"), str(folder / "validation.csv")


def test_bad_rows_are_all_named_in_one_error(tmp_path: Path) -> None:
    train, validation = bad_files(tmp_path)
    with pytest.raises(DataError) as caught:
        load(train, validation=validation)
    said = str(caught.value)
    assert "8 rows cannot be used" in said
    assert "--on-bad-rows drop" in said
    for kind, places in {
        "missing label: 1": [f"{train}:4"],
        "empty text: 1": [f"{train}:5"],
        "bad UTF-8: 2": [f"{train}:6", f"{train}:8"],
        "malformed row: 1": [f"{train}:9"],
        "duplicate across splits: 1": [f"{train}:7  also {validation}:3"],
        "unknown label: 2": [f"{validation}:4  'unheard'", f"{validation}:5  'only here'"],
        "class with no training row: 1": [f"{train}:8  'only here'"],
    }.items():
        part = said[said.index(kind) :]
        assert all(place in part for place in places), kind
    said.encode()  # no surrogate in it


def test_bad_rows_are_dropped_and_counted_by_reason(tmp_path: Path) -> None:
    train, validation = bad_files(tmp_path)
    dataset = load(train, validation=validation, on_bad_rows="drop")
    assert dataset.splits["train"].texts == ["one", "two"]
    assert dataset.splits["validation"].texts == ["three", " shared "]
    assert dataset.labels.names == ("a", "b")
    assert dataset.drops == {
        "missing label": 1,
        "empty text": 1,
        "bad UTF-8": 2,
        "malformed row": 1,
        "duplicate across splits": 1,
        "unknown label": 2,
    }


def test_many_problems_are_counted_and_only_the_first_shown(tmp_path: Path) -> None:
    file = csv(tmp_path, "train.csv", [*many(10), *(("text", "") for _ in range(12))])
    with pytest.raises(DataError, match=r"missing label: 12\n(.*\n){5}    … and 7 more"):
        load(file)


def test_messages_show_long_and_hostile_texts_short_and_escaped(tmp_path: Path) -> None:
    file = csv(tmp_path, "train.csv", [*many(10), ("\x1b[31m" + "x" * 10_000, "")])
    with pytest.raises(DataError) as caught:
        load(file)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_only_columns_that_are_used_must_be_utf8(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_bytes(b"text,label,note\n" + b"".join(b"row %d,%d,\xff\n" % (i, i % 2) for i in range(20)))
    assert len(load(str(file)).splits["train"]) == 18


def test_a_lone_surrogate_in_json_is_bad_utf8(tmp_path: Path) -> None:
    rows = [*({"text": f"row {i}", "label": i % 2} for i in range(10)), {"text": "\ud800", "label": 1}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match="bad UTF-8: 1"):
        load(str(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": 5, "label": "a"}], "text is no text: 1"),
        ([{"text": None, "label": "a"}], "empty text: 1"),
        ([{"text": "x", "label": [0, 1]}], r"label is \['0', '1'\]; for classification, one text or"),
    ],
)
def test_values_of_the_wrong_kind(tmp_path: Path, rows: list[dict[str, object]], says: str) -> None:
    good = [{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, good + rows)), encoding="utf-8")
    with pytest.raises(DataError, match=says):
        load(str(tmp_path / "rows.jsonl"))


def test_a_label_that_is_no_number_among_numbers(tmp_path: Path) -> None:
    file = csv(tmp_path, "train.csv", [*((f"row {i}", i / 4) for i in range(20)), ("row", "n/a"), ("row", "inf")])
    with pytest.raises(DataError, match=r"label is no number: 2\n.*:22  'n/a'\n.*:23  'inf'"):
        load(file)


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([("a", "x"), ("b", "x")], {}, "at least two classes"),
        ([("a", "x"), ("b", "y")], {}, "no validation row can be split off"),
        ([("a", ""), ("b", "")], {"on_bad_rows": "drop"}, "no usable row is left among the train rows"),
    ],
)
def test_files_that_leave_nothing_to_train(
    tmp_path: Path, rows: list[tuple[object, ...]], options: dict[str, object], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        load(csv(tmp_path, "train.csv", rows), **options)


def test_other_splits_must_have_the_training_columns(tmp_path: Path) -> None:
    train = csv(tmp_path, "train.csv", many(10))
    other = csv(tmp_path, "test.csv", many(3), "sentence,label")
    with pytest.raises(DataError, match=r"test.csv has no column 'text'.*sentence, label"):
        load(train, test=other)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("nowhere/train.csv", "there is no file or folder nowhere/train.csv"),
        ("train.csv", "there is no file or folder train.csv"),
        ("sst3", "unknown task.*did you mean 'sst2'"),
    ],
)
def test_data_that_is_nowhere(data: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(data)


def test_a_folder_without_training_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no train file"):
        load(str(tmp_path))


def test_max_rows_draws_training_rows_and_keeps_all_classes_and_validation(tmp_path: Path) -> None:
    file = csv(tmp_path, "all.csv", many(100))
    whole, drawn = load(file), load(file, max_rows=10)
    assert len(drawn.splits["train"]) == 10
    assert set(drawn.splits["train"].texts) < set(whole.splits["train"].texts)
    assert drawn.splits["validation"].texts == whole.splits["validation"].texts
    assert drawn.labels == whole.labels
    assert drawn.splits["train"].texts == load(file, max_rows=10).splits["train"].texts
    assert drawn.fingerprint != whole.fingerprint


def test_max_rows_of_a_large_file_reads_a_sample_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    file = csv(tmp_path, "all.csv", many(2000))
    small = load(file, max_rows=10)
    monkeypatch.setattr(sources, "_SAMPLE", 400)
    with notices.collecting():
        drawn = load(file, max_rows=10)
        (said,) = notices.collected()
    assert (said["kind"], said["rows"], said["read"]) == ("sampled file", 2000, 400)
    assert "of its 2,000 rows, 400 drawn at random are read and checked" in capsys.readouterr().err
    assert (len(drawn.splits["train"]), len(drawn.splits["validation"])) == (10, 40)
    train = drawn.splits["train"]
    assert [int(text.split()[1]) + 2 for text in train.texts] == [line for _, line in train.lines]
    assert train.texts != small.splits["train"].texts
    assert drawn.fingerprint == load(file, max_rows=10).fingerprint != load(file, max_rows=10, data_seed=1).fingerprint
    assert len(load(file, max_rows=100).splits["validation"]) == 100  # ten rows are read for each
    assert len(load(file).splits["validation"]) == 200  # without it, all


def test_the_fingerprint_follows_texts_labels_and_order(tmp_path: Path) -> None:
    rows = many(20)
    other_text = [("changed", rows[0][1]), *rows[1:]]
    other_label = [(rows[0][0], "good"), *rows[1:]]
    moved = [("ro", rows[0][1]), ("w 0row 1", rows[1][1]), *rows[2:]]  # the same letters, cut elsewhere
    validation = csv(tmp_path, "v.csv", many(4, 50))
    marks = {
        load(csv(tmp_path, f"{i}.csv", content), validation=validation).fingerprint
        for i, content in enumerate([rows, other_text, other_label, moved, rows[::-1], rows])
    }
    assert len(marks) == 5


def test_unlabelled_rows_are_those_that_no_split_holds(tmp_path: Path) -> None:
    train = csv(tmp_path, "train.csv", many(40))
    more = csv(tmp_path, "more.csv", [(f"row {i}",) for i in range(60)], "text")
    config = DataConfig(data=train, unlabelled=(more,), max_rows=10)
    dataset = load_dataset(config, DataLocation())
    split = load_unlabelled(config, dataset)
    assert len(split) == 60 - 10 - len(dataset.splits["validation"])
    assert set(split.labels.tolist()) == {UNLABELLED}
    assert split.labels.dtype == np.int64
    assert split.lines[-1] == (more, 61)


def test_rows_that_results_are_told_of_do_not_come_back_without_labels(tmp_path: Path) -> None:
    def file(name: str, rows: range) -> str:
        return csv(tmp_path, name, [(f"row {i}", "ab"[i % 2]) for i in rows])

    more = csv(tmp_path, "more.csv", [(f"row {i}",) for i in range(40)], "text")
    reported = {"validation": file("v.csv", range(20, 25)), "test": file("t.csv", range(25, 30))}
    config = DataConfig(data=file("train.csv", range(20)), unlabelled=(more,), holdout_from_train=True, **reported)
    dataset = load_dataset(config, DataLocation())
    assert dataset.splits.keys() == {"train", "validation"}
    assert list(load_unlabelled(config, dataset).texts) == [f"row {i}" for i in range(30, 40)]


def test_unlabelled_rows_of_a_regression_are_nan(tmp_path: Path) -> None:
    train = csv(tmp_path, "train.csv", [(f"row {i}", i / 4) for i in range(20)])
    config = DataConfig(data=train, unlabelled=(csv(tmp_path, "more.csv", [("new",)], "text"),))
    labels = load_unlabelled(config, load_dataset(config, DataLocation())).labels
    assert labels.dtype == np.float32
    assert np.isnan(labels).all()


@pytest.mark.parametrize(
    ("header", "rows", "says"),
    [
        ("text", [("row 1",)], "--unlabelled .*: every row is in the labelled data"),
        ("text", [("new",), ("  ",)], "empty text: 1"),
        ("premise,hypothesis", [("a", "b")], "premise and hypothesis; the labelled rows have one text column"),
    ],
)
def test_unlabelled_rows_that_cannot_be_used(
    tmp_path: Path, header: str, rows: list[tuple[object, ...]], says: str
) -> None:
    more = csv(tmp_path, "more.csv", rows, header)
    config = DataConfig(data=csv(tmp_path, "train.csv", many(40)), unlabelled=(more,))
    with pytest.raises(DataError, match=says):
        load_unlabelled(config, load_dataset(config, DataLocation()))
