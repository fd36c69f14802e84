"""`Batch`: the input of one forward pass."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The B rows of one forward pass, padded to L tokens."""

    input_ids: Tensor  # int64 [B, L]
    attention_mask: Tensor  # int64 [B, L]
    token_type_ids: Tensor | None  # int64 [B, L]
    labels: Tensor  # [B, ...]; of a language model int64 [B, K], the tokens to predict
    labelled: Tensor  # bool [B], rows that have a label
    weights: Tensor  # float32 [B], 1 for a real row, 0 for a filler
    rows: np.ndarray  # int64 [B], indices of the rows in their split; on the CPU
    positions: Tensor | None = None  # int64 [B, K], where the K labels are predicted; None: at every position

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Return the keyword arguments of a model's forward."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.token_type_ids is not None:
            inputs["token_type_ids"] = self.token_type_ids
        return inputs
