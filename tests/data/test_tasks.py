"""The named tasks: the table, and the real rows."""

from pathlib import Path

import numpy as np
import pytest

from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.rows.label_maps import fit_labels
from demiglace.data.rows.named_task_table import TASKS
from demiglace.errors import ConfigError, DataError

METRICS = {"accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "micro_f1", "map"}
METRICS |= {"entity_f1", "entity_precision", "entity_recall"}
ROWS = {  # train, validation, test of the prepared data; those of the official sets where they are whole
    "cola": (8551, 1043, None),
    "sst2": (64737, 872, None),
    "mrpc": (3668, 408, 1725),
    "stsb": (5749, 1500, 1379),
    "qqp": (34682, 7598, None),
    "mnli": (12925, 9815, None),
    "qnli": (19475, 5463, None),
    "rte": (2490, 277, None),
    "wnli": (635, 71, None),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_row_of_the_table_is_consistent(name: str) -> None:
    task = TASKS[name]
    assert set(task.metrics) <= METRICS
    assert task.url.startswith("https://")
    assert len(task.text_columns) in (1, 2)
    assert set(task.splits) <= {"train", "validation", "validation_mismatched", "test"}
    assert "f1" not in task.metrics or len(task.labels) == 2
    for source in task.sources:  # a model of the source task can be measured on the set without a label map
        fit_labels(task.labels, TASKS[source].labels, defaults=task.label_maps)


@pytest.mark.parametrize("name", ROWS)
def test_glue_loads_whole(name: str, data_dir: Path) -> None:
    dataset = load_dataset(DataConfig(data=name), DataLocation(data_dir))
    found = [dataset.splits.get(split) for split in ("train", "validation", "test")]
    assert tuple(None if split is None else len(split) for split in found) == ROWS[name]
    for split in dataset.splits.values():
        assert (split.pairs is None) == (len(TASKS[name].text_columns) == 1)
        if not dataset.labels.task.has_classes:
            assert split.labels.dtype == np.float32
            assert split.labels.min() >= 0
            assert split.labels.max() <= 5
        else:
            assert set(split.labels.tolist()) == set(range(dataset.labels.size))
    assert dataset.metrics == TASKS[name].metrics


@pytest.mark.parametrize("name", [n for n, t in TASKS.items() if t.sources and "train" in t.splits and n != "hans"])
def test_out_of_domain_sets_with_training_rows_can_be_trained_on(name: str, data_dir: Path) -> None:
    dataset = load_dataset(DataConfig(data=name), DataLocation(data_dir))
    assert set(dataset.splits["train"].labels.tolist()) == set(range(dataset.labels.size))
    assert len(dataset.splits["validation"]) > 0


def test_banking77_comes_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMIGLACE_DATA", raising=False)
    dataset = load_dataset(DataConfig(data="banking77"), DataLocation())
    splits = dataset.splits
    assert list(splits) == ["train", "validation", "test"]
    assert len(splits["train"]) + len(splits["validation"]) == 10_003
    assert len(splits["test"]) == 3_080
    assert dataset.labels.size == 77
    assert dataset.labels.names[dataset.splits["test"].labels[0]] == "card_arrival"
    assert set(splits["train"].labels.tolist()) == set(splits["validation"].labels.tolist()) == set(range(77))


def test_the_data_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "rte"
    folder.mkdir()
    rows = "sentence1,sentence2,label\n" + "".join(f"a{i},b{i},{i % 2}\n" for i in range(6))
    (folder / "train.csv").write_text(rows)
    (folder / "validation.csv").write_text("sentence1,sentence2,label\nx,,not_entailment\na1,b1,entailment\n")
    monkeypatch.setenv("DEMIGLACE_DATA", str(tmp_path))
    dataset = load_dataset(DataConfig(data="rte"), DataLocation())
    assert dataset.splits["train"].labels.tolist() == [0, 1, 0, 1, 0, 1]
    # Names serve as well as ids; the empty text and the row that is also trained on are official, and stay.
    assert dataset.splits["validation"].labels.tolist() == [1, 0]
    assert dataset.drops == {}


def test_splits_with_hidden_labels_are_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "mrpc"
    folder.mkdir()
    for name, labels in {"train": (0, 1, -1, 1), "validation": (1, 0), "test": (-1, -1)}.items():
        lines = "".join(f"{name}{i},b{i},{label}\n" for i, label in enumerate(labels))
        (folder / f"{name}.csv").write_text("sentence1,sentence2,label\n" + lines)
    dataset = load_dataset(DataConfig(data="mrpc"), DataLocation(tmp_path))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 3, "validation": 2}
    assert dataset.drops == {"no public label": 1}


@pytest.mark.parametrize(
    ("label", "columns", "says"),
    [
        ("perhaps", "sentence1,sentence2", "'perhaps' is no label of rte; its labels: entailment, not_entailment"),
        ("2", "sentence1,sentence2", "'2' is no label of rte"),
        ("0", "sentence,other", "has 1 text column"),
    ],
)
def test_a_data_folder_with_other_rows(tmp_path: Path, label: str, columns: str, says: str) -> None:
    (tmp_path / "rte").mkdir()
    for name in ("train", "validation"):
        (tmp_path / "rte" / f"{name}.csv").write_text(f"{columns},label\na,b,{label}\n")
    with pytest.raises(DataError, match=says):
        load_dataset(DataConfig(data="rte"), DataLocation(tmp_path))


def test_what_is_nowhere_says_where_it_was_sought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMIGLACE_DATA", raising=False)
    with pytest.raises(DataError, match=r"is not on the hub.*--data-dir or DEMIGLACE_DATA"):
        load_dataset(DataConfig(data="paws_qqp"), DataLocation(tmp_path))
    with pytest.raises(DataError, match=r"the hub gave none.*--data-dir"):  # tests run with the hub switched off
        load_dataset(DataConfig(data="cola"), DataLocation(tmp_path))
    with pytest.raises(DataError, match="is no folder"):
        load_dataset(DataConfig(data="cola"), DataLocation(tmp_path / "missing"))


def test_rows_from_the_hub_are_read_by_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    requested = []

    def hub(path: str, config: str, split: str) -> object:
        requested.append((path, config, split))
        rows = {"premise": [f"{split} {i}" for i in range(3)], "hypothesis": ["h"] * 3, "label": [0, 1, 2]}
        return datasets.Dataset.from_dict(rows)

    monkeypatch.setattr(datasets, "load_dataset", hub)
    dataset = load_dataset(DataConfig(data="mnli"), DataLocation(tmp_path))
    assert dataset.hub == ("nyu-mll/glue", "mnli")
    assert requested == [("nyu-mll/glue", "mnli", "train"), ("nyu-mll/glue", "mnli", "validation_matched")]
    assert dataset.splits["validation"].texts[0] == "validation_matched 0"
    assert dataset.splits["train"].lines[2] == ("hub:nyu-mll/glue/mnli:train", 3)


def test_options_of_files_do_not_go_with_a_task() -> None:
    with pytest.raises(ConfigError, match="--validation, --label-column: only for files"):
        load_dataset(DataConfig(data="sst2", validation="v.csv", label_column="x"), DataLocation())


def test_a_set_without_training_rows_is_for_evaluation() -> None:
    with pytest.raises(DataError, match="has no training rows"):
        load_dataset(DataConfig(data="adv_sst2"), DataLocation())
