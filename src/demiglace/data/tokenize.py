"""Texts to token ids: one flat array for a split, no Python object per token."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from demiglace.data.rows.schema import Split


@dataclass(frozen=True)
class TokenizedSplit:
    """A tokenised split of N rows.

    ids: int32 [sum of lengths]; offsets: int64 [N + 1], row i is ids[offsets[i]:offsets[i + 1]]; type_ids: int8 like
    ids, or none for tokenizers without segments; labels: [N] as in `Split`; pad_id and pad_left: how to batch them.
    """

    ids: np.ndarray
    offsets: np.ndarray
    type_ids: np.ndarray | None
    labels: np.ndarray
    pad_id: int
    pad_left: bool

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 [N]."""
        return np.diff(self.offsets)

    @property
    def labelled(self) -> np.ndarray:
        """Which rows have a label, bool [N]."""
        return ~np.isnan(self.labels) if self.labels.dtype.kind == "f" else self.labels >= 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the token ids and their rows (16 hex digits); labels do not count."""
        digest = hashlib.sha256(self.ids.tobytes())
        digest.update(self.offsets.tobytes())
        if self.type_ids is not None:
            digest.update(self.type_ids.tobytes())
        return digest.hexdigest()[:16]


def tokenize(split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenizedSplit:
    """Tokenise every row, cut to `max_length` tokens (the longer text of a pair first)."""
    encoded = tokenizer(
        list(split.texts),
        None if split.pairs is None else list(split.pairs),
        truncation="longest_first",
        max_length=max_length,
        return_attention_mask=False,
    )
    rows = encoded["input_ids"]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(r) for r in rows], out=offsets[1:])
    types = encoded.get("token_type_ids")
    return TokenizedSplit(
        ids=_flat(rows, np.int32),
        offsets=offsets,
        type_ids=None if types is None else _flat(types, np.int8),
        labels=split.labels,
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        pad_left=tokenizer.padding_side == "left",
    )


def _flat(rows: list[list[int]], dtype: type) -> np.ndarray:
    return np.concatenate([np.asarray(r, dtype=dtype) for r in rows]) if rows else np.zeros(0, dtype)


def select(examples: TokenizedSplit, rows: Sequence[int] | np.ndarray) -> TokenizedSplit:
    """These rows, by number, in this order."""
    parts = [slice(examples.offsets[i], examples.offsets[i + 1]) for i in rows]

    def cut(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[part] for part in parts])

    return replace(
        examples,
        ids=cut(examples.ids),
        offsets=np.concatenate([[0], np.cumsum(examples.lengths[rows])]),
        type_ids=None if examples.type_ids is None else cut(examples.type_ids),
        labels=examples.labels[rows],
    )


def concatenate(first: TokenizedSplit, second: TokenizedSplit) -> TokenizedSplit:
    """The rows of both, those of `first` first."""
    types = None
    if first.type_ids is not None and second.type_ids is not None:
        types = np.concatenate([first.type_ids, second.type_ids])
    return TokenizedSplit(
        ids=np.concatenate([first.ids, second.ids]),
        offsets=np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        type_ids=types,
        labels=np.concatenate([first.labels, second.labels]),
        pad_id=first.pad_id,
        pad_left=first.pad_left,
    )
