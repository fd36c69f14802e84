"""Rules one after another on batches of documents, with the books kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from demiglace.cleaning import statistics as books
from demiglace.cleaning.rules.base import Measure, Rule, RuleResult
from demiglace.cleaning.rules.dedup import CollectionRule, KeyTable
from demiglace.cleaning.statistics import Entry, RemovedLineEntries, RuleTally
from demiglace.cleaning.text_arrays import Texts

BATCH = 1_000_000  # characters that are looked at together
_SPARSE = 0.6  # of a batch's texts; where fewer are left, the others are let go


@dataclass
class Ledger:
    """What is written down of a part: the ledger's rows, of documents and of lines, and each rule's tally."""

    entries: list[Entry] = field(default_factory=list)
    lines: list[RemovedLineEntries] = field(default_factory=list)
    tallies: dict[str, RuleTally] = field(default_factory=dict)

    def of(self, rule: str) -> RuleTally:
        """A rule's tally."""
        return self.tallies.setdefault(rule, RuleTally())


@dataclass
class Batch:
    """Documents on their way: texts, numbers in the collection, sites, which are still there, words of each."""

    texts: Texts
    documents: np.ndarray
    sites: Sequence[str]
    alive: np.ndarray
    words: np.ndarray

    def compact(self) -> "Batch":
        """Without the documents that were dropped, if they are many."""
        if self.alive.mean() >= _SPARSE if len(self.alive) else True:
            return self
        rows = np.flatnonzero(self.alive).tolist()
        return Batch(
            Texts([self.texts.texts[i] for i in rows]),
            self.documents[rows],
            [self.sites[i] for i in rows],
            np.ones(len(rows), bool),
            self.words[rows],
        )


class MarkedRule(Rule):
    """A collection's rule where it is known what is marked, for the one batch that the marks are of."""

    def __init__(self, rule: CollectionRule, marked: KeyTable):
        self.name = rule.name  # type: ignore[misc]
        self._rule, self._marked = rule, marked

    def apply(self, texts: Texts) -> RuleResult:
        """What becomes of the batch."""
        return self._rule.apply(texts, self._marked)


def batches(texts: Sequence[str]) -> Iterator[slice]:
    """Pieces of a list of texts of about a million characters."""
    start = size = 0
    for i, text in enumerate(texts):
        size += len(text)
        if size >= BATCH:
            yield slice(start, i + 1)
            start, size = i + 1, 0
    if start < len(texts):
        yield slice(start, len(texts))


def run_rules(batch: Batch, rules: Sequence[Rule], kept: Ledger) -> Batch:
    """What is left of a batch behind all rules, and the books of it."""
    for rule in rules:
        batch = _step(batch, rule, kept)
        if not batch.alive.any():
            break
        batch = batch.compact()
    return batch


def _step(batch: Batch, rule: Rule, kept: Ledger) -> Batch:
    outcome = rule.apply(batch.texts)
    old = batch.texts.texts
    changed = np.array([new is not was for new, was in zip(outcome.texts, old, strict=True)], bool)
    texts = Texts(outcome.texts) if changed.any() else batch.texts
    before, after = batch.words, _words(batch.words, texts, np.flatnonzero(changed))
    alive = batch.alive & outcome.keep
    tally = kept.of(rule.name)
    for pair, values in ((tally.documents, (batch.alive, alive)), (tally.words, (before * batch.alive, after * alive))):
        pair[:] = [total + int(v.sum()) for total, v in zip(pair, values, strict=True)]
    sizes = batch.texts.lengths * batch.alive, texts.lengths * alive
    tally.characters[:] = [total + int(v.sum()) for total, v in zip(tally.characters, sizes, strict=True)]
    tally.changed += int((changed & alive).sum())
    _record(batch, rule.name, outcome, changed, alive, kept)
    return Batch(texts, batch.documents, batch.sites, alive, after)


def _words(before: np.ndarray, texts: Texts, changed: np.ndarray) -> np.ndarray:
    """Words of each text, counted anew only where a text has changed."""
    after = before.copy()
    after[changed] = Texts([texts.texts[i] for i in changed]).words.counts
    return after


def _record(batch: Batch, rule: str, outcome: RuleResult, changed: np.ndarray, alive: np.ndarray, kept: Ledger) -> None:
    tally, removed = kept.of(rule), outcome.removed
    rows = np.flatnonzero(batch.alive[removed.text])
    if len(rows):
        reasons, excerpts = (_some(values, rows) for values in (removed.reason, removed.content))
        documents, first = batch.documents[removed.text[rows]], None if removed.first is None else removed.first[rows]
        measured = removed.value[rows], removed.threshold[rows], first
        cut = list(map(books.excerpt, excerpts))
        kept.lines.append(RemovedLineEntries(rule, documents, removed.line[rows], reasons, cut, *measured))
        tally.lines += len(rows)
        tally.reasons.update(reasons)
    told = np.zeros(len(alive), bool)
    told[removed.text] = True
    for i in np.flatnonzero(changed & alive):
        kept.entries += _changes(batch, rule, outcome, int(i), bool(told[i]))
    for measure in outcome.measures:
        _add_histogram(tally, measure, batch.alive)
    _drops(batch, rule, outcome, alive, kept)
    _near_misses(batch, rule, outcome, alive, tally)


def _some(values: Sequence[str], rows: np.ndarray) -> Sequence[str]:
    return values if len(rows) == len(values) else [values[i] for i in rows.tolist()]


def _changes(batch: Batch, rule: str, outcome: RuleResult, i: int, told: bool) -> list[Entry]:
    """A row for each kind of change; where none is counted one that says so, unless lines tell (`told`)."""
    found = [(m.name, float(m.values[i])) for m in outcome.measures if not m.bounds and m.values[i]]
    number, text = batch.documents[i], books.excerpt(outcome.texts[i])
    if not found and not told:
        return [Entry(number, rule, "changed", "text", excerpt=text)]
    return [Entry(number, rule, "changed", name, value, excerpt=text) for name, value in found]


def _add_histogram(tally: RuleTally, measure: Measure, alive: np.ndarray) -> None:
    if not measure.bounds:
        return
    new = books.histogram(measure, alive)
    old = tally.histograms.setdefault(measure.name, {**new, "counts": [0] * len(new["counts"])})
    old["counts"] = [a + b for a, b in zip(old["counts"], new["counts"], strict=True)]


def _drops(batch: Batch, rule: str, outcome: RuleResult, alive: np.ndarray, kept: Ledger) -> None:
    """The first bound that is not kept is why a document is dropped."""
    tally, examples = kept.of(rule), []
    for i in np.flatnonzero(batch.alive & ~alive):
        measure = next(m for m in outcome.measures if not m.within[i])
        value, bound, text = float(measure.values[i]), measure.crossed(int(i)), batch.texts.texts[i]
        number, first = int(batch.documents[i]), None if outcome.first is None else int(outcome.first[i])
        kept.entries.append(Entry(number, rule, "dropped", measure.name, value, bound, books.excerpt(text), first))
        tally.reasons[measure.name] += 1
        examples.append(books.example(books.sampling_hash(number, rule), number, text, measure.name, value, bound))
    tally.dropped = books.least([*tally.dropped, *examples])


def _near_misses(batch: Batch, rule: str, outcome: RuleResult, alive: np.ndarray, tally: RuleTally) -> None:
    """The kept documents that are nearest to a bound."""
    measures = [m for m in outcome.measures if not m.binary]
    if not measures or not alive.any():
        return
    nearness, which = books.margins(measures)
    nearest = np.flatnonzero(alive)[np.argsort(nearness[alive], kind="stable")[: books.EXAMPLES]]
    examples = []
    for i in nearest:
        if not np.isfinite(nearness[i]):
            continue
        measure, text = measures[which[i]], batch.texts.texts[i]
        bound = min(filter(None, measure.bounds), key=lambda b: abs(b - measure.values[i]))
        value = float(measure.values[i])
        examples.append(books.example(float(nearness[i]), int(batch.documents[i]), text, measure.name, value, bound))
    tally.kept = books.least([*tally.kept, *examples])
