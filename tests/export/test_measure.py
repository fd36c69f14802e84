import json
from types import SimpleNamespace

import numpy as np
import pytest

from demiglace.errors import ModelError
from demiglace.export import measure as room
from demiglace.export.base import Artefact
from demiglace.export.measure import latency_ms, measure, peak_memory
from demiglace.export.pytorch import checkpoint
from factories import save_tiny


def batches_of(model_inputs=("input_ids", "attention_mask")):
    return {size: [dict.fromkeys(model_inputs, np.ones((size, 4), dtype=np.int64))] * 2 for size in (1, 3)}


def onnx_file(path):
    return Artefact("onnx", "fp32", str(path), (path,))


@pytest.mark.usefixtures("fresh_processes")
def test_pytorch_in_a_fresh_process(tmp_path, planted):
    found = measure(checkpoint(str(save_tiny(tmp_path, num_layers=1))), batches_of(), repeats=3)
    assert set(found.latency_ms) == {"1", "3"}
    assert all(0 < times["p50"] <= times["p95"] for times in found.latency_ms.values())
    assert found.peak_memory_mb > 50  # PyTorch itself
    assert not planted.exists()  # nothing was imported from the current directory


@pytest.mark.usefixtures("fresh_processes")
def test_memory_of_the_parent_does_not_count(tmp_path):
    held = np.ones(10**9 // 8)
    found = measure(onnx_file(casting(tmp_path / "model.onnx")), batches_of(), repeats=1)
    assert peak_memory() > 1000 > found.peak_memory_mb
    del held


def casting(path):
    """The least ONNX model: logits are the ids."""
    onnx = pytest.importorskip("onnx")
    value, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Cast", ["input_ids"], ["logits"], to=types.FLOAT)],
        "casting",
        [value("input_ids", types.INT64, ["batch", "sequence"])],
        [value("logits", types.FLOAT, ["batch", "sequence"])],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.usefixtures("fresh_processes")
def test_failure_gives_the_last_words(tmp_path):
    (tmp_path / "torn.onnx").write_bytes(b"no model")
    pytest.importorskip("onnxruntime")
    with pytest.raises(ModelError, match=r"torn.onnx could not be run in a fresh process \(exit code 1\): .*torn.onnx"):
        measure(onnx_file(tmp_path / "torn.onnx"), batches_of())


def test_every_batch_has_its_turn():
    seen = []
    runner = SimpleNamespace(logits=lambda batch: seen.append(batch["x"]))
    latency_ms(runner, [{"x": 0}, {"x": 1}, {"x": 2}, {"x": 3}], repeats=14)
    assert seen == [i % 3 for i in range(room._WARM_UP)] + [i % 3 for i in range(14)]  # each about five times


def test_time_in_which_others_compute_is_counted_apart(monkeypatch):
    wall, cpu = (iter([0.0, 4.0, 5.0, 7.0, 8.0, 11.0]), iter([0.0, 0.5, 0.5, 1.5, 1.5, 3.0]))  # of three calls, in s
    clocks = SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(cpu))
    monkeypatch.setattr(room, "time", clocks)
    times = latency_ms(SimpleNamespace(logits=lambda batch: None), [{}], repeats=3)
    assert times == {"p50": 3000.0, "p95": pytest.approx(3900), "idle": 500.0}


def test_batches_survive_the_way_to_the_other_process():
    batches = batches_of()
    found = room._from_npz(room._to_npz(batches))
    assert list(found) == [1, 3] and [len(b) for b in found.values()] == [2, 2]
    np.testing.assert_array_equal(found[3][1]["input_ids"], batches[3][1]["input_ids"])


def test_the_size_is_that_of_the_weights_that_are_loaded(tmp_path):
    for name, content in (("model.safetensors", b"123"), ("pytorch_model.bin", b"1234567"), ("config.json", b"{}")):
        (tmp_path / name).write_bytes(content)
    assert checkpoint(str(tmp_path)).size == 3
    (tmp_path / "model.safetensors").unlink()
    assert checkpoint(str(tmp_path)).size == 7
    assert checkpoint("some/hub-name").size == 0
    graph, weights = tmp_path / "graph.xml", tmp_path / "weights.bin"
    graph.write_bytes(b"12")
    weights.write_bytes(b"12345")
    assert Artefact("toy", "fp32", str(graph), (graph, weights)).size == 7


def test_an_artefact_survives_the_way_to_the_other_process(tmp_path):
    artefact = Artefact("onnx", "int8", "a/b.onnx", (tmp_path / "b.onnx",), {"opset": 18, "reduce_range": True})
    assert Artefact.from_json(json.loads(json.dumps(artefact.to_json()))) == artefact
