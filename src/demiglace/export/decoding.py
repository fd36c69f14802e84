"""Generate text one token at a time with a KV cache: the protocol of decoders, a greedy loop, and its timing.

The file imports nothing heavy, since the process that measures imports it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_WARM_UP = 1  # untimed rounds at the start, for caches, memory arenas and thread pools


class Decoder(Protocol):
    """An opened causal language model with a KV cache, for one text at a time."""

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Start a text with these tokens. Return the logits of the token after them, float32 [V]."""
        ...

    def decode(self, token: int) -> np.ndarray:
        """Append a token to the text. Return the logits of the token after it, float32 [V]."""
        ...


@dataclass(frozen=True)
class Load:
    """The work that is timed: in each round one prompt is read and one continuation is written."""

    prompt: tuple[int, ...]  # ids of its tokens
    new_tokens: int
    rounds: int
    threads: int = 1


@dataclass(frozen=True)
class Speed:
    """Tokens per second at batch 1, each the median over rounds."""

    prefill: float  # tokens of the prompt per second, until the logits of the first new token
    decode: float  # new tokens per second


def generate_greedily(decoder: Decoder, prompt: Sequence[int], new_tokens: int) -> list[int]:
    """Return the ids of the most likely continuation; an end-of-text token does not end it."""
    token = int(decoder.prefill(prompt).argmax())
    tokens = [token]
    for _ in range(new_tokens - 1):
        token = int(decoder.decode(token).argmax())
        tokens.append(token)
    return tokens


def time_decoder(decoder: Decoder, load: Load) -> Speed:
    """Time a decoder on a load, after one untimed round."""
    prefill, decode = [], []
    for _ in range(_WARM_UP + load.rounds):
        start = time.perf_counter()
        token = int(decoder.prefill(load.prompt).argmax())
        middle = time.perf_counter()
        for _ in range(load.new_tokens):
            token = int(decoder.decode(token).argmax())
        prefill.append(middle - start)
        decode.append(time.perf_counter() - middle)
    return speed_of(load, prefill[_WARM_UP:], decode[_WARM_UP:])


def speed_of(load: Load, prefill: Sequence[float], decode: Sequence[float]) -> Speed:
    """Return the median speeds; prefill, decode: seconds of each round."""
    return Speed(
        round(len(load.prompt) / float(np.median(prefill)), 2), round(load.new_tokens / float(np.median(decode)), 2)
    )
