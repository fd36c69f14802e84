"""Checkpoints: one safetensors file each, put in place whole, with a checksum and the position in its header."""

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


def save_checkpoint(file: Path, tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
    """Write tensors and a JSON position; a crash or a full disk leaves the previous checkpoint as it was.

    Raises `RunError` where the file cannot be written.
    """
    plain = _untie(tensors)
    header = {"position": json.dumps(dict(position))}
    header["crc32"] = str(_checksum(plain, header["position"]))
    try:
        with atomic_write(file) as partial:
            save_file(plain, partial, metadata=header)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the checkpoint {file} could not be written ({error}); make room there and repeat the command: it goes "
            "on from the last checkpoint, which is intact."
        ) from error


def _untie(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU; copied where one shares memory with another (tied weights), which safetensors refuses.

    Copying all would cost as much memory as model and optimiser take, at the peak of the run.
    """
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        plain[name] = own.clone() if memory in seen else own
        seen.add(memory)
    return plain


def load_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and position of a checkpoint. Raises `RunError` where it is damaged."""
    try:
        with safe_open(file, "pt") as handle:
            header = handle.metadata()
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        intact = int(header["crc32"]) == _checksum(tensors, header["position"])
        position = json.loads(header["position"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(file, str(error)) from error
    if not intact:
        raise _damaged(file, "its checksum does not match")
    return tensors, position


def _damaged(file: Path, reason: str) -> RunError:
    return RunError(
        f"the checkpoint {file} is damaged ({reason}); restore it, or remove {file.parent} and repeat the command to "
        "train from the start."
    )


def _checksum(tensors: Mapping[str, Tensor], position: str) -> int:
    value = zlib.crc32(position.encode())
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(tensors[name].numpy().data, value)
    return value


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `prefix` before their names."""
    return {prefix + name: t for name, t in tensors.items()}


def unprefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
