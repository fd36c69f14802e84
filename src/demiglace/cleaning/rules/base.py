"""The interface of rules: options, and a function from texts to new texts, measurements and removed lines."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from demiglace.cleaning.text_arrays import Texts


@dataclass(frozen=True)
class Measurement:
    """One number per text, and the bounds that it must satisfy; without bounds it counts changes to the text."""

    name: str
    values: np.ndarray  # [N]
    at_least: float | None = None
    at_most: float | None = None
    binary: bool = False  # the values are 0 or 1, so that no kept text is closer to the bound than another

    @property
    def bounds(self) -> list[float]:
        """Return the bounds that are set."""
        return [b for b in (self.at_least, self.at_most) if b is not None]

    @cached_property
    def passed(self) -> np.ndarray:
        """Return which texts satisfy the bounds, bool [N]."""
        low = True if self.at_least is None else self.values >= self.at_least
        high = True if self.at_most is None else self.values <= self.at_most
        return np.broadcast_to(np.logical_and(low, high), self.values.shape)

    def violated_bound(self, text: int) -> float | None:
        """Return the bound that a text violates."""
        low = self.at_least is not None and not self.values[text] >= self.at_least
        return self.at_least if low else self.at_most


@dataclass(frozen=True)
class RemovedLines:
    """Lines that a rule removed; each column is [R]."""

    text: np.ndarray  # index of the text in the batch
    line: np.ndarray  # index of the line in the text, from 0
    reason: Sequence[str]
    content: Sequence[str]
    value: np.ndarray  # the measured value
    threshold: np.ndarray  # the bound that the value violates
    first: np.ndarray | None = None  # number of the document with the first copy, for rules that remove repetitions

    def __len__(self) -> int:
        return len(self.text)


NO_LINES = RemovedLines(np.zeros(0, np.int64), np.zeros(0, np.int64), (), (), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class RuleResult:
    """The result of a rule on a batch of N texts."""

    texts: Sequence[str]  # [N]; an unchanged text is the same object
    measurements: tuple[Measurement, ...] = ()
    removed: RemovedLines = NO_LINES
    first: np.ndarray | None = None  # [N]; number of the earlier document of which a dropped text is a copy

    @property
    def keep(self) -> np.ndarray:
        """Return which texts satisfy all bounds, bool [N]."""
        kept = np.ones(len(self.texts), bool)
        for measure in self.measurements:
            kept &= measure.passed
        return kept


class Rule(ABC):
    """A rule that looks at each text separately; a frozen dataclass whose fields are its thresholds."""

    name: ClassVar[str]

    @abstractmethod
    def apply(self, texts: Texts) -> RuleResult:
        """Apply the rule to a batch of texts."""

    def check(self) -> None:  # noqa: B027  (most rules have nothing to check)
        """Raise `ConfigError` for options that are invalid together, or invalid for the installed models."""

    def __call__(self, texts: Sequence[str]) -> RuleResult:
        """Apply the rule to a list of texts."""
        return self.apply(Texts(texts))
