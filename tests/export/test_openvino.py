"""OpenVINO: the same labels as PyTorch in fp32, 8-bit weights, and 8-bit activations by ranges of rows.

Skipped without the extra: pip install '.[openvino]'.
"""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from demiglace import evaluate, export
from demiglace.errors import ModelError, UserError
from demiglace.export.base import Artefact, exporter_for
from demiglace.report.runs.load import collect
from demiglace.runs.directory import read_manifest
from factories import save_tiny
from text_kit import byte_tokenizer, save_lm

if not all(map(find_spec, ("openvino", "nncf"))):  # importing them takes seconds, also where another worker runs these
    pytest.skip("needs pip install '.[openvino]'", allow_module_level=True)

NAMES = ("bad", "good")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    home = tmp_path_factory.mktemp("openvino")
    save_tiny(home / "model", num_layers=2, label_names=NAMES)
    texts = [f"{a} {b}" for a in ("good", "bad", "lost") for b in ("film", "card", "money", "red")]
    rows = [f"the {text} is it,{NAMES[i % 2]}" for i, text in enumerate(texts)]
    (home / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    precisions = ("int8-weights", "int8")
    data = str(home / "rows.csv")
    run = export(str(home / "model"), data=data, to="openvino", quantize=precisions, repeats=1, output=home / "out")
    return home, run


def test_every_precision_is_checked_measured_and_reported(exported):
    _, run = exported
    found = {a["name"]: a for a in read_manifest(run)["artefacts"]}
    assert list(found) == ["PyTorch", "OpenVINO fp32", "OpenVINO int8-weights", "OpenVINO int8"]
    full, weights, both = list(found.values())[1:]
    assert full["files"] == ["openvino/openvino_model.xml", "openvino/openvino_model.bin"]
    assert full["label_agreement"] == 1.0 and full["largest_logit_difference"] < 1e-5
    assert full["largest_logit_difference"] < weights["largest_logit_difference"] < 0.2
    assert both["calibration_rows"] == 12 and both["largest_logit_difference"] > full["largest_logit_difference"]
    assert full["bytes"] == sum((run / file).stat().st_size for file in full["files"])
    assert weights["bytes"] < full["bytes"]
    assert all(set(a["latency_ms"]) == {"1", "32"} and a["peak_memory_mb"] > 0 for a in found.values())
    assert full["metrics"]["accuracy"] == pytest.approx(evaluated(exported, run)["accuracy"])
    assert [a.name for a in collect([run]).artefacts] == list(found)
    assert "openvino/openvino_model.xml" in (run / "README.md").read_text()


def evaluated(exported, model):
    home, _ = exported
    (scores,) = evaluate(str(model), data=str(home / "rows.csv")).metrics.values()
    return scores


def test_one_file_is_evaluated_and_needs_its_weights(exported):
    _, run = exported
    file = run / "openvino" / "openvino_model_int8.xml"
    assert 0 <= evaluated(exported, file)["accuracy"] <= 1
    weights = file.with_suffix(".bin")
    content = weights.read_bytes()
    weights.unlink()
    with pytest.raises(UserError, match=r"openvino_model_int8\.bin is missing"):
        evaluated(exported, file)
    weights.write_bytes(content)


def test_padding_and_batches_change_no_logits(exported):
    _, run = exported
    file = run / "openvino" / "openvino_model.xml"
    runner = Artefact("openvino", "fp32", str(file), (file,)).open()

    def logits(*rows):
        ids = np.array(rows)
        return runner.logits({"input_ids": ids, "attention_mask": 1 * (ids != 0), "token_type_ids": 0 * ids})

    row = [2, 40, 50, 3]
    alone, batch = logits(row), logits([*row, 0, 0], [2, 41, 42, 43, 44, 3])
    assert alone.shape == (1, 2) and batch.shape == (2, 2)
    np.testing.assert_allclose(batch[:1], alone, atol=1e-5)
    np.testing.assert_allclose(logits(row), alone)  # a larger batch leaves nothing for the next


def test_refusals(exported, tmp_path, monkeypatch):
    save_lm(tmp_path / "lm", "llama")
    byte_tokenizer(tmp_path / "lm")
    with pytest.raises(ModelError, match="a model for language-modelling cannot be exported to OpenVINO"):
        export(str(tmp_path / "lm"), to="openvino", output=tmp_path / "o")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UserError, match=r"nncf, which is not installed; run: pip install .*openvino"):
        exporter_for("openvino").require_packages()
