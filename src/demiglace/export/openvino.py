"""Write a classifier or regressor for OpenVINO, in fp32 or with 8-bit weights, and run it on the CPU.

The names are those of Optimum: openvino/openvino_model.xml has the graph, the .bin file beside it the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from demiglace.errors import ModelError, RunError
from demiglace.export.base import Artefact, Exporter, Inputs, Runner
from demiglace.export.onnx import input_names_of, logits_module, silenced

if TYPE_CHECKING:
    from openvino import Model
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from demiglace.tasks.base import Task

FILES = {
    "fp32": "openvino/openvino_model.xml",
    "int8-weights": "openvino/openvino_model_int8_weights.xml",
    "int8": "openvino/openvino_model_int8.xml",
}


@dataclass(frozen=True)
class OpenVinoExporter(Exporter):
    """Write the files of `FILES`.

    int8-weights: weights in 8 bits, computed in fp32. int8: activations in 8 bits as well, in ranges that are measured
    on the rows of the check (post-training quantisation).
    """

    rows: Sequence[Inputs] = ()  # tokenized rows for the ranges of activations

    name = "openvino"
    title = "OpenVINO"
    precisions = tuple(FILES)
    packages = ("openvino", "nncf")
    install = "openvino"

    def with_rows(self, rows: Sequence[Inputs], max_length: int | None) -> "OpenVinoExporter":
        """Return the exporter with tokenized rows, each a batch of one."""
        return replace(self, rows=rows)

    def unsupported(self, task: "Task") -> str | None:
        """Return why models of this task cannot be written; None for tasks on rows of texts."""
        return None if task.reads == "rows" else "it is written for rows of texts; use --to onnx or --to gguf."

    def write(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        task: "Task",
        directory: Path,
        precision: str = "fp32",
        full: Artefact | None = None,
    ) -> Artefact:
        """Write the graph and its weights; other precisions than fp32 start from `full`, written first if it is None.

        Raises `ModelError` if OpenVINO cannot convert the model.
        """
        self.require_packages()
        file, settings = directory / FILES[precision], dict[str, Any]()
        if precision == "fp32":
            graph = convert(model, tokenizer, task.output_name)
        else:
            graph = _read(Path((full or self.write(model, tokenizer, task, directory)).path))
            graph = compress_weights(graph) if precision == "int8-weights" else quantize(graph, self.rows)
            settings |= {"calibration_rows": len(self.rows)} if precision == "int8" else {}
        return Artefact(self.name, precision, str(file), _save(graph, file), settings)

    def open(self, artefact: Artefact, threads: int) -> Runner:
        """Return a runner of OpenVINO's CPU device."""
        return OpenVinoRunner(artefact.path, threads)


class OpenVinoRunner:
    """Runs an OpenVINO model on the CPU, in fp32 where the graph is in floating point."""

    def __init__(self, path: str, threads: int = 1):
        import openvino

        # without the hint, processors that compute in bf16 would round the activations
        options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        model = openvino.Core().compile_model(path, "CPU", options)
        self._request = model.create_infer_request()
        self._names = [i.any_name for i in model.inputs]

    def logits(self, batch: Inputs) -> np.ndarray:
        """Return the logits of a batch, float32 [B, C]."""
        return self._request.infer({name: batch[name] for name in self._names})[0]


def convert(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", output: str = "logits") -> "Model":
    """Return the model as an OpenVINO graph: int64 [batch, sequence] inputs to a float32 `output`.

    Raises `ModelError` if OpenVINO cannot trace the model.
    """
    import openvino
    import torch

    names = input_names_of(tokenizer)
    example = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names)
    with silenced():
        try:
            graph = openvino.convert_model(
                logits_module(model, names),
                example_input=example,
                input=[openvino.PartialShape([-1, -1]) for _ in names],
            )
        except Exception as error:  # the errors of the converter have no common base
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{type(model).__name__} cannot be exported to OpenVINO: {reason}") from error
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    graph.outputs[0].get_tensor().set_names({output})
    return graph


def compress_weights(graph: "Model") -> "Model":
    """Return the graph with weights in 8 bits, a scale per output channel; embedding tables included."""
    import nncf

    with silenced():
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)


def quantize(graph: "Model", rows: Sequence[Inputs]) -> "Model":
    """Return the graph with weights and activations in 8 bits; rows: batches for the ranges of the activations."""
    import nncf

    names = [port.any_name for port in graph.inputs]
    data = nncf.Dataset(rows, lambda batch: {name: batch[name] for name in names})
    with silenced():
        return nncf.quantize(graph, data, subset_size=len(rows), model_type=nncf.ModelType.TRANSFORMER)


def _read(path: Path) -> "Model":
    import openvino

    return openvino.Core().read_model(path)


def _save(graph: "Model", file: Path) -> tuple[Path, Path]:
    """Save a graph and its weights, and return their files: first what is opened, which appears last."""
    import openvino

    weights = file.with_suffix(".bin")
    try:
        file.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=file.parent) as folder:
            draft = Path(folder) / file.name
            openvino.save_model(graph, draft, compress_to_fp16=False)
            draft.with_suffix(".bin").replace(weights)
            draft.replace(file)
    except OSError as error:
        raise RunError(f"{file} could not be written: {error.strerror or error}; make room there.") from error
    return file, weights
