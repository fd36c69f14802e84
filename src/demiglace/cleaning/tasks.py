"""The steps of a cleaning run. Each task reads files, writes files and can be done anywhere, in any order, again.

A run's rules are cut into segments at those that compare documents. A segment goes over the documents part by part: it
takes out what the comparison before it marked, applies its rules, and writes the keys for the comparison behind it.
Between two segments the keys are settled, bucket by bucket.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.cleaning import storage
from demiglace.cleaning.pipeline import Batch, Ledger, MarkedRule, batches, run_rules
from demiglace.cleaning.registry import AnyRule, from_config
from demiglace.cleaning.rules.base import Rule
from demiglace.cleaning.rules.decontamination import Decontaminate, Decontamination
from demiglace.cleaning.rules.dedup import CollectionRule, KeyTable, joined
from demiglace.cleaning.statistics import Entry, excerpt
from demiglace.cleaning.storage import Part
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.data import ReadConfig
from demiglace.data.text.readers import DamagedFileError, Document, SkippedDocument, read_documents
from demiglace.errors import UserError

PART = 16_000_000  # characters of a part
READ = "read"  # what the ledger calls reading


@dataclass(frozen=True)
class Plan:
    """All that a task has to know. directory: of the run; buckets: into how many the keys are cut."""

    directory: str
    sources: tuple[str, ...]
    rules: tuple[dict[str, Any], ...]
    read: dict[str, Any]
    keep_damaged: bool
    output: str
    buckets: int

    @property
    def work(self) -> Path:
        """Where the files between the steps are."""
        return Path(self.directory) / "work"

    @property
    def segments(self) -> tuple["Segment", ...]:
        """The rules, cut at those that compare documents."""
        return _segments(json.dumps(self.rules), str(self.work))

    def write(self) -> None:
        """Put it where the tasks find it."""
        with storage.atomic_write(self.work / "plan.json") as draft:
            draft.write_text(json.dumps(self.__dict__), "utf-8")


@dataclass(frozen=True)
class Segment:
    """A rule that compares documents, if the segment begins with one, and those that look at each by itself."""

    first: CollectionRule | None
    rules: tuple[Rule, ...]


def read_plan(directory: str) -> Plan:
    """The plan of a run."""
    content: dict[str, Any] = json.loads((Path(directory) / "work" / "plan.json").read_text("utf-8"))
    content |= {name: tuple(content[name]) for name in ("sources", "rules")}
    return Plan(**content)


def reference_file(work: Path) -> Path:
    """Where the runs of words are that documents must not share."""
    return work / "reference.npy"


@cache
def _segments(rules: str, work: str) -> tuple[Segment, ...]:
    segments = [Segment(None, ())]
    for rule in from_config(json.loads(rules)):
        if isinstance(rule, CollectionRule):
            segments.append(Segment(rule, ()))
        else:
            last = segments.pop()
            segments.append(Segment(last.first, (*last.rules, _instantiate(rule, Path(work)))))
    return tuple(segments)


def _instantiate(rule: AnyRule, work: Path) -> Rule:
    if isinstance(rule, Decontamination):
        return Decontaminate(rule, np.load(reference_file(work)))
    assert isinstance(rule, Rule)
    return rule


def run_task(plan: Plan, task: dict[str, Any]) -> None:
    """Do a task; one that is done already does nothing."""
    kind = task["kind"]
    if kind == "read":
        _read(plan, task["first"], task["end"])
    elif kind == "settle":
        _settle(plan, task["segment"], task["bucket"])
    else:
        _clean(plan, task["segment"], task["part"])


def books_file(plan: Plan, segment: int, name: str) -> Path:
    """The books of a part in a segment, or of the reading of some sources (`group_name`)."""
    return plan.work / str(segment) / f"{name}.json"


def marks_file(plan: Plan, segment: int, bucket: int) -> Path:
    """What was marked in a bucket, for a segment to take out."""
    return plan.work / str(segment) / f"marked-{bucket:05d}"


def finalized_marks_file(plan: Plan, segment: int) -> Path:
    """What was marked in the whole collection, where a rule has more to say of that."""
    return plan.work / str(segment) / "concluded"


def groups(plan: Plan) -> list[range]:
    """The sources cut into runs that are read together: files that are small side by side, any other by itself.

    Depends on nothing but the sources, so that parts are the same for any number of workers.
    """
    found: list[range] = []
    size = 0
    for source, name in enumerate(plan.sources):
        own = PART if "://" in name else Path(name).stat().st_size  # one that is elsewhere counts as large
        if found and size + own <= PART:
            found[-1], size = range(found[-1].start, source + 1), size + own
        else:
            found.append(range(source, source + 1))
            size = own
    return found


def group_name(plan: Plan, first: int) -> str:
    """What the files of a run of sources are called, in the order of sources."""
    return f"{first:0{max(5, len(str(len(plan.sources) - 1)))}d}"


def parts_file(plan: Plan) -> Path:
    """The names of all parts, once everything is read."""
    return plan.work / "parts.json"


def _read(plan: Plan, first: int, end: int) -> None:
    """Documents of some sources, through the first segment, in parts."""
    group = group_name(plan, first)
    done = books_file(plan, 0, group)
    if done.exists():
        return
    refused, parts = Ledger(), []
    for k, part in enumerate(_parts(plan, range(first, end), refused)):
        name = f"{group}-{k:05d}"
        parts.append(name)
        if not books_file(plan, 0, name).exists():
            _finish(plan, 0, name, part, None)
    storage.write_ledger(_ledger(plan, 0, group), refused, plan.sources)
    storage.write_books(done, refused, parts=parts)


def _parts(plan: Plan, sources: range, refused: Ledger) -> Iterator[Part]:
    texts: list[str] = []
    sites: list[str] = []
    numbers: list[int] = []
    size = 0
    places = ((source, *found) for source in sources for found in enumerate(_found(plan, source)))
    for source, place, found in places:
        number = storage.document_number(source, place)
        if isinstance(found, SkippedDocument):
            refused.entries.append(Entry(number, READ, "dropped", found.reason, excerpt=excerpt(found.what)))
            refused.of(READ).reasons[found.reason] += 1
            continue
        texts.append(found.text)
        sites.append(found.site)
        numbers.append(number)
        size += len(found.text)
        if size >= PART:
            yield Part(texts, np.array(numbers, np.uint64), sites)
            texts, sites, numbers, size = [], [], [], 0
    if texts:
        yield Part(texts, np.array(numbers, np.uint64), sites)


def _found(plan: Plan, source: int) -> Iterator[Document | SkippedDocument]:
    try:
        yield from read_documents(plan.sources[source], ReadConfig(**plan.read))
    except DamagedFileError as error:
        if not plan.keep_damaged:
            raise UserError(f"{error} Give --keep-damaged to use what stands before that.") from error
        yield SkippedDocument("damaged from here on", str(error))


def _clean(plan: Plan, segment: int, name: str) -> None:
    """A part through a later segment."""
    if books_file(plan, segment, name).exists():
        return
    part = storage.read_part(_part_file(plan, segment - 1, name))
    _finish(plan, segment, name, part, _marked(plan, segment, part) if len(part.documents) else joined([]))


def _marked(plan: Plan, segment: int, part: Part) -> KeyTable:
    """What is marked in a part."""
    concluded = finalized_marks_file(plan, segment)
    files = [marks_file(plan, segment, bucket) for bucket in range(plan.buckets)]
    files = [concluded] if storage.marks_there(concluded) else files
    return storage.marks_between(files, "document", int(part.documents[0]), int(part.documents[-1]) + 1)


def _finish(plan: Plan, number: int, name: str, part: Part, marked: KeyTable | None) -> None:
    """Run a segment on a part, and write what comes of it; the books come last."""
    segment, kept, last = plan.segments[number], Ledger(), number == len(plan.segments) - 1
    following = None if last else plan.segments[number + 1].first
    left: list[Part] = []
    keys: list[KeyTable] = []
    for piece in batches(part.texts):
        texts = Texts(part.texts[piece])
        words = texts.words.counts if part.words is None else part.words[piece]
        batch = Batch(texts, part.documents[piece], part.sites[piece], np.ones(len(texts), bool), words)
        rules: Sequence[Rule] = segment.rules
        if segment.first and marked is not None:
            rules = (MarkedRule(segment.first, _within(marked, batch.documents)), *rules)
        batch = run_rules(batch, rules, kept)
        if following:
            keys.append(_keys(following, batch))
        left.append(_survivors(batch))
    if following:
        storage.write_marks(_keys_file(plan, number + 1, name), joined(keys).sorted_by_key())
    storage.write_ledger(_ledger(plan, number, name), kept, plan.sources)
    remaining = Part(
        [t for p in left for t in p.texts],
        np.concatenate([np.zeros(0, np.uint64), *(p.documents for p in left)]),
        [s for p in left for s in p.sites],
        np.concatenate([np.zeros(0, np.int64), *(p.words for p in left if p.words is not None)]),
    )
    if last:
        ending = "parquet" if plan.output == "parquet" else "jsonl.zst"
        storage.write_shard(Path(plan.directory) / "shards" / f"{name}.{ending}", remaining, plan.sources, plan.output)
    else:
        storage.write_part(_part_file(plan, number, name), remaining)
    storage.write_books(books_file(plan, number, name), kept)


def _within(marked: KeyTable, documents: np.ndarray) -> KeyTable:
    """The marks of these documents, which are in order, counted from the first of them."""
    rows = np.flatnonzero((marked.document >= documents[0]) & (marked.document <= documents[-1]))
    found = marked[rows]
    return KeyTable(found.key, np.searchsorted(documents, found.document).astype(np.uint64), found.line)


def _keys(rule: CollectionRule, batch: Batch) -> KeyTable:
    """The keys of the documents that are left in a batch."""
    found = rule.keys(batch.texts, np.arange(len(batch.documents), dtype=np.uint64), batch.sites)
    found = found[np.flatnonzero(batch.alive[found.document.astype(np.int64)])]
    return KeyTable(found.key, batch.documents[found.document.astype(np.int64)], found.line)


def _survivors(batch: Batch) -> Part:
    rows = np.flatnonzero(batch.alive).tolist()
    texts, sites = ([values[i] for i in rows] for values in (batch.texts.texts, batch.sites))
    return Part(texts, batch.documents[rows], sites, batch.words[rows])


def _settle(plan: Plan, segment: int, bucket: int) -> None:
    """Bring the keys of a bucket together and mark."""
    file, rule = marks_file(plan, segment, bucket), plan.segments[segment].first
    if storage.marks_there(file) or rule is None:
        return
    width = 2**64 // plan.buckets
    high = 2**64 if bucket == plan.buckets - 1 else (bucket + 1) * width
    files = [_keys_file(plan, segment, name) for name in storage.read_list(parts_file(plan))]
    found = rule.settle(storage.marks_between(files, "key", bucket * width, high))
    storage.write_marks(file, found[np.lexsort((found.line, found.document))])


def finalize(plan: Plan, segment: int) -> None:
    """Let a rule say what is marked in the whole collection, if it has more to say than was said bucket by bucket."""
    rule, file = plan.segments[segment].first, finalized_marks_file(plan, segment)
    if rule is None or storage.marks_there(file) or type(rule).conclude is CollectionRule.conclude:
        return
    marked = rule.conclude(joined([storage.read_marks(marks_file(plan, segment, b)) for b in range(plan.buckets)]))
    storage.write_marks(file, marked[np.lexsort((marked.line, marked.document))])


def part_files(plan: Plan) -> list[Path]:
    """All documents behind each of the segments but the last, the first one's first."""
    return [f for n in range(len(plan.segments) - 1) for f in sorted((plan.work / str(n)).glob("*.parquet"))]


def _part_file(plan: Plan, segment: int, name: str) -> Path:
    return plan.work / str(segment) / f"{name}.parquet"


def _keys_file(plan: Plan, segment: int, name: str) -> Path:
    return plan.work / str(segment) / f"keys-{name}"


def _ledger(plan: Plan, segment: int, name: str) -> Path:
    return Path(plan.directory) / "ledger" / f"{segment}-{name}.parquet"
