"""Tokenize texts into one flat array of token ids per split, without a Python object per token."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizerBase

from demiglace.data.rows.schema import Split
from demiglace.errors import ModelError
from demiglace.tasks.classification import UNLABELLED


@dataclass(frozen=True)
class TokenizedSplit:
    """A tokenized split of N rows."""

    ids: np.ndarray  # int32 [sum of lengths]
    offsets: np.ndarray  # int64 [N + 1]; row i is ids[offsets[i]:offsets[i + 1]]
    type_ids: np.ndarray | None  # int8, as ids; None for tokenizers without segments
    labels: np.ndarray  # [N, ...], as in `Split`
    pad_id: int
    pad_left: bool
    starts: np.ndarray | None = None  # int32 [N, W], where words have labels: the first token of each, −1 for none

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each row, int64 [N]."""
        return np.diff(self.offsets)

    @property
    def labelled(self) -> np.ndarray:
        """Return which rows, bool [N], or words that have a token, bool [N, W], have a label."""
        if self.starts is not None:
            return (self.labels >= 0) & (self.starts >= 0)
        known = ~np.isnan(self.labels) if self.labels.dtype.kind == "f" else self.labels >= 0
        return np.any(known.reshape(len(known), -1), axis=1)

    @property
    def units(self) -> np.ndarray:
        """Return how many vectors of logits each row has, int64 [N]: 1, or its words that have a token."""
        return np.ones(len(self), dtype=np.int64) if self.starts is None else (self.starts >= 0).sum(axis=1)

    @property
    def num_words(self) -> int:
        """Return the number of words that have a label."""
        return int((self.labels >= 0).sum())

    @property
    def lost_words(self) -> int:
        """Return how many of them have no token, so that a model has no logits for them."""
        return self.num_words - int(self.labelled.sum())

    def lost_words_line(self, max_length: int | None) -> str | None:
        """Return a sentence about words without a token, or None where there are none, or rows have the labels."""
        if self.starts is None or not self.lost_words:
            return None
        cut = self.lengths[((self.labels >= 0) & (self.starts < 0)).any(axis=1)] >= (max_length or math.inf)
        return (
            f"{self.lost_words:,} of {self.num_words:,} words, in {len(cut):,} rows, have no token; {cut.sum():,} of "
            f"these rows are cut at --max-length {max_length}. They are neither trained on nor predicted, and "
            "metrics count their entities as missed."
        )

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the token ids and offsets, without labels, as 16 hex digits."""
        digest = hashlib.sha256(self.ids.tobytes())
        digest.update(self.offsets.tobytes())
        if self.type_ids is not None:
            digest.update(self.type_ids.tobytes())
        if self.starts is not None:
            digest.update(self.starts.tobytes())
        return digest.hexdigest()[:16]


def tokenize(split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> TokenizedSplit:
    """Tokenize every row, truncated to `max_length` tokens (the longer text of a pair first); None: not truncated.

    Of a split with words, `starts` has the first token of each. Raises `ModelError` for such a split and a tokenizer
    that does not return the characters of tokens.
    """
    if split.words is not None:
        return _tokenize_words(split, split.words, tokenizer, max_length)
    encoded = tokenizer(
        list(split.texts),
        None if split.pairs is None else list(split.pairs),
        truncation="longest_first" if max_length else False,
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,
    )
    return _packed(split, encoded, tokenizer)


def _packed(split: Split, encoded: BatchEncoding, tokenizer: PreTrainedTokenizerBase) -> TokenizedSplit:
    rows: list[list[int]] = encoded["input_ids"]
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


def _tokenize_words(
    split: Split, words: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> TokenizedSplit:
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} is a slow tokenizer, which does not return the characters of each token; "
            "labels of words need a fast one (a tokenizer.json beside the model)."
        )
    # Not is_split_into_words: byte-level and SentencePiece tokenizers then join the words without a space (transformers
    # 5), as no model has read them. The offsets of the joined text give the same tokens as any text.
    encoded = tokenizer(
        list(split.texts),
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        return_offsets_mapping=True,
    )
    width = max(split.labels.shape[1], *map(len, words))
    starts = np.full((len(words), width), -1, dtype=np.int32)
    for row, own, offsets in zip(starts, words, encoded["offset_mapping"], strict=True):
        numbers, tokens = _first_tokens(own, np.asarray(offsets, dtype=np.int64).reshape(-1, 2))
        row[numbers] = tokens
    missing = starts.shape[1] - split.labels.shape[1]  # rows without labels have none for their words
    labels = np.pad(split.labels, ((0, 0), (0, missing)), constant_values=UNLABELLED)
    return replace(_packed(split, encoded, tokenizer), labels=labels, starts=starts)


def _first_tokens(words: Sequence[str], offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the words that have a token, and the first token of each, from the tokens' characters [L, 2].

    The characters are those of the words joined by spaces; special tokens have none.
    """
    begins = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1]
    tokens = np.flatnonzero(offsets[:, 1] > offsets[:, 0])
    last = offsets[tokens, 1] - 1  # a token may begin with the space before its word
    numbers, first = np.unique(np.searchsorted(begins, last, side="right") - 1, return_index=True)
    return numbers, tokens[first]


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
        starts=None if examples.starts is None else examples.starts[rows],
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
        labels=_stack(first.labels, second.labels, UNLABELLED),
        pad_id=first.pad_id,
        pad_left=first.pad_left,
        starts=None if first.starts is None or second.starts is None else _stack(first.starts, second.starts, -1),
    )


def _stack(first: np.ndarray, second: np.ndarray, fill: int) -> np.ndarray:
    """Return the rows of both arrays; of two dimensions, the narrower one is filled up."""
    if first.ndim == 1:
        return np.concatenate([first, second])
    width = max(first.shape[1], second.shape[1])
    parts = (np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=fill) for a in (first, second))
    return np.concatenate(list(parts))
