"""Write a model directory of transformers with weights in bf16 or fp16, which takes half the bytes of fp32.

`from_pretrained` loads it as any model. The runner computes in fp32 with the rounded weights: so does a device without
arithmetic in 16 bits, and others differ a little more.
"""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from demiglace.errors import ModelError, RunError
from demiglace.export.base import Artefact, Exporter, Runner
from demiglace.export.decoding import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from demiglace.tasks.base import Task

_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # precision -> PyTorch's name


class SafetensorsExporter(Exporter):
    """Write model/model.safetensors and a config with the type of its weights."""

    name = "safetensors"
    title = "safetensors"
    precisions = tuple(_TYPES)
    only_one = True
    for_transformers = True

    def model_directory(self, directory: Path) -> Path:
        """Return the directory that transformers loads, which a run has as `model`."""
        return directory / "model"

    def unsupported(self, task: "Task") -> str | None:
        """Return None: transformers saves models of every kind."""
        return None

    def write(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        task: "Task",
        directory: Path,
        precision: str = "fp32",
        full: Artefact | None = None,
    ) -> Artefact:
        """Write the weights and the config. Raises `ModelError` if a weight is too large for fp16."""
        import torch

        from demiglace.models.loading import save_model

        target = self.model_directory(directory)
        target.mkdir(exist_ok=True)
        rounded = deepcopy(model).to(getattr(torch, _TYPES[precision]))
        for name, weight in rounded.named_parameters():
            if not weight.isfinite().all():
                raise ModelError(f"{name} has values that {precision} cannot hold; give --quantize bf16.")
        try:
            with TemporaryDirectory(dir=target, prefix=".") as draft:
                save_model(rounded, Path(draft))
                written = [file for file in Path(draft).rglob("*") if file.is_file()]
                files = [_moved(file, target / file.relative_to(draft)) for file in written]
        except OSError as error:
            raise RunError(f"{target} could not be written: {error.strerror or error}; make room there.") from error
        weights = tuple(sorted((f for f in files if f.suffix == ".safetensors"), key=lambda f: (len(f.parts), f)))
        return Artefact(self.name, precision, str(weights[0]), weights)

    def open(self, artefact: Artefact, threads: int) -> Runner:
        """Return a runner in PyTorch, in fp32; sets the threads of the process."""
        import torch

        from demiglace.export.pytorch import TorchRunner
        from demiglace.models.files import load_config
        from demiglace.models.language_model import is_language_model, load_causal
        from demiglace.models.loading import load_classifier

        torch.set_num_threads(threads)
        path = str(Path(artefact.path).parent)
        if is_language_model(load_config(path)):
            return TorchRunner(load_causal(path, False)[0].cpu())
        return TorchRunner(load_classifier(path, None))

    def open_decoder(self, artefact: Artefact, threads: int) -> Decoder | None:
        """Return a decoder in PyTorch, in fp32; sets the threads of the process."""
        from demiglace.export.pytorch import PyTorch

        return PyTorch().open_decoder(replace(artefact, path=str(Path(artefact.path).parent)), threads)


def _moved(file: Path, target: Path) -> Path:
    target.parent.mkdir(exist_ok=True)
    return file.replace(target)
