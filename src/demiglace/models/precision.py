"""Choose the precision and attention kernel that are fastest on the hardware."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch

from demiglace.errors import ConfigError

Precision = Literal["auto", "bf16", "fp16", "fp32"]
Attention = Literal["auto", "eager", "sdpa"]
_NARROW = 256  # below this hidden size bf16 autocast is slower than fp32 on a CPU (measured)


AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The number format of a precision's matrix products."""


def choose_precision(precision: Precision, hidden_size: int, device: torch.device) -> Literal["bf16", "fp16", "fp32"]:
    """Return the precision; for `auto`, bf16 if it is faster on the device and the model is wide enough, else fp32.

    Raises `ConfigError` for fp16 on a CPU.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            "--precision fp16 was given, which is for GPUs, and PyTorch finds no GPU here; give --precision bf16 or "
            "fp32, or leave it out."
        )
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if hidden_size >= _NARROW and _is_bf16_faster_on_cpu() else "fp32"


def _is_bf16_faster_on_cpu() -> bool:
    """Return whether bf16 matrix products are faster than fp32 ones on this processor.

    With AMX they are. With AVX512-BF16 alone they take 0.45 × the time on AMD's Zen 4, but 1.7 × on Intel's Xeons with
    the same instruction (both measured). This is a fixed rule, not a measurement, so that a resumed run chooses the
    same.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and "AuthenticAMD" in _cpu_info()


def _cpu_info() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text(errors="replace") if file.exists() else ""


def choose_attention(attention: Attention, precision: str, dropout: float, device: torch.device) -> str:
    """Return the attention kernel; for `auto`, eager in bf16 on a CPU without dropout, else sdpa (measured)."""
    if attention != "auto":
        return attention
    return "eager" if device.type == "cpu" and precision == "bf16" and dropout == 0 else "sdpa"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the autocast context of a precision: bf16, fp16 or fp32."""
    return torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()
