"""Models in 16 bits: transformers loads them, `evaluate` reads them, and the manifest has parity and size."""

import importlib

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from demiglace import evaluate, export
from demiglace.errors import ConfigError, ModelError
from demiglace.export.base import exporter_for
from demiglace.export.measure import Measurement
from demiglace.runs.directory import read_manifest
from demiglace.tasks.classification import CLASSIFICATION
from factories import save_decoder, save_tiny, tiny_model

NAMES = ("bad", "good", "none")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    home = tmp_path_factory.mktemp("safetensors")
    save_tiny(home / "model", num_layers=1, label_names=NAMES)
    rows = [f"the {a} {b} is it,{NAMES[i % 3]}" for i, a in enumerate(NAMES) for b in ("film", "card", "red")]
    (home / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    times = {"p50": 1.0, "p95": 2.0}
    with pytest.MonkeyPatch.context() as patch:
        stage = importlib.import_module("demiglace.commands.export")
        patch.setattr(stage, "measure", lambda *_, **__: Measurement({"1": times, "32": times}, 100.0))
        for precision in ("bf16", "fp16"):
            options = {"data": str(home / "rows.csv"), "to": "safetensors", "quantize": precision}
            export(model=str(home / "model"), output=home / precision, **options)
    return home


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_one_file_of_half_the_size_that_transformers_loads(source, precision, dtype):
    run = source / precision
    (entry,) = [a for a in read_manifest(run)["artefacts"] if a["role"] == "export"]
    assert (entry["name"], entry["precision"]) == (f"safetensors {precision}", precision)
    assert entry["files"] == ["model/model.safetensors"]
    assert entry["bytes"] == (run / "model/model.safetensors").stat().st_size
    assert entry["bytes"] < 0.6 * (source / "model" / "model.safetensors").stat().st_size
    assert entry["label_agreement"] == 1.0 and 0 < entry["largest_logit_difference"] < 0.05
    assert AutoConfig.from_pretrained(run / "model").dtype == dtype
    rounded = AutoModelForSequenceClassification.from_pretrained(run / "model")
    original = AutoModelForSequenceClassification.from_pretrained(source / "model", dtype=torch.float32)
    for name, weight in original.state_dict().items():
        assert torch.equal(rounded.state_dict()[name], weight.to(dtype) if weight.is_floating_point() else weight)
    row = AutoTokenizer.from_pretrained(run / "model")("the good film", return_tensors="pt")
    assert rounded(**row).logits.shape == (1, 3) and rounded.config.id2label[1] == "good"
    assert not [p for p in run.iterdir() if p.name.startswith(".") and p.is_dir()]
    assert not (run / "config.json").exists()


def test_evaluate_reads_the_directory_and_the_file(source):
    rows = str(source / "rows.csv")
    of_directory = evaluate(model=str(source / "bf16"), data=(rows,), teacher=str(source / "model"))
    of_file = evaluate(model=str(source / "bf16/model/model.safetensors"), data=(rows,), teacher=str(source / "model"))
    assert of_directory.metrics == of_file.metrics and of_file.metrics[rows]["agreement"] == 1.0


def test_the_card_is_that_of_a_transformers_model(source):
    card = (source / "fp16/model/README.md").read_text("utf-8")
    assert "library_name: transformers" in card and 'from_pretrained(".")' in card and "| safetensors fp16 |" in card


def test_a_directory_holds_one_precision(source, tmp_path):
    with pytest.raises(ConfigError, match=r"--quantize was given bf16, fp16, .*give one"):
        export(
            model=str(source / "model"),
            data=str(source / "rows.csv"),
            output=tmp_path / "out",
            to="safetensors",
            quantize=("bf16", "fp16"),
        )
    assert not (tmp_path / "out").exists()


def test_values_beyond_fp16_are_named(tmp_path):
    model = tiny_model("bert", num_layers=1)
    with torch.no_grad():
        model.classifier.weight[0, 0] = 1e6
    with pytest.raises(ModelError, match=r"classifier.weight has values that fp16 cannot hold; give --quantize bf16"):
        exporter_for("safetensors").write(model, None, CLASSIFICATION, tmp_path, "fp16")
    assert not list((tmp_path / "model").iterdir()) and model.classifier.weight.dtype == torch.float32


def test_a_language_model_is_written_compared_and_opened(tmp_path):
    model = save_decoder(tmp_path / "gpt2", num_layers=1, num_labels=0)
    (tmp_path / "text.txt").write_text("the good film is great and the red card is lost\n" * 3)
    options = {"corpus": (str(tmp_path / "text.txt"),), "to": "safetensors", "quantize": "bf16", "rows": 2}
    run = export(model=str(model), output=tmp_path / "out", **options)
    entry = read_manifest(run)["artefacts"][-1]
    assert entry["precision"] == "bf16" and 0 < entry["kl_divergence"] < 0.01
    scored = evaluate(model=str(run), corpus=options["corpus"], output=tmp_path / "scores")
    assert scored.metrics
