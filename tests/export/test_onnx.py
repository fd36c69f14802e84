import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from factories import ARCHITECTURES, DECODERS, tiny_model, tiny_tokenizer

pytest.importorskip("onnxruntime")
import onnx
import torch
from torch import nn

from demiglace.data.rows.schema import Split
from demiglace.data.tokenize import tokenize
from demiglace.errors import ConfigError, ModelError, RunError, UserError
from demiglace.evaluation.predict import predict
from demiglace.export import onnx as exporter
from demiglace.export.base import Artefact, exporter_for
from demiglace.export.onnx import (
    OnnxExporter,
    OnnxRunner,
    convert_to_fp16,
    export_onnx,
    input_names_of,
    needs_reduced_range,
    quantize_blocks,
    quantize_int8,
)
from demiglace.export.parity import compare, predict_with
from demiglace.export.pytorch import TorchRunner
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING
from demiglace.tasks.regression import REGRESSION

TEXTS = ["good film", "the red card is not lost and it is great", "no", "bad money, awful!", "yes " * 40] * 3


def examples_of(tokenizer):
    split = Split("test", TEXTS, None, np.zeros(len(TEXTS), dtype=np.int64), [("t", 1)] * len(TEXTS))
    return tokenize(split, tokenizer, max_length=64)


def eager(arch):
    model = tiny_model(arch, num_layers=1)
    model.set_attn_implementation("eager")
    return model


def parity(model, path, examples, size):
    runners = TorchRunner(model), OnnxRunner(str(path))
    expected, found = (predict_with(runner, examples, size) for runner in runners)
    return compare(expected, found, CLASSIFICATION)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that returns the model of an architecture, rows, and its ONNX file: an export takes seconds."""
    home = tmp_path_factory.mktemp("exported")

    @cache
    def export(arch):
        model, tokenizer = eager(arch), tiny_tokenizer(segments=arch in ("bert", "electra", "deberta-v2"))
        path = export_onnx(model, tokenizer, home / f"{arch}.onnx")
        return model, replace(examples_of(tokenizer), pad_left=arch in DECODERS), path

    return export


@pytest.fixture(scope="module")
def bert(exported):
    return exported("bert")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_says_the_same_and_quietly(arch, exported, capfd, recwarn):
    recwarn.clear()
    model, examples, path = exported(arch)
    assert capfd.readouterr() == ("", "") and not recwarn.list
    for size in (1, 4, 7):
        found = parity(model, path, examples, size)
        assert found.label_agreement == 1.0 and found.largest_logit_difference < 1e-4


def test_the_file_is_what_the_docstring_says(bert):
    graph = onnx.load(bert[2])
    onnx.checker.check_model(graph)
    axes = {v.name: [d.dim_param for d in v.type.tensor_type.shape.dim] for v in graph.graph.input}
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert axes == {name: ["batch", "sequence"] for name in names}
    assert [v.name for v in graph.graph.output] == ["logits"]
    assert [o.version for o in graph.opset_import if o.domain == ""] == [exporter.OPSET]
    assert {p.suffix for p in bert[2].parent.iterdir()} == {".onnx"}  # no draft, and no second file of weights


def test_the_file_names_no_place_of_this_machine(bert):
    content = bert[2].read_bytes()
    assert b".py" not in content and str(Path(torch.__file__).parent).encode() not in content


def test_segments_matter_in_the_file_as_in_the_model(bert):
    model, examples, path = bert
    turned = replace(examples, type_ids=np.ones_like(examples.type_ids))
    assert parity(model, path, turned, 4).largest_logit_difference < 1e-4
    assert np.abs(predict(model, turned) - predict(model, examples)).max() > 1e-3


@pytest.mark.parametrize("arch", ["bert", "gpt2", "deberta-v2"])  # Gemms, and a matrix that two nodes share
def test_fp16_and_int4_are_smaller_near_and_quiet(arch, exported, tmp_path, capfd, recwarn):
    model, examples, full = exported(arch)
    capfd.readouterr()
    before = logging.root.manager.disable
    recwarn.clear()
    half, small = convert_to_fp16(full, tmp_path / "half.onnx"), quantize_blocks(full, tmp_path / "small.onnx")
    assert capfd.readouterr() == ("", "") and not recwarn.list and logging.root.manager.disable == before
    near, nearer = parity(model, small, examples, 1), parity(model, half, examples, 1)
    assert 0 < nearer.largest_logit_difference < 0.01 and nearer.label_agreement == 1
    assert nearer.largest_logit_difference < near.largest_logit_difference < 0.3 and near.label_agreement >= 0.8
    for file in (half, small):
        onnx.checker.check_model(onnx.load(file))
        left = 1 if (arch, file) in (("deberta-v2", small), ("bert", small)) else 0  # relative positions; 2 segments
        assert len(weights(file, "float32")) == left and not any(n.metadata_props for n in onnx.load(file).graph.node)
    assert parity(model, half, examples, 4).largest_logit_difference < 0.01
    assert 2 * sum(map(np.size, weights(full, "float32"))) == sum(a.nbytes for a in weights(half, "float16"))


def weights(path, *dtypes):
    """The matrices and tables of a file; not the scales of their blocks."""
    return [a for a in matrices(path, *dtypes) if a.shape[0] > 1 and a.shape[1] > 4]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("width", [64, 20])  # two blocks of 32, and one of the width
def test_a_packed_table_gives_each_row_to_half_a_step(width, bits, tmp_path):
    table = np.random.default_rng(0).normal(size=(40, width)).astype(np.float32)
    table[3] = 0
    value, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["table", "ids"], ["rows"], "lookup")],
        "lookup",
        [value("ids", types.INT64, ["batch", "sequence"])],
        [value("rows", types.FLOAT, ["batch", "sequence", width])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "full.onnx")
    small = quantize_blocks(tmp_path / "full.onnx", tmp_path / "small.onnx", embedding_bits=bits)
    assert not matrices(small, "float32") and sum(a.nbytes for a in matrices(small, "uint8")) == table.size * bits / 8
    ids = np.array([[0, 3, 39], [3, 7, 7]])
    found = OnnxRunner(str(small)).logits({"ids": ids})
    blocks = (table[ids] - found).reshape(2, 3, -1, 32 if width == 64 else width)
    steps = np.abs(table[ids]).reshape(blocks.shape).max(-1) / 2 ** (bits - 1)
    assert (np.abs(blocks).max(-1) <= 1.01 * steps).all() and (np.abs(blocks) <= 0.505 * steps[..., None]).mean() > 0.95
    assert (found[0, 1] == 0).all()


def test_the_quantisers_configuration_of_logging_is_undone(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    monkeypatch.delitem(sys.modules, "onnxruntime.quantization.matmul_nbits_quantizer", raising=False)
    quantize_blocks(bert[2], tmp_path / "small.onnx")
    assert logging.root.handlers == [] and logging.root.level == logging.WARNING


def test_what_a_batch_changes_int4_does_not_depend_on(bert, tmp_path):
    _, examples, path = bert
    small = OnnxRunner(str(quantize_blocks(path, tmp_path / "small.onnx")))
    np.testing.assert_allclose(predict_with(small, examples, 1), predict_with(small, examples, 5), atol=1e-5)


def test_int8_is_smaller_near_and_quiet(bert, tmp_path, capfd, recwarn):
    model, examples, path = bert
    before = logging.root.manager.disable
    small = quantize_int8(path, tmp_path / "model.int8.onnx")
    assert capfd.readouterr() == ("", "") and not recwarn.list
    assert logging.root.manager.disable == before
    found = parity(model, small, examples, 1)
    assert 0 < found.largest_logit_difference < 0.5
    assert found.label_agreement >= 0.8
    assert not matrices(small, "float32")  # no weight is left in 32 bits, embeddings included
    assert sum(map(np.size, matrices(path, "float32"))) == sum(map(np.size, matrices(small, "int8", "uint8")))


@pytest.mark.parametrize(("quantizer", "usual", "other"), [(quantize_int8, 8, 4), (quantize_blocks, 4, 8)])
def test_embedding_tables_have_bits_of_their_own(bert, tmp_path, quantizer, usual, other):
    model, examples, path = bert
    files = [quantizer(path, tmp_path / f"{b}.onnx", embedding_bits=b) for b in (usual, other)]
    sizes = [file.stat().st_size for file in files]
    assert sizes[0] == quantizer(path, tmp_path / "same.onnx").stat().st_size
    assert (sizes[1] < sizes[0]) == (other < usual)
    shapes = [{tuple(a.shape) for a in matrices(file, "int8", "uint8")} for file in files]
    table = max(matrices(path, "float32"), key=lambda a: a.shape[0] if a.shape[1] == 32 else 0).shape
    stored = {4: (table[0], table[1] // 2), 8: table}
    assert all(stored[bits] in found for bits, found in zip((usual, other), shapes, strict=True))
    found = parity(model, files[1], examples, 1)
    assert 0 < found.largest_logit_difference < 0.5 and found.label_agreement >= 0.8


def matrices(path, *dtypes):
    arrays = map(onnx.numpy_helper.to_array, onnx.load(path).graph.initializer)
    return [a for a in arrays if a.dtype in dtypes and a.ndim == 2 and a.size > 1]


def test_reduced_range_keeps_weights_to_7_bits(bert, tmp_path):
    def largest(reduce_range):
        out = quantize_int8(bert[2], tmp_path / f"{reduce_range}.onnx", reduce_range=reduce_range)
        return max(np.abs(a.astype(int)).max() for a in matrices(out, "int8"))

    assert largest(False) > 64 >= largest(True)


@pytest.mark.parametrize(
    ("flags", "needed"),
    [("flags : sse avx2 avx512f", True), ("flags : avx2 avx512_vnni", False), ("flags : avx2 avx_vnni", False)],
)
def test_reduced_range_only_where_the_processor_needs_it(flags, needed, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert needs_reduced_range(tmp_path / "cpuinfo") is needed
    assert not needs_reduced_range(tmp_path / "absent")  # no Linux, or no x86


class Branching(nn.Module):
    """A model that no tracer can follow: what it computes depends on what it is given."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask):
        chosen = input_ids if input_ids.sum() > 3 else attention_mask
        return SimpleNamespace(logits=self.head(chosen[:, :4].float()))


def test_failure_names_the_architecture_and_leaves_no_file(tmp_path, capfd):
    with pytest.raises(ModelError, match=r"Branching cannot be exported to ONNX by torch .*: Could not guard"):
        export_onnx(Branching(), tiny_tokenizer(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("cause", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left on device"), RunError)]
)
def test_interruption_or_a_full_disk_leaves_the_old_file(bert, tmp_path, monkeypatch, cause, raised):
    import onnxruntime.quantization

    def interrupted(graph, draft, **options):
        draft.write_bytes(b"half")
        raise cause

    (tmp_path / "small.onnx").write_bytes(b"old")
    monkeypatch.setattr(onnxruntime.quantization, "quantize_dynamic", interrupted)
    with pytest.raises(raised):
        quantize_int8(bert[2], tmp_path / "small.onnx")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("small.onnx", b"old")]


def test_too_large_for_one_file(monkeypatch, tmp_path):
    monkeypatch.setattr(exporter, "_MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="one ONNX file holds at most 2"):
        export_onnx(eager("bert"), tiny_tokenizer(), tmp_path / "model.onnx")


def test_missing_library_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime.*pip install 'onnx>="):
        export_onnx(eager("bert"), tiny_tokenizer(), tmp_path / "model.onnx")


def test_input_names_follow_the_tokenizer():
    assert input_names_of(tiny_tokenizer(segments=True)) == ["input_ids", "attention_mask", "token_type_ids"]
    assert input_names_of(tiny_tokenizer()) == ["input_ids", "attention_mask"]


def test_running_a_file_needs_no_pytorch(bert):
    artefact = Artefact("onnx", "fp32", str(bert[2]), (bert[2],))
    program = (
        "import json, sys; from demiglace.export.base import Artefact; import demiglace.export.measure\n"
        f"Artefact.from_json(json.loads({json.dumps(artefact.to_json())!r})).open()\n"
        "assert 'torch' not in sys.modules and 'onnxruntime' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_artefacts_have_format_precision_and_settings_as_fields(bert, tmp_path, monkeypatch):
    model, _, path = bert
    (tmp_path / "onnx").mkdir()
    monkeypatch.setattr(exporter, "export_onnx", lambda model, tokenizer, file, output: shutil.copy(path, file))
    full = OnnxExporter().write(model, tiny_tokenizer(segments=True), CLASSIFICATION, tmp_path)
    assert (full.format, full.precision, full.settings) == ("onnx", "fp32", {"opset": exporter.OPSET})
    assert full.files == (tmp_path / "onnx/model.onnx",) and full.size == path.stat().st_size
    assert full.names_in(tmp_path) == ["onnx/model.onnx"] and full.names_in(tmp_path / "other") == ["model.onnx"]
    settings = {
        "fp16": ("model_fp16.onnx", {"opset": exporter.OPSET}),
        "int8": ("model_quantized.onnx", {"opset": exporter.OPSET, "reduce_range": True, "embedding_bits": 8}),
        "int4": ("model_q4.onnx", {"opset": exporter.OPSET, "block_size": exporter.BLOCK, "embedding_bits": 4}),
    }
    reduced = exporter_for("onnx", "true")
    for precision, (name, expected) in settings.items():
        small = reduced.write(model, tiny_tokenizer(segments=True), CLASSIFICATION, tmp_path, precision, full)
        assert (small.format, small.precision, small.settings) == ("onnx", precision, expected)
        assert small.files == (tmp_path / "onnx" / name,) and small.size < full.size
    assert max(np.abs(a.astype(int)).max() for a in matrices(tmp_path / "onnx/model_quantized.onnx", "int8")) <= 64


def test_reduce_range_is_that_of_this_processor_if_it_is_not_given(bert, tmp_path, monkeypatch):
    model, _, path = bert
    monkeypatch.setattr(exporter, "needs_reduced_range", lambda: True)
    full = Artefact("onnx", "fp32", str(path), (path,))
    for choice, expected in (("auto", True), ("false", False)):
        small = exporter_for("onnx", choice).write(model, None, CLASSIFICATION, tmp_path, "int8", full)
        assert small.settings["reduce_range"] is expected
    with pytest.raises(ConfigError, match=r"--reduce-range true is about int8 by --to onnx.*leave it out"):
        exporter_for("gguf", "true")
    with pytest.raises(ConfigError, match=r"--embedding-bits 4 is about int8 and int4 by --to onnx.*leave it out"):
        exporter_for("gguf", embedding_bits=4)
    small = exporter_for("onnx", "true", 4).write(model, None, CLASSIFICATION, tmp_path, "int8", full)
    assert small.settings["embedding_bits"] == 4


def test_int8_alone_does_not_start_from_a_file_of_another_model(bert, tmp_path, monkeypatch):
    model, _, path = bert
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_bytes(b"of another model")
    monkeypatch.setattr(exporter, "export_onnx", lambda model, tokenizer, file, output: Path(shutil.copy(path, file)))
    OnnxExporter().write(model, tiny_tokenizer(segments=True), CLASSIFICATION, tmp_path, "int8")
    assert (tmp_path / "onnx/model.onnx").read_bytes() == path.read_bytes()


def test_tasks_without_a_row_of_logits_for_each_text_are_refused():
    assert OnnxExporter().unsupported(REGRESSION) is None
    with pytest.raises(ModelError, match="a model for language-modelling cannot be exported to ONNX: the ONNX graph"):
        OnnxExporter().require_support(LANGUAGE_MODELLING)


def test_a_batch_that_the_graph_cannot_take_is_a_model_error(bert):
    with pytest.raises(ModelError, match=r"cannot be run on a batch of 1 × 4 tokens .*cannot be exported to ONNX"):
        OnnxRunner(str(bert[2])).logits({name: np.ones((1, 4), np.float32) for name in exporter._INPUTS})
