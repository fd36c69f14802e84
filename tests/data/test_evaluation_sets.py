"""Sets to measure a model on, in labels that fit it."""

from pathlib import Path

import numpy as np
import pytest

from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.rows.evaluation_sets import load_set
from demiglace.data.rows.named_task_table import TASKS
from demiglace.data.rows.schema import LabelSpace
from demiglace.errors import DataError
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.regression import REGRESSION

SENTIMENT = LabelSpace(CLASSIFICATION, ("negative", "positive"))
NLI = LabelSpace(CLASSIFICATION, ("entailment", "neutral", "contradiction"))
NUMBERS = LabelSpace(REGRESSION)


@pytest.mark.parametrize(("name", "source"), [(n, s) for n, t in TASKS.items() for s in t.sources if n != "hans"])
def test_out_of_domain_sets_fit_their_source_task(name: str, source: str, data_dir: Path) -> None:
    labels = LabelSpace(CLASSIFICATION, TASKS[source].labels)
    found = load_set(name, labels, DataLocation(data_dir))
    assert found.class_map is not None
    assert len(found.class_map) == labels.size
    assert set(found.split.labels.tolist()) == set(range(found.classes.size)) == set(found.class_map.tolist())
    assert found.metrics == TASKS[name].metrics


def test_hans_on_a_three_way_model(data_dir: Path) -> None:
    found = load_set("hans_regenerated", NLI, DataLocation(data_dir))
    assert found.class_map is not None
    assert found.class_map.tolist() == [0, 1, 1]
    assert np.bincount(found.split.labels).tolist() == [7461, 7485]


def test_stars_on_a_sentiment_model_leave_three_out(data_dir: Path) -> None:
    found = load_set("yelp_review_full", SENTIMENT, DataLocation(data_dir))
    assert np.bincount(found.split.labels).tolist() == [800, 800]
    assert found.drops == {"left out by the label map": 400}


def test_sentences_of_the_source_task_are_left_out(data_dir: Path) -> None:
    found = load_set("rotten_tomatoes_mr", SENTIMENT, DataLocation(data_dir))
    assert len(found.split) == 849
    assert found.drops == {"in_sst2": 1151}


@pytest.mark.parametrize(("column", "rows"), [("in_sst2", 1), ("in_sst", None)])
def test_a_set_that_was_laid_there_by_hand(column: str, rows: int | None, tmp_path: Path) -> None:
    file = tmp_path / "rotten_tomatoes_mr/test.csv"
    file.parent.mkdir()
    file.write_text(f"sentence,label,{column}\ngood,1,False\nbad,0,True\n")
    if rows is not None:
        assert len(load_set("rotten_tomatoes_mr", SENTIMENT, DataLocation(tmp_path)).split) == rows
        return
    with pytest.raises(DataError, match="needs a column 'in_sst2' of true and false"):
        load_set("rotten_tomatoes_mr", SENTIMENT, DataLocation(tmp_path))


def test_splits_by_name_and_by_default(data_dir: Path) -> None:
    place = DataLocation(data_dir)
    assert len(load_set("mnli", NLI, place).split) == 9815
    assert len(load_set("mnli:validation_mismatched", NLI, place).split) == 500
    paraphrase = LabelSpace(CLASSIFICATION, ("not_equivalent", "equivalent"))
    assert len(load_set("mrpc", paraphrase, place).split) == 1725
    assert len(load_set("mrpc:validation", paraphrase, place).split) == 408
    assert len(load_set("stsb", NUMBERS, place).split) == 1379
    with pytest.raises(DataError, match="unknown split of mnli: 'tset'"):
        load_set("mnli:tset", NLI, place)


def test_the_part_that_training_splits_off() -> None:
    dataset = load_dataset(DataConfig(data="banking77"), DataLocation())
    found = load_set("banking77:validation", dataset.labels, DataLocation())
    assert found.split.texts == dataset.splits["validation"].texts
    assert found.split.labels.tolist() == dataset.splits["validation"].labels.tolist()


def test_a_model_with_numbers_for_names_is_taken_in_the_tasks_order(data_dir: Path) -> None:
    generic = LabelSpace(CLASSIFICATION, ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert load_set("mnli", generic, DataLocation(data_dir)).classes == NLI
    hans = load_set("hans_regenerated", generic, DataLocation(data_dir))
    assert hans.classes.names == ("entailment", "neutral or contradiction")
    turned = {"entailment": "LABEL_2", "neutral": "LABEL_1", "contradiction": "LABEL_0"}
    found = load_set("mnli", generic, DataLocation(data_dir), label_map=turned)
    assert found.class_map is not None
    assert found.class_map.tolist() == [2, 1, 0]


def test_labels_that_do_not_fit_name_both_lists(data_dir: Path) -> None:
    with pytest.raises(DataError, match=r"entailment, neutral, contradiction.*negative, positive.*--label-map"):
        load_set("mnli", SENTIMENT, DataLocation(data_dir))
    with pytest.raises(DataError, match="stsb is a regression set, and the model does classification"):
        load_set("stsb", SENTIMENT, DataLocation(data_dir))


def write(folder: Path, labels: list[str], name: str = "rows.csv") -> str:
    file = folder / name
    file.write_text("text,label\n" + "".join(f"row {i},{label}\n" for i, label in enumerate(labels)))
    return str(file)


def test_a_file_with_the_models_names_or_ids(tmp_path: Path) -> None:
    labels = LabelSpace(CLASSIFICATION, ("c", "a", "b"))
    by_name = load_set(write(tmp_path, ["a", "B", "a"]), labels, DataLocation())
    assert by_name.split.labels.tolist() == [1, 2, 1]
    assert by_name.class_map is not None
    assert by_name.class_map.tolist() == [0, 1, 2]
    assert by_name.metrics == ("accuracy", "macro_f1")
    by_id = load_set(write(tmp_path, ["1", "2.0", "0"]), labels, DataLocation())
    assert by_id.split.labels.tolist() == [1, 2, 0]
    assert by_id.classes == labels


def test_a_file_with_a_label_map(tmp_path: Path) -> None:
    file = write(tmp_path, ["no", "yes", "unsure", "no"])
    table = {"yes": "entailment", "no": ["neutral", "contradiction"], "unsure": None, "never there": "neutral"}
    found = load_set(file, NLI, DataLocation(), label_map=table)
    assert found.split.labels.tolist() == [1, 0, 1]
    assert found.split.texts == ["row 0", "row 1", "row 3"]
    assert found.classes.names == ("entailment", "neutral or contradiction")
    assert found.drops == {"left out by the label map": 1}


def test_a_file_of_numbers(tmp_path: Path) -> None:
    found = load_set(write(tmp_path, ["0.5", "2"]), NUMBERS, DataLocation())
    assert found.split.labels.tolist() == [0.5, 2.0]
    assert found.class_map is None
    with pytest.raises(DataError, match="label is no number: 1"):
        load_set(write(tmp_path, ["0.5", "high"]), NUMBERS, DataLocation())


def test_unknown_labels_in_a_file_are_bad_rows(tmp_path: Path) -> None:
    file = write(tmp_path, ["negative", "mixed", "positive", ""])
    with pytest.raises(DataError, match=r"unknown label: 1\n.*rows.csv:3  'mixed'"):
        load_set(file, SENTIMENT, DataLocation())
    found = load_set(file, SENTIMENT, DataLocation(), on_bad_rows="drop")
    assert found.split.labels.tolist() == [0, 1]
    assert found.drops == {"unknown label": 1, "missing label": 1}


def test_a_file_in_which_no_label_fits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set's labels \(bad, good\) are not the model's \(negative, positive\)"):
        load_set(write(tmp_path, ["good", "bad"]), SENTIMENT, DataLocation())


def test_a_folder_gives_its_test_rows(tmp_path: Path) -> None:
    write(tmp_path, ["negative"], "dev.csv")
    assert len(load_set(str(tmp_path), SENTIMENT, DataLocation()).split) == 1
    write(tmp_path, ["negative", "positive"], "test.csv")
    assert len(load_set(str(tmp_path), SENTIMENT, DataLocation()).split) == 2
    with pytest.raises(DataError, match="neither a test nor a validation file"):
        (tmp_path / "empty").mkdir()
        load_set(str(tmp_path / "empty"), SENTIMENT, DataLocation())


def test_a_set_that_is_nowhere() -> None:
    with pytest.raises(DataError, match=r"unknown task.*did you mean 'imdb'"):
        load_set("imbd", SENTIMENT, DataLocation())
    with pytest.raises(DataError, match="there is no file"):
        load_set("missing.csv", SENTIMENT, DataLocation())


def test_the_fingerprint_follows_how_labels_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path, ["no", "yes"])
    maps = [{"yes": "entailment", "no": "neutral"}, {"yes": "entailment", "no": ["neutral", "contradiction"]}]
    assert len({load_set(file, NLI, DataLocation(), label_map=m).fingerprint for m in maps}) == 2
