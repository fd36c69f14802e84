import json

import numpy as np
import pytest

from demiglace import evaluate
from demiglace.cli import main
from demiglace.commands.evaluate import results_table
from demiglace.data.rows.schema import Split
from demiglace.data.tokenize import tokenize
from demiglace.errors import ConfigError, DataError, ModelError, RunError
from demiglace.evaluation.predict import predict
from demiglace.models.loading import load_classifier, load_tokenizer
from demiglace.runs.directory import read_manifest
from demiglace.runs.files import file_name
from factories import save_tiny

NAMES = ("bad", "good", "none")
TEXTS = ["good film", "awful film", "the card is red", "great money", "bad", "lost it"]
LABELS = ["good", "bad", "none", "good", "bad", "none"]


def write_rows(path, labels=LABELS, texts=TEXTS):
    path.write_text("text,label\n" + "".join(f"{t},{y}\n" for t, y in zip(texts, labels, strict=True)))
    return path


@pytest.fixture
def model(tmp_path):
    return save_tiny(tmp_path / "model", num_layers=1, label_names=NAMES)


def logits_of(model, texts=TEXTS):
    split = Split("test", texts, None, np.zeros(len(texts), dtype=np.int64), [("t", 1)] * len(texts))
    return predict(load_classifier(model, None), tokenize(split, load_tokenizer(model), 64))


def test_several_sets_at_once(model, tmp_path, capsys):
    first, second = write_rows(tmp_path / "a.csv"), write_rows(tmp_path / "b.csv", LABELS[:3], TEXTS[:3])
    run = evaluate(model=str(model), data=[str(first), str(second)], output=tmp_path / "run")
    sets = read_manifest(run)["sets"]
    predicted = [NAMES[i] for i in logits_of(model).argmax(1)]
    assert list(sets) == [str(first), str(second)]
    assert [s["rows"] for s in sets.values()] == [6, 3]
    expected = np.mean([p == y for p, y in zip(predicted, LABELS, strict=True)])
    assert sets[str(first)]["metrics"]["accuracy"] == pytest.approx(expected)
    assert "agreement" not in sets[str(first)]
    assert run.metrics[str(first)]["accuracy"] == sets[str(first)]["metrics"]["accuracy"]
    shown = run.summary()
    assert "accuracy" in shown and "macro-F1" in shown and "a.csv" in shown and shown.endswith(str(run.path))
    assert capsys.readouterr().out == ""


def test_logits_and_labels_are_kept_in_the_order_of_the_rows(model, tmp_path):
    rows = write_rows(tmp_path / "a.csv")
    run = evaluate(model=str(model), data=[str(rows)], output=tmp_path / "run")
    stem = file_name(str(rows))
    np.testing.assert_allclose(np.load(run / f"{stem}.npy"), logits_of(model), atol=1e-5)
    assert np.load(run / f"{stem}.npy").dtype == np.float32
    assert [NAMES[i] for i in np.load(run / f"{stem}.labels.npy")] == LABELS


def test_teacher_agreement(model, tmp_path):
    teacher = save_tiny(tmp_path / "teacher", num_layers=2, label_names=NAMES, seed=3)
    rows = write_rows(tmp_path / "a.csv")
    run = evaluate(model=str(model), teacher=str(teacher), data=[str(rows)], output=tmp_path / "run")
    expected = np.mean(logits_of(model).argmax(1) == logits_of(teacher).argmax(1))
    assert read_manifest(run)["sets"][str(rows)]["agreement"] == pytest.approx(expected)
    itself = evaluate(model=str(model), teacher=str(model), data=[str(rows)], output=tmp_path / "itself")
    assert read_manifest(itself)["sets"][str(rows)]["agreement"] == 1.0


def test_label_map_merges_classes_of_the_model(model, tmp_path):
    labels = ["yes" if y == "good" else "no" for y in LABELS]
    rows = write_rows(tmp_path / "a.csv", labels)
    mapping = {"yes": "good", "no": ["bad", "none"]}
    run = evaluate(model=str(model), data=[str(rows)], label_map=mapping, output=tmp_path / "run")
    said_good = logits_of(model).argmax(1) == NAMES.index("good")
    expected = np.mean(said_good == np.array([y == "yes" for y in labels]))
    assert read_manifest(run)["sets"][str(rows)]["metrics"]["accuracy"] == pytest.approx(expected)


def test_regression(tmp_path):
    model = save_tiny(tmp_path / "model", num_layers=1, num_labels=1)
    rows = write_rows(tmp_path / "a.csv", ["0.5", "1", "2.5", "3", "4", "1.5"])
    run = evaluate(model=str(model), data=[str(rows)], output=tmp_path / "run", teacher=str(model))
    found = read_manifest(run)["sets"][str(rows)]
    assert set(found["metrics"]) == {"pearson", "spearman"}
    assert found["agreement"] == pytest.approx(1.0)


def test_again_is_up_to_date_and_another_call_is_refused(model, tmp_path, capsys):
    rows = write_rows(tmp_path / "a.csv")
    call = {"model": str(model), "data": [str(rows)], "output": tmp_path / "run"}
    before = (evaluate(**call) / "manifest.json").read_bytes()
    capsys.readouterr()
    evaluate(**call)
    assert "up to date" in capsys.readouterr().err
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before
    with pytest.raises(RunError, match="max_length"):
        evaluate(**call, max_length=32)
    write_rows(rows, LABELS[::-1])
    with pytest.raises(RunError, match=r"a\.csv"):
        evaluate(**call)


def test_interrupted_call_starts_over(model, tmp_path):
    rows = write_rows(tmp_path / "a.csv")
    call = {"model": str(model), "data": [str(rows)], "output": tmp_path / "run"}
    run = evaluate(**call)
    whole = json.loads((run / "manifest.json").read_text())["sets"]
    (run / "manifest.json").unlink()
    (run / f"{file_name(str(rows))}.npy").write_bytes(b"half")
    assert read_manifest(evaluate(**call))["sets"] == whole
    assert np.load(run / f"{file_name(str(rows))}.npy").shape == (6, 3)


def test_labels_that_do_not_fit_name_both_lists_and_the_remedy(model, tmp_path):
    rows = write_rows(tmp_path / "a.csv", ["x", "y", "z"] * 2)
    with pytest.raises(DataError, match=r"(?s)x, y, z.*bad, good, none.*--label-map"):
        evaluate(model=str(model), data=[str(rows)], output=tmp_path / "run")


@pytest.mark.parametrize("names", [("good", "fine", "none"), ("bad", "good")])
def test_teacher_of_other_labels(model, names, tmp_path):
    teacher = save_tiny(tmp_path / "teacher", num_layers=1, label_names=names)
    with pytest.raises(ModelError, match="other labels than the model"):
        evaluate(
            model=str(model), teacher=str(teacher), data=[str(write_rows(tmp_path / "a.csv"))], output=tmp_path / "run"
        )


def test_rows_longer_than_the_model_takes(model, tmp_path):
    rows = write_rows(tmp_path / "a.csv", ["good", "bad"], ["yes " * 300, "no"])
    with pytest.raises(ConfigError, match=r"300 tokens.*takes 256 at most; give --max-length 256"):
        evaluate(model=str(model), data=[str(rows)], max_length=300, output=tmp_path / "run")
    run = evaluate(model=str(model), data=[str(rows)], max_length=256, output=tmp_path / "short")
    assert read_manifest(run)["sets"][str(rows)]["rows"] == 2


def test_a_model_without_a_head(tmp_path):
    from transformers import AutoModel

    from factories import tiny_config, tiny_tokenizer

    AutoModel.from_config(tiny_config("bert", 1)).save_pretrained(tmp_path / "bare")
    tiny_tokenizer(tmp_path / "bare", segments=True)
    rows = write_rows(tmp_path / "a.csv", ["LABEL_0", "LABEL_1"] * 3)
    with pytest.raises(ModelError, match="fine-tune"):
        evaluate(model=str(tmp_path / "bare"), data=[str(rows)], output=tmp_path / "run")


def test_file_names_of_sets():
    assert file_name("mnli:validation") == "mnli-validation"
    assert file_name("../data/a b.csv") == "data-a-b.csv"


def test_table_has_a_place_for_every_metric():
    drawn = results_table(
        {"a": {"rows": 1, "metrics": {"accuracy": 0.5}}, "b": {"rows": 2, "metrics": {"f1": 1.0}, "agreement": 0.5}}
    )
    assert drawn.columns == ("set", "rows", "accuracy", "F1", "agreement with the teacher")
    assert [row[2:] for row in drawn.rows] == [("0.5000", "–", "–"), ("–", "1.0000", "0.5000")]


def test_without_an_output_the_results_are_only_printed(model, tmp_path, capsys, monkeypatch):
    rows = write_rows(tmp_path / "rows.csv")
    monkeypatch.chdir(tmp_path)
    there = sorted(tmp_path.iterdir())
    kept = evaluate(model, data=str(rows), output=tmp_path / "run").metrics[str(rows)]
    assert main(["evaluate", str(model), "--data", str(rows), "--json", "--quiet"]) == 0
    out, _ = capsys.readouterr()
    assert json.loads(out) == {"path": None, "metrics": {str(rows): kept}}
    assert sorted(tmp_path.iterdir()) == sorted([*there, tmp_path / "run"])
    with pytest.raises(TypeError, match="nothing was written"):
        evaluate(model, data=str(rows)) / "manifest.json"
