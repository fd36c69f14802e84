"""Files of words and tags: CoNLL, JSONL, CSV and Parquet; what is wrong with them is shown with its line."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.dataset import load_dataset, load_unlabelled
from demiglace.data.rows.evaluation_sets import load_set, texts_of
from demiglace.data.rows.readers import read_table
from demiglace.data.rows.schema import LabelSpace
from demiglace.errors import DataError
from demiglace.tasks.token_classification import TOKEN_CLASSIFICATION

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
ROWS = [
    (("Ada", "lives", "in", "New", "York"), ("B-PER", "O", "O", "B-LOC", "I-LOC")),
    (("Paris", "."), ("B-LOC", "O")),
    (("It", "is", "late"), ("O", "O", "O")),
    (("Bo", "left"), ("B-PER", "O")),
]


def conll(rows: list, separator: str = " ") -> str:
    return "\n".join("".join(f"{w}{separator}{t}\n" for w, t in zip(*row, strict=True)) for row in rows)


def jsonl(rows: list) -> str:
    return "".join(json.dumps({"tokens": w, "tags": t}) + "\n" for w, t in rows)


def read(file: Path, **options: object) -> tuple[LabelSpace, list, list]:
    """The labels of a file of training rows, and the words and tags of all of them."""
    dataset = load_dataset(DataConfig(data=str(file), validation_fraction=0.25, **options), DataLocation())  # type: ignore[arg-type]
    splits = dataset.splits.values()
    task = dataset.labels.task.with_names(dataset.labels.names)
    tags = [tuple(t for t in row if t) for split in splits for row in task.readable(split.labels).tolist()]
    return dataset.labels, [words for split in splits for words in split.words or ()], tags


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.conll", "-DOCSTART- -X- O\n\n" + conll(ROWS)),
        ("rows.conll", "# id = 1\r\n" + conll(ROWS, "\tNNP\t").replace("\n", "\r\n")),
        ("rows.jsonl", jsonl(ROWS)),
        ("rows.csv", "tokens,tags\n" + "".join(f'"{" ".join(w)}","{" ".join(t)}"\n' for w, t in ROWS)),
        ("rows.csv", "tokens,ner_tags\n" + "".join(f'"{list(w)}","{list(t)}"\n' for w, t in ROWS)),
    ],
    ids=["conll", "conll-columns", "jsonl", "csv-spaces", "csv-lists"],
)
def test_all_kinds_of_files_give_the_same_rows(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    labels, words, tags = read(tmp_path / name, problem="token-classification")
    assert (labels.task, labels.names) == (TOKEN_CLASSIFICATION, TAGS)
    assert sorted(zip(words, tags, strict=True)) == sorted(ROWS)


def test_parquet_files_of_datasets_have_the_names_of_tags(tmp_path: Path) -> None:
    order = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.ClassLabel(names=order))}
    )
    content = {"tokens": [list(w) for w, _ in ROWS], "ner_tags": [[order.index(t) for t in ts] for _, ts in ROWS]}
    datasets.Dataset.from_dict(content, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    labels, words, tags = read(tmp_path / "rows.parquet")
    assert labels.names == TAGS
    assert sorted(zip(words, tags, strict=True)) == sorted(ROWS)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"tokens": ["Ada", "left"], "tags": ["B-PER"]}, r"not one tag for each word: 1.*:5  2 words, 1 tags"),
        ({"tokens": ["Ada"], "tags": ["PER"]}, r"tag is no BIO tag: 1.*:5  \['PER'\]"),
        ({"tokens": ["Ada", " "], "tags": ["B-PER", "O"]}, r"text is no text: 1"),
        ({"tokens": [], "tags": []}, r"empty text: 1"),
    ],
)
def test_a_row_that_cannot_be_used_is_shown_with_its_line(row: dict, fault: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(jsonl(ROWS) + json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"(?s)1 row cannot be used.*{fault}"):
        read(tmp_path / "rows.jsonl")


def test_an_odd_line_of_conll_leaves_other_sentences_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "rows.conll"
    file.write_text(conll(ROWS[:1]) + "\nAda B-PER\nleft\n\n" + conll(ROWS[1:]), encoding="utf-8")
    table = read_table(file)
    assert table.columns["tokens"] == [list(words) for words, _ in ROWS]
    assert [(p.line, p.detail) for p in table.problems] == [(8, "'left'; expected a word and its tag")]
    assert table.lines == [1, 10, 13, 17]


@pytest.mark.parametrize(
    ("label_map", "names", "tags"),
    [
        ({}, ["O", "b-loc", "i-loc", "b-per", "i-per"], ["B-LOC", "O"]),
        ({"B-LOC": "B-X", "I-LOC": "O", "B-PER": "O", "I-PER": "O"}, ["O", "B-X", "I-X"], ["B-X", "O"]),
        ({"B-LOC": ["B-X", "B-Y"], "I-LOC": ["I-X", "I-Y"], "B-PER": "O", "I-PER": "O"},
         ["O", "B-X", "I-X", "B-Y", "I-Y"], ["B-LOC", "O"]),
    ],
    ids=["case", "map", "merged"],
)  # fmt: skip
def test_the_tags_of_a_set_are_matched_with_those_of_a_model(
    label_map: dict, names: list, tags: list, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(jsonl(ROWS), encoding="utf-8")
    labels = LabelSpace(TOKEN_CLASSIFICATION, tuple(names))
    found = load_set(str(tmp_path / "rows.jsonl"), labels, DataLocation(), label_map=label_map)
    task = found.classes.task.with_names(found.classes.names)
    expected = [t.lower() if names[1] == "b-loc" and t != "O" else t for t in tags]
    assert [t for t in task.readable(found.split.labels)[1].tolist() if t] == expected
    assert found.classes.task is TOKEN_CLASSIFICATION and found.class_map is not None
    assert found.metrics == ("entity_f1", "entity_precision", "entity_recall")


def test_rows_without_tags_have_words(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(jsonl(ROWS), encoding="utf-8")
    (tmp_path / "more.jsonl").write_text('{"tokens": ["Oslo", "is", "far"]}\n', encoding="utf-8")
    config = DataConfig(
        data=str(tmp_path / "rows.jsonl"), unlabelled=(str(tmp_path / "more.jsonl"),), validation_fraction=0.25
    )
    more = load_unlabelled(config, load_dataset(config, DataLocation()))
    assert more.words == [("Oslo", "is", "far")] and not TOKEN_CLASSIFICATION.is_labelled(more.labels).any()
    texts = texts_of(str(tmp_path / "more.jsonl"), DataLocation(), TOKEN_CLASSIFICATION)
    assert texts.words == more.words


def test_a_validation_split_has_rows_of_each_type(tmp_path: Path) -> None:
    rows = [((f"Ada{i}", "left"), ("B-PER" if i % 4 else "B-LOC", "O")) for i in range(40)]
    (tmp_path / "rows.jsonl").write_text(jsonl(rows), encoding="utf-8")
    dataset = load_dataset(DataConfig(data=str(tmp_path / "rows.jsonl"), validation_fraction=0.2), DataLocation())
    ids, counts = np.unique(dataset.splits["validation"].labels[:, 0], return_counts=True)
    assert dict(zip([dataset.labels.names[i] for i in ids], counts.tolist(), strict=True)) == {"B-LOC": 2, "B-PER": 6}


def test_a_named_task_has_words_and_tags(tmp_path: Path) -> None:
    (tmp_path / "wnut17").mkdir()
    rows = [(words, [tag.replace("LOC", "location").replace("PER", "person") for tag in tags]) for words, tags in ROWS]
    for name in ("train", "validation", "test"):
        (tmp_path / "wnut17" / f"{name}.jsonl").write_text(jsonl(rows), encoding="utf-8")
    dataset = load_dataset(DataConfig(data="wnut17"), DataLocation(data_dir=tmp_path))
    assert dataset.labels.names[:3] == ("O", "B-corporation", "I-corporation") and dataset.labels.size == 13
    assert dataset.splits["train"].words == [words for words, _ in ROWS]
    names = ("B-person", "I-person", "B-location", "I-location", *dataset.labels.names[:7], *dataset.labels.names[11:])
    found = load_set("wnut17", LabelSpace(TOKEN_CLASSIFICATION, names), DataLocation(data_dir=tmp_path))
    task = found.classes.task.with_names(found.classes.names)
    assert [[t for t in row if t] for row in task.readable(found.split.labels).tolist()] == [tags for _, tags in rows]
    assert found.class_map is not None
    assert [found.classes.names[i] for i in found.class_map] == list(names)
