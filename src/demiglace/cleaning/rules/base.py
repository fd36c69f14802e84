"""What a rule is: options, and a function from a batch of texts to new texts, measured values and what it removed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from demiglace.cleaning.text_arrays import Texts


@dataclass(frozen=True)
class Measure:
    """A number of each text [N] and the bounds that a text has to keep; one without bounds counts what was changed.

    binary: the number says only yes or no, so that no kept text is nearer to the bound than another.
    """

    name: str
    values: np.ndarray
    at_least: float | None = None
    at_most: float | None = None
    binary: bool = False

    @property
    def bounds(self) -> list[float]:
        """The bounds there are."""
        return [b for b in (self.at_least, self.at_most) if b is not None]

    @cached_property
    def within(self) -> np.ndarray:
        """Which texts keep the bounds, bool [N]."""
        low = True if self.at_least is None else self.values >= self.at_least
        high = True if self.at_most is None else self.values <= self.at_most
        return np.broadcast_to(np.logical_and(low, high), self.values.shape)

    def crossed(self, text: int) -> float | None:
        """The bound that a text does not keep."""
        low = self.at_least is not None and not self.values[text] >= self.at_least
        return self.at_least if low else self.at_most


@dataclass(frozen=True)
class RemovedLines:
    """Lines that a rule took out [R]: of which text, which of its lines from 0, why, and the lines themselves.

    value, threshold: what was measured of each and the bound that it did not keep. first: the document of the
    collection that each was in first, for rules that look for repeated ones.
    """

    text: np.ndarray
    line: np.ndarray
    reason: Sequence[str]
    content: Sequence[str]
    value: np.ndarray
    threshold: np.ndarray
    first: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.text)


NOTHING = RemovedLines(np.zeros(0, np.int64), np.zeros(0, np.int64), (), (), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class RuleResult:
    """What a rule made of a batch: the texts [N], an unchanged one being the same object; and what it measured.

    first: of each text that is dropped for an earlier one, that one's number in the collection [N].
    """

    texts: Sequence[str]
    measures: tuple[Measure, ...] = ()
    removed: RemovedLines = NOTHING
    first: np.ndarray | None = None

    @property
    def keep(self) -> np.ndarray:
        """Which texts keep all bounds, bool [N]."""
        kept = np.ones(len(self.texts), bool)
        for measure in self.measures:
            kept &= measure.within
        return kept


class Rule(ABC):
    """A rule; a frozen dataclass whose fields are its thresholds."""

    name: ClassVar[str]

    @abstractmethod
    def apply(self, texts: Texts) -> RuleResult:
        """The rule on a batch of texts, each by itself."""

    def check(self) -> None:  # noqa: B027  (most rules have nothing to check)
        """Raise `ConfigError` for options that do not suit, where that takes more than looking at each by itself."""

    def __call__(self, texts: Sequence[str]) -> RuleResult:
        """The rule on a plain list of texts."""
        return self.apply(Texts(texts))
