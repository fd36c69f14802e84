"""ExecuTorch: the same labels as PyTorch in fp32 and nearly so in int8, for texts of any length up to the limit.

Skipped without the extra: pip install '.[executorch]'. Its conversion takes half a minute even of a tiny model,
so all tests share one.
"""

import sys

import numpy as np
import pytest
import torch

from demiglace import evaluate, export
from demiglace.errors import ModelError, UserError
from demiglace.export.base import Artefact, exporter_for
from demiglace.models.loading import load_classifier
from demiglace.report.runs.load import collect
from demiglace.runs.directory import read_manifest
from factories import save_tiny
from text_kit import byte_tokenizer, save_lm

pytest.importorskip("executorch", reason="needs pip install '.[executorch]'")

NAMES = ("bad", "good")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    home = tmp_path_factory.mktemp("executorch")
    save_tiny(home / "model", num_layers=1, label_names=NAMES)
    texts = [f"{a} {b}" for a in ("good", "bad", "lost") for b in ("film", "card", "money", "red")]
    rows = [f"the {text} is it,{NAMES[i % 2]}" for i, text in enumerate(texts)]
    (home / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    options = {"data": str(home / "rows.csv"), "to": "executorch", "quantize": "int8", "max_length": 16, "repeats": 1}
    return home, export(str(home / "model"), output=home / "out", **options)


def test_both_precisions_are_checked_measured_and_reported(exported):
    _, run = exported
    found = {a["name"]: a for a in read_manifest(run)["artefacts"]}
    assert list(found) == ["PyTorch", "ExecuTorch fp32", "ExecuTorch int8"]
    full, small = list(found.values())[1:]
    assert full["files"] == ["executorch/model.pte"] and full["max_length"] == 16
    assert full["label_agreement"] == 1.0 and full["largest_logit_difference"] < 1e-5
    assert full["largest_logit_difference"] < small["largest_logit_difference"] < 0.1
    assert 2 * small["bytes"] < full["bytes"] == (run / "executorch" / "model.pte").stat().st_size
    assert all(set(a["latency_ms"]) == {"1", "32"} and a["peak_memory_mb"] > 0 for a in found.values())
    assert [a.name for a in collect([run]).artefacts] == list(found)
    assert "executorch/model.pte" in (run / "README.md").read_text()


def test_a_file_is_evaluated(exported):
    home, run = exported
    file = run / "executorch" / "model_int8.pte"
    scores = {a["name"]: a.get("metrics") for a in read_manifest(run)["artefacts"]}
    (found,) = evaluate(str(file), data=str(home / "rows.csv")).metrics.values()
    assert found["accuracy"] == pytest.approx(scores["ExecuTorch int8"]["accuracy"])


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("int8", 0.1)])
def test_texts_of_any_length_and_their_segments_and_no_padding(exported, precision, error):
    home, run = exported
    file = run / "executorch" / {"fp32": "model.pte", "int8": "model_int8.pte"}[precision]
    lengths = (1, 2, 7, 16)
    places = np.arange(16)[None]
    mask = (places < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.random.default_rng(0).integers(5, 30, mask.shape) * mask
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": mask * (places > 3)}
    model = load_classifier(home / "model", None).eval()
    with torch.inference_mode():
        expected = model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()
    runner = Artefact("executorch", precision, str(file), (file,)).open()
    found = runner.logits(batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=error)
    no_segments = runner.logits(batch | {"token_type_ids": 0 * ids})
    assert np.abs(no_segments - found)[2:].max() > 10 * np.abs(no_segments - found)[:2].max()
    longer = {name: np.ones((1, 17), np.int64) for name in batch}
    with pytest.raises(ModelError, match=r"a text has 17 tokens, .* at most 16; export it again with a larger --max-"):
        runner.logits(longer)


def test_refusals(tmp_path, monkeypatch):
    save_lm(tmp_path / "lm", "llama")
    byte_tokenizer(tmp_path / "lm")
    with pytest.raises(ModelError, match="a model for language-modelling cannot be exported to ExecuTorch"):
        export(str(tmp_path / "lm"), to="executorch", output=tmp_path / "o")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UserError, match=r"torchao, which is not installed; run: pip install .*executorch"):
        exporter_for("executorch").require_packages()


def test_matrices_that_stay_in_32_bits_are_an_error():
    from transformers import GPT2Config, GPT2ForSequenceClassification

    from demiglace.export.executorch import quantize

    gpt2 = GPT2ForSequenceClassification(GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(ModelError, match="GPT2ForSequenceClassification cannot be exported to ExecuTorch in int8"):
        quantize(gpt2)
