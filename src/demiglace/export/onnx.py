"""Write a classifier or regressor as ONNX files in fp32, fp16, int8 and int4, and run them with ONNX Runtime.

The names are those that transformers.js and optimum load: `onnx/model.onnx`, `onnx/model_quantized.onnx`, …, below the
config and the tokenizer. All three quantisers start from the fp32 file.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demiglace.errors import ModelError, RunError
from demiglace.export.base import Artefact, Exporter, Inputs, Runner
from demiglace.runs.files import atomic_write

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from demiglace.tasks.base import Task

OPSET = 18  # what the exporter of torch writes; other versions are conversions from it
BLOCK = 32  # weights of one scale in an int4 file
_SMALL_TABLE = 16  # rows; tables up to this size stay in fp32, such as those of segments
_REASON = 160  # characters of an error of torch in a message
_MAX_BYTES = 2**31 - 2**24  # protobuf's limit for one file, less room for the graph
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


# precision -> file below the export directory; the names are transformers.js's of its dtypes fp32, fp16, q8 and q4
FILES = {
    "fp32": "onnx/model.onnx",
    "fp16": "onnx/model_fp16.onnx",
    "int8": "onnx/model_quantized.onnx",
    "int4": "onnx/model_q4.onnx",
}


@dataclass(frozen=True)
class OnnxExporter(Exporter):
    """Write the files of `FILES`."""

    reduce_range: bool | None = None  # int8: keep weights to 7 bits; None: if this machine's processor needs it
    embedding_bits: int | None = None  # of embedding tables in int8 and int4, 8 or 4; None: as many as matrices have

    name = "onnx"
    title = "ONNX"
    precisions = tuple(FILES)
    packages = ("onnx", "onnxscript", "onnxruntime")
    install = "export"

    def with_reduce_range(self, reduce_range: bool) -> "OnnxExporter":
        """Return the exporter with int8 weights of 7 bits, or of 8, whatever this machine's processor is."""
        return replace(self, reduce_range=reduce_range)

    def with_embedding_bits(self, bits: int) -> "OnnxExporter":
        """Return the exporter with embedding tables of 8 or 4 bits in int8 and int4 files."""
        return replace(self, embedding_bits=bits)

    def unsupported(self, task: "Task") -> str | None:
        """Return why models of this task cannot be written; None for tasks on rows of texts."""
        if task.reads == "rows":
            return None
        return "the ONNX graph takes rows of texts, as classification of rows or words and regression have."

    def write(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        task: "Task",
        directory: Path,
        precision: str = "fp32",
        full: Artefact | None = None,
    ) -> Artefact:
        """Write an ONNX file; other precisions than fp32 start from `full`, which is written first if it is None."""
        self.require_packages()
        file, settings = directory / FILES[precision], dict[str, Any](opset=OPSET)
        if precision == "fp32":
            self.write_full(model, tokenizer, task, file)
            return Artefact(self.name, precision, str(file), (file,), settings)
        source = Path((full or self.write(model, tokenizer, task, directory)).path)
        settings |= self.convert(source, file, precision)
        return Artefact(self.name, precision, str(file), (file,), settings)

    def convert(self, source: Path, file: Path, precision: str) -> dict[str, Any]:
        """Write the fp32 file `source` to `file` in another precision; return how, for the manifest."""
        if precision == "fp16":
            convert_to_fp16(source, file)
            return {}
        if precision == "int4":
            bits = self.embedding_bits or 4
            quantize_blocks(source, file, embedding_bits=bits)
            return {"block_size": BLOCK, "embedding_bits": bits}
        reduced = needs_reduced_range() if self.reduce_range is None else self.reduce_range
        bits = self.embedding_bits or 8
        quantize_int8(source, file, reduce_range=reduced, embedding_bits=bits)
        return {"reduce_range": reduced, "embedding_bits": bits}

    def write_full(
        self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", task: "Task", file: Path
    ) -> None:
        """Write the graph in fp32."""
        export_onnx(model, tokenizer, file, task.output_name)

    def open(self, artefact: Artefact, threads: int) -> Runner:
        """Return a runner of ONNX Runtime's CPU provider."""
        return OnnxRunner(artefact.path, threads)


class OnnxRunner:
    """Runs an ONNX file on the CPU."""

    def __init__(self, path: str, threads: int = 1):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [i.name for i in self._session.get_inputs()]

    def logits(self, batch: Inputs) -> np.ndarray:
        """Return the logits of a batch, float32 [B, C]. Raises `ModelError` if the graph cannot run on it."""
        try:
            return self._session.run(None, {name: batch[name] for name in self._names})[0]
        except Exception as error:  # ONNX Runtime's errors have no common base
            shape = " × ".join(map(str, batch[self._names[0]].shape))
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"the exported model cannot be run on a batch of {shape} tokens ({reason}). If the graph of this "
                "architecture holds sizes of the example that it was traced with, it cannot be exported to ONNX."
            ) from error


def input_names_of(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return the exported model's inputs in order: ids, mask and, if the tokenizer makes them, segment ids."""
    segments = "token_type_ids" in tokenizer.model_input_names
    return [name for name in _INPUTS if segments or name != "token_type_ids"]


def export_onnx(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", path: Path, output: str = "logits"
) -> Path:
    """Write `model` to `path` as ONNX: int64 [batch, sequence] inputs to a float32 `output`. Return `path`.

    The output is [batch, C], or [batch, sequence, C] where words have labels. Batch and sequence are dynamic. Load the
    model with eager attention: its graph is smaller and 1 to 8 % faster in ONNX Runtime than the graph of sdpa, which
    guards against fully masked rows. The file appears under its name only when it is complete. Raises `ModelError` if
    the model is too large for one file or the exporter cannot trace it.
    """
    import torch

    OnnxExporter().require_packages()
    names = input_names_of(tokenizer)
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    example = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names)
    return write_graph(logits_module(model, names), example, (tuple(dynamic for _ in names),), path, names, [output])


def write_graph(
    module: "nn.Module",
    example: tuple["Tensor", ...],
    dynamic_shapes: Any,
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Path:
    """Write a module, whose submodule `model` is a transformers model, to `path` as ONNX in fp32. Return `path`.

    example: its inputs; dynamic_shapes: which of their sizes vary, see `torch.onnx.export`. The file appears under its
    name only when it is complete. Raises `ModelError` as `export_onnx` does.
    """
    import torch

    _check_size(module)
    with _draft(path) as draft, silenced():
        try:
            program: Any = torch.onnx.export(
                module,
                example,
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                verbose=False,
            )
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()  # places in source files of this machine
            program.save(draft, external_data=False)
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0][:_REASON]
            what = f"{type(module.model).__name__} cannot be exported to ONNX by torch {torch.__version__}"
            raise ModelError(f"{what}: {reason}") from error
    return path


def logits_module(model: "PreTrainedModel", input_names: Sequence[str]) -> "nn.Module":
    """Return the model as a module in eval mode that takes its inputs in this order and returns the logits tensor."""
    from torch import Tensor, nn

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Tensor) -> Tensor:
            return self.model(**dict(zip(input_names, inputs, strict=True))).logits

    return Logits().eval()


def quantize_int8(path: Path, out: Path, *, reduce_range: bool | None = None, embedding_bits: int = 8) -> Path:
    """Write the ONNX model at `path` to `out` with int8 weights, one scale per output channel. Return `out`.

    Activations are quantised while the model runs, so no calibration rows are needed. reduce_range: keep weights to 7
    bits, which prevents overflow on a processor without 8-bit dot products; None decides by this machine's processor.
    embedding_bits: 8, with one scale per table, or 4, as in `quantize_blocks`.
    """
    OnnxExporter().require_packages()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _draft(out) as draft, silenced():
        model = _bare(path)
        packed = _pack_tables(model.graph, embedding_bits, BLOCK) if embedding_bits == 4 else []
        quantize_dynamic(
            model,
            draft,
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=packed,
            reduce_range=needs_reduced_range() if reduce_range is None else reduce_range,
        )
    return out


def convert_to_fp16(path: Path, out: Path) -> Path:
    """Write the ONNX model at `path` to `out` with weights and activations in fp16, logits in fp32. Return `out`."""
    OnnxExporter().require_packages()
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _draft(out) as draft, silenced():
        onnx.save(convert_float_to_float16(_bare(path), keep_io_types=True), draft)
    return out


def quantize_blocks(
    path: Path, out: Path, *, bits: int = 4, block_size: int = BLOCK, embedding_bits: int | None = None
) -> Path:
    """Write the ONNX model at `path` to `out` with weights in 4 or 8 bits, a scale per `block_size` weights.

    Return `out`. Matrices become ONNX Runtime's operator MatMulNBits. Embedding tables, in `embedding_bits` (default:
    `bits`), are read by standard operators: browsers do not have GatherBlockQuantized. A head that shares its table
    with the embedding has as many bits; in 8 bits, one table serves both. Weights are rounded to the nearest value, so
    no calibration rows are needed; vectors stay in fp32.
    """
    OnnxExporter().require_packages()
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel

    with _draft(out) as draft, silenced():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # it configures logging

        model, table_bits = _bare(path), embedding_bits or bits
        if table_bits == 8:
            _share_packed_tables(model.graph, block_size)
        heads = _with_constant_weights(model.graph)
        graph = ONNXModel(model)
        graph.replace_gemm_with_matmul()  # a Gemm would stay in fp32: heads, and all matrices of GPT-2
        _pack_tables(graph.model.graph, table_bits, block_size)
        for width, left in ((bits, heads), (table_bits, [])):
            # activations in 8 bits, a scale per block: as exact as the weights, and faster
            quantizer = MatMulNBitsQuantizer(
                graph.model, bits=width, block_size=block_size, accuracy_level=4, nodes_to_exclude=left
            )
            quantizer.process()  # also removes tables that nothing reads any more
            graph = quantizer.model
        onnx.save(graph.model, draft)
    return out


def _share_packed_tables(graph: "GraphProto", block_size: int) -> None:
    """Replace each embedding table that a head shares by one of 8 bits, which both read.

    MatMulNBits stores 8-bit weights as `_packed_table` does.
    """
    from onnx import numpy_helper
    from onnx.helper import make_node

    tables = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    for transpose in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in looked_up]:
        table = tables.get(transpose.input[0])
        head = next((n for n in graph.node if n.op_type == "MatMul" and n.input[1] == transpose.output[0]), None)
        if table is None or head is None or table.dims[1] % block_size:
            continue
        rows, width = table.dims
        packed, *others = _packed_table(table.name, numpy_helper.to_array(table), block_size, 8, np.float32)
        packed.dims[:] = [rows, width // block_size, block_size]
        graph.initializer.extend([packed, *others])
        sizes = {"K": width, "N": rows, "bits": 8, "block_size": block_size, "accuracy_level": 4}
        inputs = [head.input[0], f"{table.name}_packed", f"{table.name}_scales"]
        head.CopyFrom(make_node("MatMulNBits", inputs, head.output, head.name, domain="com.microsoft", **sizes))
        graph.node.remove(transpose)


def _pack_tables(graph: "GraphProto", bits: int, block_size: int) -> list[str]:
    """Replace each lookup in an embedding table by one in a table of 4 or 8 bits; return the names of its nodes."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes, packed, names = list(graph.node), set[str](), list[str]()
    del graph.node[:]
    for node in nodes:
        table = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or len(table.dims) != 2 or table.dims[0] <= _SMALL_TABLE or table.dims[1] % 2:
            graph.node.append(node)
            continue
        width = table.dims[1]
        block = block_size if width % block_size == 0 else width
        if table.name not in packed and f"{table.name}_packed" not in constants:
            packed.add(table.name)
            graph.initializer.extend(_packed_table(table.name, numpy_helper.to_array(table), block, bits))
        lookup = list(_lookup(node, bits))
        graph.node.extend(lookup)
        names += [step.name for step in lookup]
    return names


def _packed_table(
    name: str, table: np.ndarray, block: int, bits: int, scale_type: type = np.float16
) -> list["TensorProto"]:
    """Return the constants of `_lookup` for a table float [V, D]: its packed values, scales and shapes.

    A weight is scale × (value − h) with a value of 0 to 2h − 1, where h is 8 or 128; the weight of largest magnitude in
    a block has the value 0. In 4 bits, a byte holds the values of columns j and j + D / 2.
    """
    from onnx import numpy_helper

    rows, width = table.shape
    half = 2 ** (bits - 1)
    blocks = table.reshape(rows, -1, block)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    scales = (largest / -half).astype(scale_type)
    steps = np.where(scales == 0, 1, scales).astype(np.float32)
    values = (np.rint(blocks / steps).clip(-half, half - 1) + half).astype(np.uint8).reshape(rows, width)
    arrays = {
        "packed": values if bits == 8 else values[:, : width // 2] | values[:, width // 2 :] << 4,
        "scales": scales[..., 0],
        "half": np.array(half, np.float32),
        "blocks": np.array([-1, width // block, block]),
        "of_blocks": np.array([-1, width // block, 1]),
        "width": np.array([width]),
    }
    if bits == 4:
        arrays |= {"15": np.array(15, np.uint8), "4": np.array(4, np.uint8)}
    return [numpy_helper.from_array(array, f"{name}_{part}") for part, array in arrays.items()]


def _lookup(node: "NodeProto", bits: int) -> Iterator["NodeProto"]:
    """Yield the nodes that look up rows of a packed table and unpack them; the last has the output of `node`."""
    from onnx import TensorProto
    from onnx.helper import make_node

    (table, ids), out = node.input, node.output[0]

    def step(kind: str, inputs: Sequence[str], part: str = "", **attributes: Any) -> "NodeProto":
        output = f"{out}_{part}" if part else out
        return make_node(kind, inputs, [output], f"{node.name}_{part}", **attributes)

    yield step("Gather", [f"{table}_packed", ids], "values" if bits == 8 else "bytes")
    if bits == 4:
        yield step("BitwiseAnd", [f"{out}_bytes", f"{table}_15"], "low")
        yield step("BitShift", [f"{out}_bytes", f"{table}_4"], "high", direction="RIGHT")
        yield step("Concat", [f"{out}_low", f"{out}_high"], "values", axis=-1)
    yield step("Cast", [f"{out}_values"], "floats", to=TensorProto.FLOAT)
    yield step("Sub", [f"{out}_floats", f"{table}_half"], "signed")
    yield step("Reshape", [f"{out}_signed", f"{table}_blocks"], "blocks")
    yield step("Gather", [f"{table}_scales", ids], "half_scales")
    yield step("Cast", [f"{out}_half_scales"], "flat_scales", to=TensorProto.FLOAT)
    yield step("Reshape", [f"{out}_flat_scales", f"{table}_of_blocks"], "scales")
    yield step("Mul", [f"{out}_blocks", f"{out}_scales"], "weights")
    yield step("Shape", [ids], "ids_shape")
    yield step("Concat", [f"{out}_ids_shape", f"{table}_width"], "shape", axis=0)
    yield step("Reshape", [f"{out}_weights", f"{out}_shape"])


def _bare(path: Path) -> "ModelProto":
    """Load an ONNX model without what the exporter adds to the graph.

    Its inner shapes clash with those that the quantisers infer, and its notes on source code take a fifth of a MB.
    """
    import onnx

    model = onnx.load(path)
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
    return model


def _with_constant_weights(graph: "GraphProto") -> list[str]:
    """Replace the transposed embedding table of a language model's head by a matrix, which quantisers recognise.

    In fp32 one table serves both; quantised tables and matrices are stored in different ways. Return the names of the
    heads' nodes.
    """
    from onnx import numpy_helper

    weights = {weight.name: weight for weight in graph.initializer}
    heads = []
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights]:
        order = next(attribute.ints for attribute in node.attribute if attribute.name == "perm")
        array = numpy_helper.to_array(weights[node.input[0]]).transpose(order)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), node.output[0]))
        graph.node.remove(node)
        heads += [user.name for user in graph.node if node.output[0] in user.input]
    return heads


def needs_reduced_range(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this is an x86 processor without 8-bit dot products (VNNI), whose int8 sums can overflow."""
    flags = next((x for x in _lines(cpuinfo) if x.startswith("flags")), "")
    return "avx2" in flags and "vnni" not in flags


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _check_size(model: "nn.Module") -> None:
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if size > _MAX_BYTES:
        raise ModelError(
            f"the model's weights take {size / 2**30:.1f} GiB, and one ONNX file holds at most 2; "
            "truncate or distil the model first."
        )


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """Yield the temporary path of `atomic_write`. Raises `RunError` if the file cannot be written."""
    try:
        with atomic_write(path) as draft:
            yield draft
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror or error}; make room there.") from error


@contextmanager
def silenced() -> Iterator[None]:
    """Hide warnings, prints and logs of the exporter and the quantiser, which are about libraries, not the model.

    What they change of the root logger is undone, so that they do not print the logs of others either.
    """
    disabled = logging.root.manager.disable
    level, handlers = logging.root.level, logging.root.handlers[:]
    logging.disable(logging.WARNING)
    sink = StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(sink), redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.root.setLevel(level)
        logging.root.handlers[:] = handlers
