"""Every architecture of docs/models.md: its truncated model, loaded again, is the model without the dropped layers."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from demiglace.errors import ModelError
from demiglace.models.layer_ablation import output_formats, skip_layers
from demiglace.models.layer_kinds import by_kind, layer_kinds
from demiglace.models.layer_stack import layer_stack
from demiglace.models.truncate import truncate_model

_spec = importlib.util.spec_from_file_location(
    "architectures", Path(__file__).parent.parent.parent / "benchmarks/architectures.py"
)
assert _spec is not None and _spec.loader is not None
script = sys.modules["architectures"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)

REFUSED = {
    "GPT-2 with scores divided by the layer's number": "uses a layer's number.*--strategy bottom",
    "DiffLlama": "uses a layer's number.*--strategy bottom",
    "Gemma 3n (text)": "gemma3n_text cannot be truncated to 4 layers",
    "ESM": "contact_head.*esm cannot be truncated to 4 layers",
    "SqueezeBERT": "does not call its layers",
    "ALBERT": "no single stack of 8 separate layers",
}
BATCH = {"input_ids": torch.arange(48).view(2, 24) + 5, "attention_mask": torch.ones(2, 24, dtype=torch.long)}


@torch.no_grad()
def logits_without(model: PreTrainedModel, dropped: list[int]) -> torch.Tensor:
    """The logits of a model whose dropped layers return their input; no cache, which they would not fill."""
    model.config.use_cache = False
    layers = layer_stack(model)
    with skip_layers(layers, dropped, output_formats(model, layers, BATCH)):
        return model(**BATCH).logits


@pytest.mark.parametrize("title", script.ALL)
def test_a_truncated_model_is_the_model_without_the_dropped_layers(title: str, tmp_path: Path) -> None:
    model = script.ALL[title].model()
    keep = by_kind(layer_kinds(model.config), script.KEPT)
    if title in REFUSED:
        with pytest.raises(ModelError, match=REFUSED[title]):
            truncate_model(model, keep)
        return
    truncate_model(model, keep).save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        computed = again(**BATCH).logits
    torch.testing.assert_close(computed, logits_without(model, [i for i in range(script.LAYERS) if i not in keep]))


def test_the_table_in_the_documents_is_as_generated() -> None:
    results, page = json.loads(script.RESULTS.read_text("utf-8")), script.PAGE.read_text("utf-8")
    assert list(results) == list(script.ALL), "run `python benchmarks/architectures.py`"
    assert script.with_table(page, results) == page


@pytest.mark.parametrize("title", ["Longformer", "Qwen3-Next"])
def test_results_are_those_of_the_steps(title: str) -> None:
    """Longformer pads batches, and Qwen3-Next has recurrent layers; tests/commands has the usual architectures."""
    steps = script.STEPS[:3]
    assert script.run_chain(script.ALL[title], steps) == {
        step: json.loads(script.RESULTS.read_text("utf-8"))[title][step] for step in steps
    }
