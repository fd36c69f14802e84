"""Blocks: a corpus split into rows of equal length, with the tokens that a language model predicts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from demiglace.data.batch import Batch
from demiglace.data.text.token_shards import Corpus
from demiglace.errors import DataError

_KEEP_PROB, _RANDOM_PROB = 0.1, 0.1  # of the selected positions: keep the token, or replace it by a random one


@dataclass(frozen=True)
class Masking:
    """Masked language modelling (Devlin et al. 2019, arXiv 1810.04805).

    Of the selected positions 80 % are masked, 10 % get a random token and 10 % keep the original one. The selection
    differs in each epoch (dynamic masking, Liu et al. 2019, arXiv 1907.11692).
    """

    share: float  # of the positions that are predicted
    mask_id: int  # of the mask token
    vocabulary: tuple[int, int]  # random tokens have first ≤ id < end
    seed: int


@dataclass(frozen=True)
class Blocks:
    """N rows of equal length from a corpus.

    Without masking, the label of a token is the next token. So the corpus has one more token after each row, and every
    token but the first of the corpus is predicted once. A beginning token replaces the first token of a row in the
    input, and all the same tokens are predicted.
    """

    corpus: Corpus
    size: int  # tokens per row
    numbers: np.ndarray  # int64 [N]; row i begins at token numbers[i] · size
    masking: Masking | None = None  # None for causal language models
    begin: int | None = None  # beginning-of-text token of a causal model, which each row then begins with

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each row, int64 [N]."""
        return np.broadcast_to(np.int64(self.size), len(self))

    @property
    def labelled(self) -> np.ndarray:
        """Return True for every row, bool [N], since each contains its labels."""
        return np.broadcast_to(np.True_, len(self))

    @property
    def units(self) -> np.ndarray:
        """Return 1 for every row, int64 [N]: its loss is the mean over its tokens."""
        return np.broadcast_to(np.int64(1), len(self))

    @property
    def num_targets(self) -> int:
        """Return the number of tokens of a row that are predicted."""
        return self.size if self.masking is None else max(1, round(self.masking.share * self.size))

    @property
    def lines(self) -> "BlockLocations":
        """Return the location of each row, for messages."""
        return BlockLocations(self)

    def batch(self, rows: np.ndarray, device: torch.device | str, weight: float, epoch: int) -> Batch:
        """Return the batch of these rows; the masks are a function of (seed, epoch, row)."""
        starts = self.numbers[rows] * self.size
        tokens = np.stack([self.corpus.read(int(s), int(s) + self.size + 1) for s in starts])
        ids, positions, labels = tokens[:, :-1], None, tokens[:, 1:]
        if self.begin is not None:
            ids = np.concatenate([np.full((len(ids), 1), self.begin), ids[:, 1:]], axis=1)
        if self.masking is not None:
            ids, positions, labels = self._mask(ids.copy(), self.masking, rows, epoch)

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

        return Batch(
            input_ids=tensor(ids),
            attention_mask=torch.ones(ids.shape, dtype=torch.int64, device=device),
            token_type_ids=None,
            labels=tensor(labels),
            labelled=torch.ones(len(rows), dtype=torch.bool, device=device),
            weights=torch.full((len(rows),), weight, device=device),
            rows=rows,
            positions=None if positions is None else tensor(positions),
        )

    def _mask(
        self, ids: np.ndarray, masking: Masking, rows: np.ndarray, epoch: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the masked ids [B, L], the positions to predict [B, K] and the original ids there [B, K]."""
        positions = np.empty((len(rows), self.num_targets), dtype=np.int64)
        labels = np.empty_like(positions)
        for i, row in enumerate(rows):
            generator = np.random.default_rng((masking.seed, epoch, int(self.numbers[row])))
            positions[i] = np.sort(generator.choice(self.size, self.num_targets, replace=False))
            labels[i] = ids[i, positions[i]]
            draws, random_ids = (
                generator.random(self.num_targets),
                generator.integers(*masking.vocabulary, self.num_targets),
            )
            ids[i, positions[i]] = np.select(
                [draws < _KEEP_PROB, draws < _KEEP_PROB + _RANDOM_PROB], [labels[i], random_ids], masking.mask_id
            )
        return ids, positions, labels


class BlockLocations(Sequence[tuple[str, int]]):
    """The location of each row: (file, index of its first token in the file, from 1)."""

    def __init__(self, blocks: Blocks):
        self._blocks = blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, row: int) -> tuple[str, int]:  # type: ignore[override]
        source, token = self._blocks.corpus.locate(int(self._blocks.numbers[row]) * self._blocks.size)
        return f"{source}:token", token + 1

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return (self[row] for row in range(len(self)))


def all_blocks(corpus: Corpus, size: int, masking: Masking | None = None) -> Blocks:
    """Split a corpus into rows of `size` tokens; tokens after the last full row are not used.

    Raises `DataError` if the corpus has less than one row and the token after it.
    """
    count = (len(corpus) - 1) // size
    if count < 1:
        raise DataError(
            f"the corpus has {len(corpus):,} tokens, fewer than one block of {size} and one token to predict; give "
            "more text or a smaller --block-size."
        )
    return Blocks(corpus, size, np.arange(count), masking)


USUAL_BLOCK = 512  # tokens
