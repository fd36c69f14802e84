"""`demiglace clean --explain`: show the measurements and verdicts of each rule for a few documents."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich.table import Table

from demiglace.cleaning.registry import AnyRule
from demiglace.cleaning.rules.base import Measurement
from demiglace.cleaning.rules.decontamination import Decontamination
from demiglace.cleaning.rules.dedup import CollectionRule
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.data import ReadConfig
from demiglace.console import print_table, say, table
from demiglace.data.text.readers import Document, SkippedDocument, read_documents

_MOST = 20  # documents


def explain(sources: Sequence[str], rules: Sequence[AnyRule], reading: ReadConfig, reference: Sequence[str]) -> None:
    """Print a table for each of the first documents of the sources to standard output."""
    for shown, (source, number, document) in enumerate(_documents(sources, reading)):
        if shown == _MOST:
            say(f"Only the first {_MOST} documents are shown.")
            break
        if isinstance(document, Document):
            print_table(verdict_table(f"{source}, document {number}", list(verdicts(document.text, rules, reference))))
        else:
            say(f"{source}, document {number} was skipped: {document.reason}, {document.what}")


def _documents(sources: Sequence[str], reading: ReadConfig) -> Iterator[tuple[str, int, Document | SkippedDocument]]:
    for source in sources:
        for number, document in enumerate(read_documents(source, reading)):
            yield source, number, document


def verdicts(text: str, rules: Sequence[AnyRule], reference: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """Yield (rule, measurement, value, bound, verdict) for each measurement and removed line.

    Each rule sees the output of the rules before it, as in a run; but no document is dropped.
    """
    for rule in rules:
        if isinstance(rule, CollectionRule):
            yield rule.name, "compares documents", "", "", "needs a full run"
            continue
        known = rule.with_texts(reference) if isinstance(rule, Decontamination) else rule
        result = known.apply(Texts([text]))
        yield from ((rule.name, m.name, _number(m.values[0]), _bounds(m), _verdict(m)) for m in result.measurements)
        removed = result.removed
        for line, content, reason in zip(removed.line.tolist(), removed.content, removed.reason, strict=True):
            yield rule.name, f"line {line}", content[:60], "", f"removed: {reason}"
        text = result.texts[0]


def verdict_table(title: str, rows: Sequence[tuple[str, ...]]) -> Table:
    """Return the verdicts as a table."""
    return table(title, ("rule", "measure", "value", "bound", "verdict"), rows)


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "∞"


def _bounds(measure: Measurement) -> str:
    low = f"at least {measure.at_least:g}" if measure.at_least is not None else ""
    high = f"at most {measure.at_most:g}" if measure.at_most is not None else ""
    return ", ".join(filter(None, (low, high)))


def _verdict(measure: Measurement) -> str:
    if measure.at_least is None and measure.at_most is None:
        return ""
    return "keep" if measure.passed[0] else "DROP"
