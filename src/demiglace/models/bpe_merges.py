"""The merges of a byte-pair encoding: which of them build a token, so that a smaller vocabulary still reaches it."""

from collections.abc import Container, Mapping
from itertools import pairwise
from typing import Any


class Merges:
    """The merges of a BPE model of tokenizer.json, each a pair of tokens and, by its place in the list, its rank."""

    def __init__(self, model: Mapping[str, Any]):
        """Read the merges. model: the object `model` of tokenizer.json."""
        self.pairs: list[tuple[str, str]] = [_pair(merge) for merge in model["merges"]]
        self._ranks = {pair: rank for rank, pair in enumerate(self.pairs)}
        self._prefix = model.get("continuing_subword_prefix") or ""
        self._suffix = model.get("end_of_word_suffix") or ""

    def parts(self, token: str) -> set[str]:
        """Return a token and all tokens that are merged on the way to it; only the token if no merges lead to it.

        They are those of the encoding of the token alone. In a longer word the same merges make it: a merge inside of a
        final token never depends on what is outside of it, since pairs across its border are never merged.
        """
        symbols, seen = self._symbols(token), {token}
        seen.update(symbols)
        while len(symbols) > 1:
            ranks = [self._ranks.get(pair, len(self.pairs)) for pair in pairwise(symbols)]
            best = min(ranks)
            if best == len(self.pairs):
                return {token}
            at = ranks.index(best)
            symbols[at : at + 2] = [self._joined(*symbols[at : at + 2])]
            seen.add(symbols[at])
        return seen

    def among(self, tokens: Container[str]) -> list[tuple[str, str]]:
        """Return the merges, in their order, of which both tokens and the result are among `tokens`."""
        return [pair for pair in self.pairs if all(t in tokens for t in (*pair, self._joined(*pair)))]

    def _symbols(self, token: str) -> list[str]:
        """Return the characters of a token as the encoding starts with them."""
        is_inner = bool(self._prefix) and token.startswith(self._prefix)
        body = token.removeprefix(self._prefix) if is_inner else token
        ends = bool(self._suffix) and body.endswith(self._suffix)
        symbols = list(body.removesuffix(self._suffix) if ends else body)
        symbols = [(self._prefix if i or is_inner else "") + symbol for i, symbol in enumerate(symbols)]
        return [*symbols[:-1], symbols[-1] + (self._suffix if ends else "")] if symbols else [token]

    def _joined(self, left: str, right: str) -> str:
        return left + right[len(self._prefix) :]


def _pair(merge: Any) -> tuple[str, str]:
    """Return the two tokens of a merge, which older files write as one text."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right
