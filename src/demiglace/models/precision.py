"""Number format and attention kernel: what is fast on the present hardware."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "fp32"]
Attention = Literal["auto", "eager", "sdpa"]
_NARROW = 256  # below this hidden size bf16 autocast is slower than fp32 on a CPU (measured)


def choose_precision(precision: Precision, hidden_size: int, device: torch.device) -> Literal["bf16", "fp32"]:
    """bf16 where the device computes in it and the model is wide enough to gain."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native and hidden_size >= _NARROW else "fp32"


def choose_attention(attention: Attention, precision: str, dropout: float, device: torch.device) -> str:
    """Eager attention is faster in bf16 on a CPU while nothing drops out; sdpa everywhere else (measured)."""
    if attention != "auto":
        return attention
    return "eager" if device.type == "cpu" and precision == "bf16" and dropout == 0 else "sdpa"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The autocast context of a chosen precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
