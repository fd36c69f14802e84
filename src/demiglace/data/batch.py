"""`Batch`: the input of one forward pass."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The B rows of one forward pass, padded to L tokens."""

    input_ids: Tensor  # int64 [B, L]
    attention_mask: Tensor  # int64 [B, L]
    token_type_ids: Tensor | None  # int64 [B, L]
    labels: Tensor  # [B, ...]; of words int64 [B, W]; of a language model int64 [B, K], the tokens to predict
    labelled: Tensor  # bool [B] or [B, W], rows or words that have a label
    weights: Tensor  # float32 [B], 1 for a real row, 0 for a filler
    rows: np.ndarray  # int64 [B], indices of the rows in their split; on the CPU
    positions: Tensor | None = None  # int64 [B, K], where the K labels are predicted; None: at every position
    words: Tensor | None = None  # int64 [B, W], where words have labels: the first token of each, −1 for none

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Return the keyword arguments of a model's forward."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.token_type_ids is not None:
            inputs["token_type_ids"] = self.token_type_ids
        return inputs

    @cached_property
    def word_index(self) -> tuple[Tensor, Tensor]:
        """Return the row, and the number in the row, of each of the U words that have a token, int64 [U] both."""
        assert self.words is not None
        rows, numbers = (self.words >= 0).nonzero(as_tuple=True)
        return rows, numbers

    def unit_rows(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the index of the logits of the batch in an array [N, C] or [N, W, C], where its rows are `rows`."""
        if self.words is None:
            return (rows,)
        of_batch, numbers = (index.cpu().numpy() for index in self.word_index)
        return rows[of_batch], numbers

    def unit_logits(self, logits: Tensor) -> Tensor:
        """Return logits [B, C] as they are; of [B, L, C] those at the first token of each word, [U, C]."""
        if self.words is None:
            return logits
        rows, numbers = self.word_index
        return logits[rows, self.words[rows, numbers]]

    @property
    def units(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return labels, weights and whether there is a label, of each row [B, ...] or of each word [U]."""
        if self.words is None:
            return self.labels, self.weights, self.labelled
        rows, _ = self.word_index
        return self.labels[self.word_index], self.weights[rows], self.labelled[self.word_index]
