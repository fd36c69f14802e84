"""Decontamination: drop documents that share n-grams with evaluation sets, as GPT-3 (Brown et al. 2020, appendix C).

N-grams of words are compared in lower case and without punctuation. Texts of the evaluation sets with fewer than n
words are ignored.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measurement, Rule, RuleResult
from demiglace.cleaning.rules.minhash_dedup import shingles
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.options import option


@dataclass(frozen=True)
class Decontamination:
    """Options of decontamination; `with_texts` makes the rule."""

    name: ClassVar[str] = "decontamination"

    against: tuple[str, ...] = option("named tasks (all sets but train) or files of texts")
    words: int = option("words in an n-gram", 13, at_least=1)
    max_shared: int = option("n-grams that a document may share with the evaluation sets", 0, at_least=0)

    def with_texts(self, texts: Iterable[str]) -> "Decontaminate":
        """Return the rule for these texts, which are those that `against` names."""
        hashes, first = shingles(batch := Texts(list(texts)), self.words)
        long = np.diff(batch.shingle_words[1]) >= self.words
        return Decontaminate(self, np.unique(hashes[np.repeat(long, np.diff(first))]))


class Decontaminate(Rule):
    """Drop documents that share n-grams with reference texts, given by the sorted hashes of their n-grams [R]."""

    name: ClassVar[str] = "decontamination"

    def __init__(self, options: Decontamination, reference_hashes: np.ndarray):
        self.options, self.reference_hashes = options, reference_hashes

    def apply(self, texts: Texts) -> RuleResult:
        """Count the n-grams of each text that are in the reference texts; change no text."""
        hashes, first = shingles(texts, self.options.words)
        total = np.concatenate([[0], np.cumsum(np.isin(hashes, self.reference_hashes))])
        shared = (total[first[1:]] - total[first[:-1]]).astype(float)
        return RuleResult(texts.texts, (Measurement("runs of words shared", shared, at_most=self.options.max_shared),))
