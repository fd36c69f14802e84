"""The pipeline: apply rules in order to batches of documents, and record what they did in a ledger."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from demiglace.cleaning import statistics as statistics
from demiglace.cleaning.rules.base import Measurement, Rule, RuleResult
from demiglace.cleaning.rules.dedup import CollectionRule, KeyTable
from demiglace.cleaning.statistics import Entry, RemovedLineEntries, RuleTally
from demiglace.cleaning.text_arrays import Texts

BATCH = 1_000_000  # characters of a batch
_COMPACT_BELOW = 0.6  # share of kept texts; below it, dropped texts are removed from a batch


@dataclass
class Ledger:
    """The record of what the rules did to a part of the collection."""

    entries: list[Entry] = field(default_factory=list)  # rows about documents
    lines: list[RemovedLineEntries] = field(default_factory=list)  # rows about removed lines
    tallies: dict[str, RuleTally] = field(default_factory=dict)  # rule -> counts

    def of(self, rule: str) -> RuleTally:
        """Return the tally of a rule."""
        return self.tallies.setdefault(rule, RuleTally())


@dataclass
class Batch:
    """N documents between two rules."""

    texts: Texts
    documents: np.ndarray  # numbers in the collection [N]
    sites: Sequence[str]  # [N]
    keep_mask: np.ndarray  # documents that no rule has dropped, bool [N]
    words: np.ndarray  # number of words [N]

    def compact(self) -> "Batch":
        """Return the batch without its dropped documents if there are many of them, otherwise the batch."""
        if self.keep_mask.mean() >= _COMPACT_BELOW if len(self.keep_mask) else True:
            return self
        rows = np.flatnonzero(self.keep_mask).tolist()
        return Batch(
            Texts([self.texts.texts[i] for i in rows]),
            self.documents[rows],
            [self.sites[i] for i in rows],
            np.ones(len(rows), bool),
            self.words[rows],
        )


class MarkedRule(Rule):
    """A rule that applies a collection rule's marks to the one batch they belong to."""

    def __init__(self, rule: CollectionRule, marked: KeyTable):
        self.name = rule.name  # type: ignore[misc]
        self._rule, self._marked = rule, marked

    def apply(self, texts: Texts) -> RuleResult:
        """Remove what is marked."""
        return self._rule.apply(texts, self._marked)


def batches(texts: Sequence[str]) -> Iterator[slice]:
    """Yield slices of a list of texts with about a million characters each."""
    start = size = 0
    for i, text in enumerate(texts):
        size += len(text)
        if size >= BATCH:
            yield slice(start, i + 1)
            start, size = i + 1, 0
    if start < len(texts):
        yield slice(start, len(texts))


def run_rules(batch: Batch, rules: Sequence[Rule], ledger: Ledger) -> Batch:
    """Apply rules to a batch in order, record what they did in the ledger, and return the remaining batch."""
    for rule in rules:
        batch = _apply_rule(batch, rule, ledger)
        if not batch.keep_mask.any():
            break
        batch = batch.compact()
    return batch


def _apply_rule(batch: Batch, rule: Rule, ledger: Ledger) -> Batch:
    result = rule.apply(batch.texts)
    old = batch.texts.texts
    changed = np.array([new is not previous for new, previous in zip(result.texts, old, strict=True)], bool)
    texts = Texts(result.texts) if changed.any() else batch.texts
    before, after = batch.words, _word_counts(batch.words, texts, np.flatnonzero(changed))
    keep_mask = batch.keep_mask & result.keep
    tally = ledger.of(rule.name)
    for pair, values in (
        (tally.documents, (batch.keep_mask, keep_mask)),
        (tally.words, (before * batch.keep_mask, after * keep_mask)),
    ):
        pair[:] = [total + int(v.sum()) for total, v in zip(pair, values, strict=True)]
    sizes = batch.texts.lengths * batch.keep_mask, texts.lengths * keep_mask
    tally.characters[:] = [total + int(v.sum()) for total, v in zip(tally.characters, sizes, strict=True)]
    tally.changed += int((changed & keep_mask).sum())
    _record(batch, rule.name, result, changed, keep_mask, ledger)
    return Batch(texts, batch.documents, batch.sites, keep_mask, after)


def _word_counts(before: np.ndarray, texts: Texts, changed: np.ndarray) -> np.ndarray:
    """Return the number of words of each text; only changed texts are counted again."""
    after = before.copy()
    after[changed] = Texts([texts.texts[i] for i in changed]).words.counts
    return after


def _record(
    batch: Batch, rule: str, result: RuleResult, changed: np.ndarray, keep_mask: np.ndarray, ledger: Ledger
) -> None:
    tally, removed = ledger.of(rule), result.removed
    rows = np.flatnonzero(batch.keep_mask[removed.text])
    if len(rows):
        reasons, contents = (_select(values, rows) for values in (removed.reason, removed.content))
        documents, first = batch.documents[removed.text[rows]], None if removed.first is None else removed.first[rows]
        measured = removed.value[rows], removed.threshold[rows], first
        excerpts = list(map(statistics.excerpt, contents))
        ledger.lines.append(RemovedLineEntries(rule, documents, removed.line[rows], reasons, excerpts, *measured))
        tally.lines += len(rows)
        tally.reasons.update(reasons)
    has_removed_lines = np.zeros(len(keep_mask), bool)
    has_removed_lines[removed.text] = True
    for i in np.flatnonzero(changed & keep_mask):
        ledger.entries += _changes(batch, rule, result, int(i), bool(has_removed_lines[i]))
    for measurement in result.measurements:
        _add_histogram(tally, measurement, batch.keep_mask)
    _record_drops(batch, rule, result, keep_mask, ledger)
    _record_near_misses(batch, result, keep_mask, tally)


def _select(values: Sequence[str], rows: np.ndarray) -> Sequence[str]:
    return values if len(rows) == len(values) else [values[i] for i in rows.tolist()]


def _changes(batch: Batch, rule: str, result: RuleResult, i: int, has_removed_lines: bool) -> list[Entry]:
    """Return one ledger row per counted change of a document.

    If nothing was counted and no removed lines were recorded, return a generic row "changed".
    """
    counts = [(m.name, float(m.values[i])) for m in result.measurements if not m.bounds and m.values[i]]
    document, text = batch.documents[i], statistics.excerpt(result.texts[i])
    if not counts and not has_removed_lines:
        return [Entry(document, rule, "changed", "text", excerpt=text)]
    return [Entry(document, rule, "changed", name, value, excerpt=text) for name, value in counts]


def _add_histogram(tally: RuleTally, measurement: Measurement, keep_mask: np.ndarray) -> None:
    if not measurement.bounds:
        return
    new = statistics.histogram(measurement, keep_mask)
    old = tally.histograms.setdefault(measurement.name, {**new, "counts": [0] * len(new["counts"])})
    old["counts"] = [a + b for a, b in zip(old["counts"], new["counts"], strict=True)]


def _record_drops(batch: Batch, rule: str, result: RuleResult, keep_mask: np.ndarray, ledger: Ledger) -> None:
    """Record the dropped documents; the reason is the first violated bound."""
    tally, examples = ledger.of(rule), []
    for i in np.flatnonzero(batch.keep_mask & ~keep_mask):
        measurement = next(m for m in result.measurements if not m.passed[i])
        value, bound, text = float(measurement.values[i]), measurement.violated_bound(int(i)), batch.texts.texts[i]
        document, first = int(batch.documents[i]), None if result.first is None else int(result.first[i])
        ledger.entries.append(
            Entry(document, rule, "dropped", measurement.name, value, bound, statistics.excerpt(text), first)
        )
        tally.reasons[measurement.name] += 1
        examples.append(
            statistics.example(statistics.sampling_hash(document, rule), document, text, measurement.name, value, bound)
        )
    tally.dropped = statistics.smallest([*tally.dropped, *examples])


def _record_near_misses(batch: Batch, result: RuleResult, keep_mask: np.ndarray, tally: RuleTally) -> None:
    """Record the kept documents that are closest to a bound, as examples for the page."""
    measurements = [m for m in result.measurements if not m.binary]
    if not measurements or not keep_mask.any():
        return
    nearness, which = statistics.margins(measurements)
    nearest = np.flatnonzero(keep_mask)[np.argsort(nearness[keep_mask], kind="stable")[: statistics.EXAMPLES]]
    examples = []
    for i in nearest:
        if not np.isfinite(nearness[i]):
            continue
        measurement, text = measurements[which[i]], batch.texts.texts[i]
        bound = min(filter(None, measurement.bounds), key=lambda b: abs(b - measurement.values[i]))
        value = float(measurement.values[i])
        examples.append(
            statistics.example(float(nearness[i]), int(batch.documents[i]), text, measurement.name, value, bound)
        )
    tally.kept = statistics.smallest([*tally.kept, *examples])
