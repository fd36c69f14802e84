"""The texts that a model reads one at a time: rows, or for some kinds of problem each text of a pair."""

import numpy as np

from demiglace.data.rows.schema import Split
from demiglace.tasks.base import RowTask


def units_of(split: Split, task: RowTask) -> Split:
    """Return the rows of a split, or for a kind with `separate_texts` rows of one text each.

    Of each pair, the first text comes first; both have its label.
    """
    if split.pairs is None or not task.separate_texts:
        return split
    texts = [text for pair in zip(split.texts, split.pairs, strict=True) for text in pair]
    twice = np.repeat(np.arange(len(split)), 2).tolist()
    return Split(split.name, texts, None, split.labels[twice], [split.lines[i] for i in twice])


def outputs_of_rows(split: Split, logits: np.ndarray) -> np.ndarray:
    """Return the logits of rows from those of `units_of`: [N, T · C] from [N · T, C], if rows have T texts."""
    return logits if len(logits) == len(split) else logits.reshape(len(split), -1)
