"""What one forward pass is given."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass.

    input_ids, attention_mask, token_type_ids: int64 [B, L]; labels: [B], or of a language model int64 [B, K], the
    tokens to predict; labelled: bool [B]; weights: float32 [B], 1 for a row that counts and 0 for a filler; rows: int64
    [B] on the CPU, the rows' numbers; places: int64 [B, K], where in a row the K labels are, or none: at every place.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None
    labels: Tensor
    labelled: Tensor
    weights: Tensor
    rows: np.ndarray
    places: Tensor | None = None

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a model's forward takes."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.token_type_ids is not None:
            inputs["token_type_ids"] = self.token_type_ids
        return inputs
