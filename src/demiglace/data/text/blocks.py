"""Blocks: a corpus cut into rows of equally many tokens, and what a model has to predict in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from demiglace.data.batch import Batch
from demiglace.data.text.token_shards import Corpus
from demiglace.errors import DataError

_KEEP_PROB, _RANDOM = 0.1, 0.1  # of the masked places: those that keep their token, and those that get another one


@dataclass(frozen=True)
class Masking:
    """Masked language modelling (Devlin et al. 2019, arXiv 1810.04805): which share of the places is to be predicted.

    Of those 80 % are masked, 10 % get a random token, 10 % stay. mask_id: the mask token's id; vocabulary: ids that a
    random token is drawn from, as (first, end); they are drawn anew each epoch (Liu et al. 2019, arXiv 1907.11692).
    """

    share: float
    mask_id: int
    vocabulary: tuple[int, int]
    seed: int


@dataclass(frozen=True)
class Blocks:
    """Rows of `size` tokens. numbers: int64 [N], row i is the tokens from numbers[i] · size on.

    Without masking a row's labels are its tokens' successors, so the corpus holds one token behind each row, and every
    token of a row but the corpus' first is predicted once.
    """

    corpus: Corpus
    size: int
    numbers: np.ndarray
    masking: Masking | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 [N]."""
        return np.broadcast_to(np.int64(self.size), len(self))

    @property
    def labelled(self) -> np.ndarray:
        """Every row tells what is to be predicted in it: bool [N]."""
        return np.broadcast_to(np.True_, len(self))

    @property
    def targets(self) -> int:
        """Tokens of a row that are predicted."""
        return self.size if self.masking is None else max(1, round(self.masking.share * self.size))

    @property
    def lines(self) -> "Places":
        """Where each row was read, for messages."""
        return Places(self)

    def batch(self, rows: np.ndarray, device: torch.device | str, weight: float, epoch: int) -> Batch:
        """The batch of these rows; which places are masked is a function of (seed, epoch, row)."""
        starts = self.numbers[rows] * self.size
        tokens = np.stack([self.corpus.read(int(s), int(s) + self.size + 1) for s in starts])
        ids, places, labels = tokens[:, :-1], None, tokens[:, 1:]
        if self.masking is not None:
            ids, places, labels = self._masked(ids.copy(), self.masking, rows, epoch)

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
            places=None if places is None else tensor(places),
        )

    def _masked(
        self, ids: np.ndarray, masking: Masking, rows: np.ndarray, epoch: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Perturbed ids [B, L], the places to predict [B, K] and what stood there [B, K]."""
        places = np.empty((len(rows), self.targets), dtype=np.int64)
        labels = np.empty_like(places)
        for i, row in enumerate(rows):
            generator = np.random.default_rng((masking.seed, epoch, int(self.numbers[row])))
            places[i] = np.sort(generator.choice(self.size, self.targets, replace=False))
            labels[i] = ids[i, places[i]]
            fate, drawn = generator.random(self.targets), generator.integers(*masking.vocabulary, self.targets)
            ids[i, places[i]] = np.select(
                [fate < _KEEP_PROB, fate < _KEEP_PROB + _RANDOM], [labels[i], drawn], masking.mask_id
            )
        return ids, places, labels


class Places(Sequence[tuple[str, int]]):
    """The file of each row, and which of its tokens the row begins with, counted from 1."""

    def __init__(self, blocks: Blocks):
        self._blocks = blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, row: int) -> tuple[str, int]:  # type: ignore[override]
        source, token = self._blocks.corpus.place(int(self._blocks.numbers[row]) * self._blocks.size)
        return f"{source}:token", token + 1

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return (self[row] for row in range(len(self)))


def all_blocks(corpus: Corpus, size: int, masking: Masking | None = None) -> Blocks:
    """A corpus cut into as many rows as it fills; the rest of less than a row is left out.

    Raises `DataError` where it fills none.
    """
    count = (len(corpus) - 1) // size
    if count < 1:
        raise DataError(
            f"the corpus has {len(corpus):,} tokens, fewer than one block of {size} and the token behind it; give more "
            "text or a smaller --block-size."
        )
    return Blocks(corpus, size, np.arange(count), masking)


USUAL_BLOCK = 512
