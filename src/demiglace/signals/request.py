"""Signals of a model: the request of a method, and the result."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from demiglace.models.attention import AttentionInput
from demiglace.models.language_model import HeadInput
from demiglace.models.pooling import HiddenStateKind


@dataclass(frozen=True)
class SignalRequest:
    """The signals that are requested of a model."""

    logits: bool = False
    # (pooling, layer) pairs, with "tokens" for the states of every token; layer 0 is the output of the embeddings,
    # layer i the output of the i-th layer, before any final norm of the model
    hidden: frozenset[tuple[HiddenStateKind, int]] = frozenset()
    # (input, layer) pairs: the queries, keys or values of layer i, from which attention maps and relations are computed
    attention: frozenset[tuple[AttentionInput, int]] = frozenset()

    def __or__(self, other: "SignalRequest") -> "SignalRequest":
        return SignalRequest(self.logits or other.logits, self.hidden | other.hidden, self.attention | other.attention)

    @property
    def is_empty(self) -> bool:
        """Return whether no signal is requested."""
        return not (self.logits or self.hidden or self.attention)

    @property
    def is_cacheable(self) -> bool:
        """Return whether the signals are a few vectors for each row; those of every token are too large for a disk."""
        return not self.attention and "tokens" not in self.poolings

    @property
    def poolings(self) -> tuple[HiddenStateKind, ...]:
        """Return the requested poolings, sorted."""
        return tuple(sorted({pooling for pooling, _ in self.hidden}))


def hidden_request(pooling: HiddenStateKind, layers: Iterable[int]) -> SignalRequest:
    """Return a request for the pooled hidden states of these layers."""
    return SignalRequest(hidden=frozenset((pooling, layer) for layer in layers))


def attention_request(inputs: Iterable[AttentionInput], layers: Iterable[int]) -> SignalRequest:
    """Return a request for these attention inputs of these layers."""
    layers = tuple(layers)
    return SignalRequest(attention=frozenset((kind, layer) for kind in inputs for layer in layers))


@dataclass(frozen=True)
class SparseLogits:
    """Distributions over the vocabulary, each represented by K tokens."""

    ids: Tensor  # int64 [..., K]; a token may occur several times
    weights: Tensor  # float32 [..., K], with sum 1
    entropy: Tensor  # of the represented distributions, in nats, float32 [...]

    def at(self, positions: Tensor | None) -> "SparseLogits":
        """Return the distributions as [N, K]. They cover all positions of a row, so `positions` must be None."""
        assert positions is None
        return SparseLogits(self.ids.flatten(0, -2), self.weights.flatten(0, -2), self.entropy.flatten())

    def __getitem__(self, part: slice) -> "SparseLogits":
        """Return a slice of the distributions."""
        return SparseLogits(self.ids[part], self.weights[part], self.entropy[part])


@dataclass(frozen=True)
class Signals:
    """The signals of a model for a batch."""

    logits: Tensor | None = None  # float32 [B, C]; of words [U, C], as `Batch.unit_logits` orders them
    # (pooling, layer) to [B, d], or to [B, L, d] for "tokens"
    states: dict[tuple[HiddenStateKind, int], Tensor] = field(default_factory=dict)
    # (input, layer) to [B, L, heads · d_h], the heads concatenated
    attention: dict[tuple[AttentionInput, int], Tensor] = field(default_factory=dict)
    mask: Tensor | None = None  # [B, L], 1 for real tokens; set if anything is kept for every token
    # for a language model, instead of logits: the input of its head, hidden [B, L, d], or cached tokens [B, L, K]
    head: HeadInput | SparseLogits | None = None

    def hidden(self, pooling: HiddenStateKind, layers: Sequence[int]) -> Tensor:
        """Return the hidden states of n layers in this order, float32 [B, n, d]; [B, n, L, d] for "tokens"."""
        return torch.stack([self.states[pooling, layer] for layer in layers], dim=1).float()
