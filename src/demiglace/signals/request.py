"""What a method asks of a model, and what it gets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from demiglace.models.pooling import Pooling


@dataclass(frozen=True)
class SignalRequest:
    """Which signals a model is asked for.

    hidden: (pooling, layer) pairs; layer 0 is the embeddings' output, layer i the output of the i-th layer, taken
    before any final norm of the model.
    """

    logits: bool = False
    hidden: frozenset[tuple[Pooling, int]] = frozenset()

    def __or__(self, other: "SignalRequest") -> "SignalRequest":
        return SignalRequest(self.logits or other.logits, self.hidden | other.hidden)

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for."""
        return not self.logits and not self.hidden

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """The poolings that occur, sorted."""
        return tuple(sorted({pooling for pooling, _ in self.hidden}))


def hidden_request(pooling: Pooling, layers: Iterable[int]) -> SignalRequest:
    """A request for these layers' pooled hidden states."""
    return SignalRequest(hidden=frozenset((pooling, layer) for layer in layers))


@dataclass(frozen=True)
class Signals:
    """What a model said of a batch. logits: [B, C]; states: (pooling, layer) to [B, d]."""

    logits: Tensor | None = None
    states: dict[tuple[Pooling, int], Tensor] = field(default_factory=dict)

    def hidden(self, pooling: Pooling, layers: Sequence[int]) -> Tensor:
        """The pooled hidden states of these layers in this order, float32 [B, len(layers), d]."""
        return torch.stack([self.states[pooling, layer] for layer in layers], dim=1).float()
