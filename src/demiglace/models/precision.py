"""Number format and attention kernel: what is fast on the present hardware."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "fp32"]
Attention = Literal["auto", "eager", "sdpa"]
_NARROW = 256  # below this hidden size bf16 autocast is slower than fp32 on a CPU (measured)


def choose_precision(precision: Precision, hidden_size: int, device: torch.device) -> Literal["bf16", "fp32"]:
    """bf16 where the device computes faster in it and the model is wide enough to gain."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if hidden_size >= _NARROW and _cpu_gains_by_bf16() else "fp32"


def _cpu_gains_by_bf16() -> bool:
    """Whether products of bf16 matrices are faster than fp32 ones on this processor.

    With AMX they are. With AVX512-BF16 alone they take 0.45 × the time on AMD's Zen 4, but 1.7 × on Intel's Xeons,
    which claim the same instruction (both measured). A rule and not a measurement: a resumed run must choose alike.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and "AuthenticAMD" in _cpu_info()


def _cpu_info() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text(errors="replace") if file.exists() else ""


def choose_attention(attention: Attention, precision: str, dropout: float, device: torch.device) -> str:
    """Eager attention is faster in bf16 on a CPU while nothing drops out; sdpa everywhere else (measured)."""
    if attention != "auto":
        return attention
    return "eager" if device.type == "cpu" and precision == "bf16" and dropout == 0 else "sdpa"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The autocast context of a chosen precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
