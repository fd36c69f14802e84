"""The peers' batches: rows in random order, drawn by torch's own loader."""

import numpy as np
import torch
from entry import Entry
from material import Race, model_inputs
from torch.utils.data import DataLoader

from demiglace.data.tokenize import TokenizedSplit


def collate_rows(examples: TokenizedSplit, padding: int | None):
    """What makes a batch of row numbers."""
    return lambda rows: model_inputs(examples, np.asarray(rows), padding)


def batches(examples: TokenizedSplit, race: Race, entry: Entry) -> DataLoader:
    """Random batches, padded as the entry says; every epoch in another order."""
    order = torch.Generator().manual_seed(race.seed)
    collate = collate_rows(examples, entry.padding)
    return DataLoader(range(len(examples)), race.batch_size, shuffle=True, generator=order, collate_fn=collate)
