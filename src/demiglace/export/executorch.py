"""Write a classifier or regressor for ExecuTorch, in fp32 or int8, and run it with XNNPACK's kernels on the CPU.

A program takes one text without padding, as a phone classifies it. With one size that varies, XNNPACK computes all
between two layer norms in one piece.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demiglace.errors import ModelError, RunError
from demiglace.export.base import Artefact, Exporter, Inputs, Runner
from demiglace.export.onnx import input_names_of, logits_module, silenced
from demiglace.runs.files import atomic_write

if TYPE_CHECKING:
    from torch.fx import GraphModule
    from torch.fx.passes.infra.pass_base import PassResult
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from demiglace.tasks.base import Task

FILES = {"fp32": "executorch/model.pte", "int8": "executorch/model_int8.pte"}
_DEFAULT_LENGTH = 512  # tokens of a text, at most, for a model without a limit
_MASK = "attention_mask"


@dataclass(frozen=True)
class ExecuTorchExporter(Exporter):
    """Write the files of `FILES`.

    int8: matrices in 8 bits with a scale per output channel, activations quantised while the model runs, and embedding
    tables in 8 bits with a scale per row.
    """

    max_length: int | None = None  # tokens of a text, at most; None: as many as the model takes

    name = "executorch"
    title = "ExecuTorch"
    precisions = tuple(FILES)
    packages = ("executorch", "torchao")
    install = "executorch"

    def with_rows(self, rows: Sequence[Inputs], max_length: int | None) -> "ExecuTorchExporter":
        """Return the exporter for texts of at most this many tokens: memory is planned for the longest one."""
        return replace(self, max_length=max_length)

    def unsupported(self, task: "Task") -> str | None:
        """Return why models of this task cannot be written; None for tasks on rows of texts."""
        return None if task.reads == "rows" else "it is written for rows of texts; use --to gguf."

    def write(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        task: "Task",
        directory: Path,
        precision: str = "fp32",
        full: Artefact | None = None,
    ) -> Artefact:
        """Write a program. Raises `ModelError` if torch or ExecuTorch cannot convert the model."""
        from demiglace.models.shape import max_positions

        self.require_packages()
        file = directory / FILES[precision]
        limits = [limit for limit in (self.max_length, max_positions(model)) if limit is not None]
        longest = min(limits, default=_DEFAULT_LENGTH)
        names = [name for name in input_names_of(tokenizer) if name != _MASK]
        content = convert(quantize(model) if precision == "int8" else model, names, longest)
        try:
            with atomic_write(file) as draft:
                draft.write_bytes(content)
        except OSError as error:
            raise RunError(f"{file} could not be written: {error.strerror or error}; make room there.") from error
        return Artefact(self.name, precision, str(file), (file,), {"max_length": longest})

    def open(self, artefact: Artefact, threads: int) -> Runner:
        """Return a runner of ExecuTorch; sets the threads of the process."""
        return ExecuTorchRunner(artefact.path, threads)


class ExecuTorchRunner:
    """Runs a program on the CPU, one text after the other."""

    def __init__(self, path: str, threads: int = 1):
        import torch  # noqa: F401 - loads libraries that those below need
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        with _quiet_library():
            import executorch.kernels.quantized  # noqa: F401 - registers lookups in 8-bit tables

            _unsafe_reset_threadpool(threads)
            self._program = Runtime.get().load_program(Path(path))
            self._method = self._program.load_method("forward")
        about = self._method.metadata
        self._names = ("input_ids", "token_type_ids")[: about.num_inputs()]
        self._max_length = about.input_tensor_meta(0).sizes()[1]

    def logits(self, batch: Inputs) -> np.ndarray:
        """Return the logits of a batch, float32 [B, C], or [B, L, C] with 0 for padding where words have labels.

        Raises `ModelError` for a text that is longer than those that the program was written for.
        """
        ids, mask = batch["input_ids"], batch[_MASK].astype(bool)
        rows = [self._logits_of_row(*(batch[name][i, kept] for name in self._names)) for i, kept in enumerate(mask)]
        if rows[0].ndim == 1:
            return np.stack(rows)
        logits = np.zeros((*ids.shape, rows[0].shape[-1]), np.float32)
        for row, kept, found in zip(logits, mask, rows, strict=True):
            row[kept] = found
        return logits

    def _logits_of_row(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the logits of a text without padding: [C] or [L, C]; inputs: int64 [L] each."""
        import torch

        if len(inputs[0]) > self._max_length:
            raise ModelError(
                f"a text has {len(inputs[0])} tokens, and the exported model takes at most {self._max_length}; "
                "export it again with a larger --max-length."
            )
        (logits,) = self._method.execute([torch.from_numpy(array[None]) for array in inputs])
        return logits[0].numpy().copy()


def convert(model: "PreTrainedModel", names: Sequence[str], max_length: int) -> bytes:
    """Return the model as a program: int64 [1, sequence] inputs to float32 logits, for at most `max_length` tokens.

    Raises `ModelError` if torch or ExecuTorch cannot convert the model.
    """
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.utils.configs import get_transform_passes
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower

    example = tuple(torch.ones(1, min(8, max_length), dtype=torch.int64) for _ in names)
    sequence = {1: torch.export.Dim("sequence", min=1, max=max_length)}
    with silenced():
        try:
            program = torch.export.export(
                logits_module(model, names), example, dynamic_shapes=(tuple(sequence for _ in names),)
            )
            edge = to_edge_transform_and_lower(
                program,
                transform_passes=get_transform_passes([_infer_sequence_of_views]),
                partitioner=[XnnpackPartitioner()],
                compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
            )
            # the pass turns lookups in a dequantised table into lookups in the 8-bit table
            options = ExecutorchBackendConfig(extract_delegate_segments=True, do_quant_fusion_and_const_prop=True)
            return edge.to_executorch(options).buffer
        except Exception as error:  # the errors of torch.export and ExecuTorch have no common base
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{type(model).__name__} cannot be exported to ExecuTorch: {reason}") from error


def quantize(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return a copy of the model with 8-bit matrices and embedding tables.

    Raises `ModelError` for GPT-2, whose matrices torchao does not know.
    """
    import torch
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.quant_api import (
        Int8DynamicActivationIntxWeightConfig,
        IntxWeightOnlyConfig,
        quantize_,
    )
    from torchao.utils import unwrap_tensor_subclass
    from transformers.pytorch_utils import Conv1D

    if any(isinstance(module, Conv1D) for module in model.modules()):
        raise ModelError(
            f"{type(model).__name__} cannot be exported to ExecuTorch in int8: its matrices are of transformers' class "
            "Conv1D, which torchao does not quantise; leave --quantize out, or use --to onnx."
        )
    quantized, per_row = deepcopy(model), PerAxis(0)
    tables = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=per_row)
    matrices = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=per_row)
    with silenced():
        quantize_(quantized, tables, lambda module, _: isinstance(module, torch.nn.Embedding))
        quantize_(quantized, matrices)
        return unwrap_tensor_subclass(quantized)


def _infer_sequence_of_views(module: "GraphModule") -> "PassResult":
    """Write -1 for the one size of each view that varies, since XNNPACK takes no symbol there: a pass of ExecuTorch."""
    from executorch.exir.dialects._ops import ops
    from torch.fx.passes.infra.pass_base import PassResult

    for node in module.graph.nodes:
        if node.target == ops.edge.aten.view_copy.default:
            shape = node.meta["val"].shape
            if sum(not isinstance(size, int) for size in shape) == 1:
                node.update_arg(1, [size if isinstance(size, int) else -1 for size in shape])
    module.graph.eliminate_dead_code()
    module.recompile()
    return PassResult(module, True)


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Hide what ExecuTorch's C++ code writes to standard error about the processor."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as sink:
            os.dup2(sink.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
