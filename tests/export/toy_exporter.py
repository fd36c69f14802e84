"""A toy export format: one NumPy archive of weights. This file and one row of `EXPORTERS` are all that it needs."""

from pathlib import Path

import numpy as np

from demiglace.export.base import Artefact, Exporter


class ToyExporter(Exporter):
    name = "toy"
    title = "Toy"
    precisions = ("fp32", "int8")
    packages = ("numpy",)
    install = "toy-runtime"

    def unsupported(self, task):
        return None if task.name == "classification" else "its archive holds classes only."

    def write(self, model, tokenizer, task, directory, precision="fp32", full=None):
        weights = {name: array.numpy() for name, array in model.state_dict().items()}
        if precision == "int8":
            weights = {name: self._rounded(array) for name, array in weights.items()}
        file = directory / f"model.{precision}.npz"
        np.savez(file, **weights)
        return Artefact(self.name, precision, str(file), (file,), {"labels": model.config.num_labels})

    @staticmethod
    def _rounded(array):
        scale = max(np.abs(array).max() / 127, 1e-9) if array.dtype.kind == "f" else 1
        return (np.round(array / scale) * scale).astype(array.dtype)

    def open(self, artefact, threads):
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        from demiglace.export.pytorch import TorchRunner

        config = AutoConfig.from_pretrained(Path(artefact.path).parent)
        model = AutoModelForSequenceClassification.from_config(config)
        with np.load(artefact.path) as arrays:
            model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        return TorchRunner(model)
