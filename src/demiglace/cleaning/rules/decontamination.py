"""Decontamination: documents that hold what a model is to be tested with, as in GPT-3 (Brown et al. 2020, appendix C).

Runs of n words in a row are compared, in lower case and without marks. Texts of the test sets that are shorter than n
words are not looked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measure, Rule, RuleResult
from demiglace.cleaning.rules.minhash_dedup import shingles
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.options import option


@dataclass(frozen=True)
class Decontamination:
    """Documents that share runs of words with evaluation sets are dropped."""

    name: ClassVar[str] = "decontamination"

    against: tuple[str, ...] = option("named tasks (all sets but train) or files of texts")
    words: int = option("words in a row that are compared", 13, at_least=1)
    max_shared: int = option("runs that a document may share with them", 0, at_least=0)

    def with_texts(self, texts: Iterable[str]) -> "Decontaminate":
        """The rule, for the texts of what `against` names."""
        hashes, first = shingles(batch := Texts(list(texts)), self.words)
        long = np.diff(batch.shingle_words[1]) >= self.words
        return Decontaminate(self, np.unique(hashes[np.repeat(long, np.diff(first))]))


class Decontaminate(Rule):
    """`Decontamination` with what it is against: sorted hashes [R]."""

    name: ClassVar[str] = "decontamination"

    def __init__(self, options: Decontamination, runs: np.ndarray):
        self.options, self.runs = options, runs

    def apply(self, texts: Texts) -> RuleResult:
        """Nothing is changed; shared runs are counted."""
        hashes, first = shingles(texts, self.options.words)
        total = np.concatenate([[0], np.cumsum(np.isin(hashes, self.runs))])
        shared = (total[first[1:]] - total[first[:-1]]).astype(float)
        return RuleResult(texts.texts, (Measure("runs of words shared", shared, at_most=self.options.max_shared),))
