"""Models that a Python program gives as objects: their fingerprint, and saving them with their tokenizer."""

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from demiglace.errors import ModelError
from demiglace.models.files import fingerprint_tokenizer, has_tokenizer
from demiglace.models.loading import save_model


def fingerprint_objects(model: Any, tokenizer: Any) -> str:
    """Return SHA-256 over the weights, the config and the tokenizer of objects (16 hex digits).

    A version of transformers, a path and other notes in the config do not count.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    digest.update(json.dumps(_config(model), sort_keys=True, default=str).encode())
    if tokenizer is not None:
        with TemporaryDirectory(prefix="demiglace-") as directory:
            tokenizer.save_pretrained(directory)
            digest.update(fingerprint_tokenizer(directory).encode())
    return digest.hexdigest()[:16]


def _config(model: Any) -> dict[str, Any]:
    config: Any = getattr(model, "config", None)
    content: dict[str, Any] = config.to_dict() if hasattr(config, "to_dict") else {}
    return {k: v for k, v in content.items() if k != "transformers_version" and not k.startswith("_")}


def save_objects(model: Any, tokenizer: Any, directory: Path, name: str) -> None:
    """Write a model and its tokenizer to a directory. name: the option, for messages.

    Raises `ModelError` for a model that saves no config, and where the tokenizer is missing.
    """
    save_model(model, directory)
    if not (directory / "config.json").is_file():
        raise ModelError(
            f"{name} was given an object of the type {type(model).__name__}, which saves no config.json; expected a "
            "model of transformers. Merge adapters first: model.merge_and_unload()."
        )
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    if not has_tokenizer(directory):
        raise ModelError(f"{name} was given as a model without its tokenizer; give it too: tokenizer=…")
