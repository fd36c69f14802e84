"""A PyTorch classifier or regressor: the model that is exported, and the teacher that is measured next to it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demiglace.export.base import PYTORCH, Artefact, Format, Inputs, Runner

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PyTorch(Format):
    """A model directory or hub name, opened in fp32 with transformers."""

    name = PYTORCH
    title = "PyTorch"

    def open(self, artefact: Artefact, threads: int) -> Runner:
        """Return a runner; sets the number of threads of the process."""
        import torch

        from demiglace.models.loading import load_classifier

        torch.set_num_threads(threads)
        return TorchRunner(load_classifier(artefact.path, None, allow_pickle=artefact.allow_pickle))


class TorchRunner:
    """Runs a loaded classifier or regressor on the CPU, without dropout."""

    def __init__(self, model: "PreTrainedModel"):
        self._model = model.eval()

    def logits(self, batch: Inputs) -> np.ndarray:
        """Return the logits of a batch, float32 [B, C]."""
        import torch

        with torch.inference_mode():
            return self._model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()


def checkpoint(path: str, allow_pickle: bool = False) -> Artefact:
    """Return a model directory or hub name as an artefact. Its files are the weights that are loaded."""
    directory = Path(path)
    files = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("*.bin"))
    return Artefact(PYTORCH, "fp32", path, tuple(files), allow_pickle=allow_pickle)
