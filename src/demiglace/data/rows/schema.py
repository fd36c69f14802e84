"""The rows of a data set after reading and checking, before tokenising."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from demiglace.tasks.base import RowTask

AGREEMENT = "agreement"  # the metric of a split without labels: how well a student matches its teacher


@dataclass(frozen=True)
class LabelSpace:
    """What the labels of a data set mean."""

    task: RowTask  # the kind of problem
    names: tuple[str, ...] = ()  # label names in the order of their ids; empty for numbers

    @property
    def size(self) -> int:
        """Return the width of the model's output, C."""
        return self.task.head_width(self.names)


@dataclass(frozen=True)
class Split:
    """N rows of one split."""

    name: str
    texts: Sequence[str]
    pairs: Sequence[str] | None  # second texts, if rows are pairs
    labels: np.ndarray  # [N, ...] as the kind of problem encodes them, with its `no_label` for a row without one
    lines: Sequence[tuple[str, int]]  # where each row was read: file, line number from 1
    groups: Sequence[str] | None = None  # the part of the set that each row belongs to, if results are split by part
    words: Sequence[Sequence[str]] | None = None  # of each row, if each word has a label; a text joins them by spaces

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """A data set ready to be tokenized."""

    name: str
    labels: LabelSpace
    splits: Mapping[str, Split]  # "train", "validation" and, if there is one, "test"
    metrics: tuple[str, ...]  # names in the kind's `metrics`, or AGREEMENT; the first selects the best epoch
    fingerprint: str  # of rows, labels and their order
    drops: Mapping[str, int] = field(default_factory=dict)  # reason -> number of rows left out
    unused_splits: Sequence[Split] = ()  # splits that `tune` keeps for the final results
    hub: tuple[str, str | None] | None = None  # on the Hugging Face hub: path and configuration
    revision: str | None = None  # of a data set that is named by its address on the hub: the commit
    labelled: bool = True  # False for texts alone: no split has labels, and the label space is a teacher's
