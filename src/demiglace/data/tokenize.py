"""Tokenize texts into one flat array of token ids per split, without a Python object per token."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from demiglace.data.rows.schema import Split


@dataclass(frozen=True)
class TokenizedSplit:
    """A tokenized split of N rows."""

    ids: np.ndarray  # int32 [sum of lengths]
    offsets: np.ndarray  # int64 [N + 1]; row i is ids[offsets[i]:offsets[i + 1]]
    type_ids: np.ndarray | None  # int8, as ids; None for tokenizers without segments
    labels: np.ndarray  # [N, ...], as in `Split`
    pad_id: int
    pad_left: bool

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each row, int64 [N]."""
        return np.diff(self.offsets)

    @property
    def labelled(self) -> np.ndarray:
        """Return which rows have a label, bool [N]."""
        known = ~np.isnan(self.labels) if self.labels.dtype.kind == "f" else self.labels >= 0
        return np.any(known.reshape(len(known), -1), axis=1)

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the token ids and offsets, without labels, as 16 hex digits."""
        digest = hashlib.sha256(self.ids.tobytes())
        digest.update(self.offsets.tobytes())
        if self.type_ids is not None:
            digest.update(self.type_ids.tobytes())
        return digest.hexdigest()[:16]


def tokenize(split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenizedSplit:
    """Tokenize every row, truncated to `max_length` tokens (the longer text of a pair first)."""
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
    """Return the rows with these indices, in this order."""
    parts = [slice(examples.offsets[i], examples.offsets[i + 1]) for i in rows]

    def take(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[part] for part in parts])

    return replace(
        examples,
        ids=take(examples.ids),
        offsets=np.concatenate([[0], np.cumsum(examples.lengths[rows])]),
        type_ids=None if examples.type_ids is None else take(examples.type_ids),
        labels=examples.labels[rows],
    )


def concatenate(first: TokenizedSplit, second: TokenizedSplit) -> TokenizedSplit:
    """Return the rows of both splits, those of `first` first."""
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
