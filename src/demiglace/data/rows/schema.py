"""The rows of a data set after reading and checking, before tokenising."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Problem = Literal["classification", "regression"]
UNLABELLED = -100  # class id of a row without a label; a regression row without one holds NaN


@dataclass(frozen=True)
class LabelSpace:
    """What the labels are: class names in the order of their ids, or numbers (`names` empty)."""

    problem: Problem
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Width of the model's output, C: the number of classes, or 1."""
        return len(self.names) if self.problem == "classification" else 1


@dataclass(frozen=True)
class Split:
    """Rows of one split.

    texts: N first texts; pairs: N second texts, or none; labels: int64 [N] class ids or float32 [N] numbers, with
    `UNLABELLED` or NaN where a row has none; lines: where each row was read, as (file, line number from 1); groups: the
    part of the set that each row is of, where results are told for the parts too.
    """

    name: str
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: np.ndarray
    lines: Sequence[tuple[str, int]]
    groups: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """A data set ready to be tokenised.

    splits: "train", "validation" and, where there is one, "test"; metrics: names in `evaluation.metrics.METRICS`,
    the deciding one first; drops: reason -> number of rows left out; fingerprint: of rows, labels and their order;
    unread: splits that `holdout_from_train` leaves out, since results are reported on them; hub: of a named task, where
    the Hugging Face hub has it: path and configuration.
    """

    name: str
    labels: LabelSpace
    splits: Mapping[str, Split]
    metrics: tuple[str, ...]
    fingerprint: str
    drops: Mapping[str, int] = field(default_factory=dict)
    unread: Sequence[Split] = ()
    hub: tuple[str, str | None] | None = None
