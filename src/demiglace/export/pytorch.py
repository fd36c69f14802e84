"""A PyTorch model: the one that is exported, and the teacher that is measured next to it."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demiglace.export.base import PYTORCH, Artefact, Format, Inputs, Runner
from demiglace.export.decoding import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PyTorch(Format):
    """A model directory or hub name, opened in fp32 with transformers."""

    name = PYTORCH
    title = "PyTorch"
    for_transformers = True

    def open(self, artefact: Artefact, threads: int) -> Runner:
        """Return a runner; sets the number of threads of the process."""
        import torch

        from demiglace.models.loading import load_classifier

        torch.set_num_threads(threads)
        return TorchRunner(load_classifier(artefact.path, None, allow_pickle=artefact.allow_pickle))

    def open_decoder(self, artefact: Artefact, threads: int) -> Decoder:
        """Return the language model with a KV cache; sets the number of threads of the process."""
        import torch

        from demiglace.models.language_model import load_language_model

        torch.set_num_threads(threads)
        return TorchDecoder(load_language_model(artefact.path, allow_pickle=artefact.allow_pickle))


class TorchDecoder:
    """Runs a loaded causal language model on the CPU with the KV cache of transformers."""

    def __init__(self, model: "PreTrainedModel"):
        self._model = model.eval()
        self._cache = None
        # as `generate` does: no logits of the prompt's other tokens, where the model can leave them out
        last_only = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._options = {"logits_to_keep": 1} if last_only else {}

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Start a text with these tokens. Return the logits of the token after them, float32 [V]."""
        self._cache = None
        return self._append(ids)

    def decode(self, token: int) -> np.ndarray:
        """Append a token to the text. Return the logits of the token after it, float32 [V]."""
        return self._append([token])

    def _append(self, ids: Sequence[int]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            made = self._model(
                input_ids=torch.tensor([list(ids)]), past_key_values=self._cache, use_cache=True, **self._options
            )
        self._cache = made.past_key_values
        return made.logits[0, -1].numpy()


class TorchRunner:
    """Runs a loaded model on the CPU, without dropout."""

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
