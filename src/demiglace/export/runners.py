"""PyTorch and ONNX Runtime behind one small protocol: a function from numpy inputs to logits.

Nothing heavy is imported before a runner is opened, so that a process that runs ONNX holds no PyTorch.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Inputs = Mapping[str, np.ndarray]  # name -> int64 [B, L]
Runner = Callable[[Inputs], np.ndarray]  # inputs -> float32 [B, C]


def open_runner(artefact: str, threads: int = 1, allow_pickle: bool = False) -> Runner:
    """A runner on the CPU for an `.onnx` file, or for a model directory or hub name (PyTorch, fp32)."""
    if artefact.endswith(".onnx"):
        return _onnx_runner(artefact, threads)
    import torch

    from demiglace.models.loading import load_classifier

    torch.set_num_threads(threads)
    return torch_runner(load_classifier(artefact, None, allow_pickle=allow_pickle))


def _onnx_runner(path: str, threads: int) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]

    def run(inputs: Inputs) -> np.ndarray:
        return session.run(None, {name: inputs[name] for name in names})[0]

    return run


def torch_runner(model: "PreTrainedModel") -> Runner:
    """A runner of a loaded classifier on the CPU."""
    import torch

    model.eval()

    @torch.inference_mode()
    def run(inputs: Inputs) -> np.ndarray:
        return model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits.numpy()

    return run
