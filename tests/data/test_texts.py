"""Texts without labels: where they are read from, which are left out, and what their data set is named after."""

from pathlib import Path

import pytest

from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.dataset import load_dataset, load_unlabelled
from demiglace.data.rows.hub import origin_of
from demiglace.data.rows.schema import AGREEMENT, Dataset, LabelSpace
from demiglace.errors import DataError
from demiglace.tasks.base import RowTask
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.sentence_embedding import SENTENCE_EMBEDDING

KINDS = pytest.mark.parametrize("task", [CLASSIFICATION, SENTENCE_EMBEDDING], ids=lambda t: t.name)


def write(folder: Path, name: str, rows: list[str], header: str = "text") -> str:
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(folder / name)


def load(task: RowTask, **options: object) -> tuple[DataConfig, Dataset]:
    problem = task.name if task.separate_texts else "auto"
    config = DataConfig(**options | {"problem": problem})  # type: ignore[arg-type]
    return config, load_dataset(config, DataLocation(), teacher=LabelSpace(task, ("a", "b")[: 2 * task.has_classes]))


@KINDS
def test_texts_of_unlabelled_alone_are_the_training_rows(
    task: RowTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "train.csv", ["of the working directory"])
    files = tuple(write(tmp_path, f"{n}.csv", [f"{n} {i}" for i in range(10)] + ["twice"]) for n in ("one", "two"))
    held = write(tmp_path, "held.csv", ["one 3", "held"])
    config, dataset = load(task, unlabelled=files, validation=held)
    expected = [f"{n} {i}" for n in ("one", "two") for i in range(10) if (n, i) != ("one", 3)]
    assert sorted(dataset.splits["train"].texts) == sorted([*expected, "twice"])
    assert dataset.drops == {"texts that are in another split": 1, "repeated texts": 1}
    assert (dataset.name, dataset.metrics, dataset.labelled) == ("one.csv", (AGREEMENT,), False)
    assert load_unlabelled(config, dataset) is None


@KINDS
def test_texts_of_unlabelled_are_added_to_those_of_data(task: RowTask, tmp_path: Path) -> None:
    more = write(tmp_path, "more.csv", ["row 1", "new"])
    data = write(tmp_path, "rows.csv", [f"row {i}" for i in range(20)])
    config, dataset = load(task, data=data, unlabelled=(more,))
    assert sum(map(len, dataset.splits.values())) == 21
    assert dataset.drops == {"repeated texts": 1}
    assert load_unlabelled(config, dataset) is None


def test_pairs_without_the_named_column_of_scores_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path, "texts.csv", [f"text {i}" for i in range(20)])
    pairs = write(tmp_path, "pairs.csv", ["a,b,0.5", "c,d,1.0"], "sentence1,sentence2,score")
    with pytest.raises(DataError, match=r"pairs.csv has no column 'scores' \(--label-column\)"):
        load(SENTENCE_EMBEDDING, data=data, validation=pairs, label_column="scores")
    _, dataset = load(SENTENCE_EMBEDDING, data=data, validation=pairs, label_column="score")
    assert dataset.labelled and dataset.splits["validation"].labels.tolist() == [0.5, 1.0]


def test_a_data_set_of_the_hub_is_named_with_its_commit() -> None:
    assert origin_of("hf://a/b", "hf://a/b@c0ffee/part:train") == ("b", ("a/b", "part"), "c0ffee")
    assert origin_of("folder/rows", Path("folder/rows/train.csv")) == ("rows", None, None)
