"""Checkpoints: safetensors files, written atomically, with a checksum and the trainer state in the header."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from demiglace.errors import RunError
from demiglace.runs.files import atomic_write


def save_checkpoint(file: Path, tensors: Mapping[str, Tensor], trainer_state: Mapping[str, Any]) -> None:
    """Write tensors and a trainer state of JSON values; a crash or a full disk leaves the previous checkpoint intact.

    Raises `RunError` if the file cannot be written.
    """
    plain = _untie(tensors)
    header = {"position": json.dumps(dict(trainer_state))}
    header["checksum"] = str(_checksum(plain, header["position"]))
    try:
        with atomic_write(file) as partial:
            save_file(plain, partial, metadata=header)
    except (OSError, SafetensorError) as error:
        rest = "it resumes from the last checkpoint, which is intact" if file.exists() else "it starts again"
        raise RunError(
            f"the checkpoint {file} could not be written ({error}); free disk space and repeat the command: {rest}."
        ) from error


def _untie(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU. Copy those that share memory (tied weights), which safetensors refuses.

    Copying all of them would take as much memory as model and optimizer, at the peak of the run.
    """
    untied: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        cpu_tensor = tensor.detach().cpu().contiguous()
        memory = cpu_tensor.untyped_storage().data_ptr()
        untied[name] = cpu_tensor.clone() if memory in seen else cpu_tensor
        seen.add(memory)
    return untied


def load_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the trainer state of a checkpoint. Raises `RunError` if it is damaged."""
    try:
        with safe_open(file, "pt") as handle:
            header = handle.metadata()
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        intact = int(header["checksum"]) == _checksum(tensors, header["position"])
        trainer_state = json.loads(header["position"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(file, str(error)) from error
    if not intact:
        raise _damaged(file, "its checksum does not match")
    return tensors, trainer_state


def _damaged(file: Path, reason: str) -> RunError:
    return RunError(
        f"the checkpoint {file} is damaged ({reason}); restore it, or remove {file.parent} and repeat the command to "
        "train from the start."
    )


def _checksum(tensors: Mapping[str, Tensor], trainer_state: str) -> int:
    value = zlib.crc32(trainer_state.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.numpy().data, value)
    return value


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with `prefix` added to their names."""
    return {prefix + name: t for name, t in tensors.items()}


def unprefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
