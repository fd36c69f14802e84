"""What a method asks of a model, and what it gets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from demiglace.models.attention import AttentionInput
from demiglace.models.language_model import HeadInput
from demiglace.models.pooling import HiddenStateKind


@dataclass(frozen=True)
class SignalRequest:
    """Which signals a model is asked for.

    hidden: (pooling, layer) pairs, "tokens" for every token's state; layer 0 is the embeddings' output, layer i the
    output of the i-th layer, taken before any final norm of the model. attention: (input, layer) pairs of the vectors
    that go into the attention of layer i, from which maps and relations are made without asking the model for them.
    """

    logits: bool = False
    hidden: frozenset[tuple[HiddenStateKind, int]] = frozenset()
    attention: frozenset[tuple[AttentionInput, int]] = frozenset()

    def __or__(self, other: "SignalRequest") -> "SignalRequest":
        return SignalRequest(self.logits or other.logits, self.hidden | other.hidden, self.attention | other.attention)

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.logits or self.hidden or self.attention)

    @property
    def cacheable(self) -> bool:
        """Whether it is a few vectors a row, which a disk can hold; what is kept for every token is asked anew."""
        return not self.attention and "tokens" not in self.poolings

    @property
    def poolings(self) -> tuple[HiddenStateKind, ...]:
        """The poolings that occur, sorted."""
        return tuple(sorted({pooling for pooling, _ in self.hidden}))


def hidden_request(pooling: HiddenStateKind, layers: Iterable[int]) -> SignalRequest:
    """A request for these layers' hidden states, pooled."""
    return SignalRequest(hidden=frozenset((pooling, layer) for layer in layers))


def attention_request(inputs: Iterable[AttentionInput], layers: Iterable[int]) -> SignalRequest:
    """A request for these inputs of these layers' attention."""
    layers = tuple(layers)
    return SignalRequest(attention=frozenset((kind, layer) for kind in inputs for layer in layers))


@dataclass(frozen=True)
class SparseLogits:
    """Some tokens in the place of a distribution over all of them.

    ids: int64 [..., K], a token may be there several times; weights: float32 [..., K], which add up to 1; entropy:
    float32 [...], in nats, of the distribution that they stand for.
    """

    ids: Tensor
    weights: Tensor
    entropy: Tensor

    def at(self, places: Tensor | None) -> "SparseLogits":
        """One distribution after another, [N, K]. They are of all places of a row, so none can be named."""
        assert places is None
        return SparseLogits(self.ids.flatten(0, -2), self.weights.flatten(0, -2), self.entropy.flatten())

    def __getitem__(self, part: slice) -> "SparseLogits":
        """Some of the distributions."""
        return SparseLogits(self.ids[part], self.weights[part], self.entropy[part])


@dataclass(frozen=True)
class Signals:
    """What a model said of a batch.

    logits: [B, C]; states: (pooling, layer) to [B, d], or [B, L, d] for "tokens"; attention: (input, layer) to
    [B, L, heads · d_h], the heads side by side; mask: [B, L], 1 for real tokens, where anything is kept for every
    token; head: of a language model in the place of logits, what makes them, hidden [B, L, d], or what is left of them
    in a cache, [B, L, K].
    """

    logits: Tensor | None = None
    states: dict[tuple[HiddenStateKind, int], Tensor] = field(default_factory=dict)
    attention: dict[tuple[AttentionInput, int], Tensor] = field(default_factory=dict)
    mask: Tensor | None = None
    head: HeadInput | SparseLogits | None = None

    def hidden(self, pooling: HiddenStateKind, layers: Sequence[int]) -> Tensor:
        """The hidden states of these layers in this order, float32 [B, len(layers), d]; "tokens": [B, n, L, d]."""
        return torch.stack([self.states[pooling, layer] for layer in layers], dim=1).float()
