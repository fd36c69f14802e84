"""The tasks of a cleaning run. Each reads and writes files, and can run on any machine, in any order, repeatedly.

The rules of a run are split into segments: a collection rule starts a new one. A segment processes the documents part
by part. It removes what its collection rule marked, applies its other rules, and writes the keys for the next segment's
collection rule. Between two segments the keys are reduced to marks, bucket by bucket.
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
from demiglace.cleaning.rules.dedup import CollectionRule, KeyTable, concat_tables
from demiglace.cleaning.statistics import Entry, excerpt
from demiglace.cleaning.storage import Part
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.data import ReadConfig
from demiglace.data.text.addresses import is_address
from demiglace.data.text.readers import GUESSED, DamagedFileError, Document, SkippedDocument, read_documents
from demiglace.data.text.streams import plain_line_ends
from demiglace.errors import UserError
from demiglace.runs.files import atomic_write
from demiglace.runs.integrity import digest

PART = 16_000_000  # characters of a part
READ = "read"  # the name of reading in the ledger
LINE_ENDS = "line ends of Windows or old Macintosh, read as \\n"


@dataclass(frozen=True)
class CleaningSpec:
    """Everything that the tasks of a run need; written to a file for them."""

    directory: str  # of the run
    sources: tuple[str, ...]  # files and addresses as the user gave them: the names in shards, ledgers and the page
    locations: tuple[str, ...]  # the same as absolute paths, which tasks read
    rules: tuple[dict[str, Any], ...]  # as in a file of rules, with all thresholds
    read: dict[str, Any]  # options for reading
    keep_damaged: bool  # keep the documents before the damage of a damaged file
    output: str  # format of the shards: "parquet" or "jsonl"
    buckets: int  # number of ranges of keys that are reduced separately

    @property
    def work(self) -> Path:
        """Return the directory of intermediate files."""
        return Path(self.directory) / "work"

    @property
    def segments(self) -> tuple["Segment", ...]:
        """Return the rules, split at those that compare documents."""
        return _segments(json.dumps(self.rules), str(self.work))

    def write(self) -> None:
        """Write the spec to the file that the tasks read."""
        with atomic_write(self.work / "plan.json") as draft:
            draft.write_text(json.dumps(self.__dict__), "utf-8")


@dataclass(frozen=True)
class Segment:
    """Rules that are applied to a part in one task."""

    first: CollectionRule | None  # None in the first segment
    rules: tuple[Rule, ...]


def read_spec(directory: str) -> CleaningSpec:
    """Read the spec of the run in a directory."""
    content: dict[str, Any] = json.loads((Path(directory) / "work" / "plan.json").read_text("utf-8"))
    content |= {name: tuple(content[name]) for name in ("sources", "locations", "rules")}
    return CleaningSpec(**content)


def reference_file(work: Path) -> Path:
    """Return the file of hashes of reference n-grams for decontamination."""
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


def run_task(spec: CleaningSpec, task: dict[str, Any]) -> None:
    """Run a task, unless its output files exist."""
    kind = task["kind"]
    if kind == "read":
        _read(spec, task["first"], task["end"])
    elif kind == "reduce":
        _reduce(spec, task["segment"], task["bucket"])
    else:
        _clean(spec, task["segment"], task["part"])


def tallies_file(spec: CleaningSpec, segment: int, name: str) -> Path:
    """Return the file of tallies of a part in a segment, or of a group of sources (`group_name`)."""
    return spec.work / str(segment) / f"{name}.json"


def marks_file(spec: CleaningSpec, segment: int, bucket: int) -> Path:
    """Return the file of marks of a bucket, which a segment removes."""
    return spec.work / str(segment) / f"marked-{bucket:05d}"


def finalized_marks_file(spec: CleaningSpec, segment: int) -> Path:
    """Return the file of the collection's final marks, for rules with their own `finalize`."""
    return spec.work / str(segment) / "concluded"


def groups(spec: CleaningSpec) -> list[range]:
    """Group the sources for reading: adjacent small files together, any other file alone.

    The groups depend only on the sources, so the parts are the same for any number of workers.
    """
    result: list[range] = []
    size = 0
    for source, name in enumerate(spec.locations):
        source_size = PART if is_address(name) else Path(name).stat().st_size  # a remote file counts as large
        if result and size + source_size <= PART:
            result[-1], size = range(result[-1].start, source + 1), size + source_size
        else:
            result.append(range(source, source + 1))
            size = source_size
    return result


def group_name(spec: CleaningSpec, first: int) -> str:
    """Return the name of a group by its first source; names sort in the order of sources."""
    return f"{first:0{max(5, len(str(len(spec.sources) - 1)))}d}"


def parts_file(spec: CleaningSpec) -> Path:
    """Return the file with the names of all parts, written when every source has been read."""
    return spec.work / "parts.json"


def _read(spec: CleaningSpec, first: int, end: int) -> None:
    """Read a group of sources in parts, and run the first segment on each part."""
    group = group_name(spec, first)
    done = tallies_file(spec, 0, group)
    if done.exists():
        return
    skipped, parts = Ledger(), []
    for k, part in enumerate(_parts(spec, range(first, end), skipped)):
        name = f"{group}-{k:05d}"
        parts.append(name)
        if not tallies_file(spec, 0, name).exists():
            _finish(spec, 0, name, part, None)
    storage.write_ledger(_ledger_file(spec, 0, group), skipped, spec.sources)
    storage.write_tallies(done, skipped, parts=parts, files=_digests(spec, [_ledger_file(spec, 0, group)]))


def _parts(spec: CleaningSpec, sources: range, skipped: Ledger) -> Iterator[Part]:
    """Yield the documents of sources in parts; documents that cannot be read are recorded in `skipped`."""
    texts: list[str] = []
    sites: list[str] = []
    numbers: list[int] = []
    size = 0
    documents = ((source, *document) for source in sources for document in enumerate(_documents_of(spec, source)))
    for source, index, document in documents:
        number = storage.document_number(source, index)
        if isinstance(document, SkippedDocument):
            skipped.entries.append(Entry(number, READ, "dropped", document.reason, excerpt=excerpt(document.what)))
            skipped.of(READ).reasons[document.reason] += 1
            continue
        text = plain_line_ends(document.text)
        skipped.of(READ).notes.update({LINE_ENDS: text is not document.text, GUESSED: document.guessed})
        texts.append(text)
        sites.append(document.site)
        numbers.append(number)
        size += len(text)
        if size >= PART:
            yield Part(texts, np.array(numbers, np.uint64), sites)
            texts, sites, numbers, size = [], [], [], 0
    if texts:
        yield Part(texts, np.array(numbers, np.uint64), sites)


def _documents_of(spec: CleaningSpec, source: int) -> Iterator[Document | SkippedDocument]:
    try:
        yield from read_documents(spec.locations[source], ReadConfig(**spec.read))
    except DamagedFileError as error:
        if not spec.keep_damaged:
            raise UserError(f"{error} Give --keep-damaged to use the documents before the damage.") from error
        yield SkippedDocument("damaged from here on", str(error))


def _clean(spec: CleaningSpec, segment: int, name: str) -> None:
    """Run a later segment on a part."""
    if tallies_file(spec, segment, name).exists():
        return
    part = storage.read_part(_part_file(spec, segment - 1, name))
    marked = _marks_of_part(spec, segment, part) if len(part.documents) else concat_tables([])
    _finish(spec, segment, name, part, marked)


def _marks_of_part(spec: CleaningSpec, segment: int, part: Part) -> KeyTable:
    """Return the marks of a part."""
    finalized = finalized_marks_file(spec, segment)
    files = [marks_file(spec, segment, bucket) for bucket in range(spec.buckets)]
    files = [finalized] if storage.marks_exist(finalized) else files
    return storage.read_marks_between(files, "document", int(part.documents[0]), int(part.documents[-1]) + 1)


def _finish(spec: CleaningSpec, number: int, name: str, part: Part, marked: KeyTable | None) -> None:
    """Run a segment on a part and write its output; the tallies are written last and mark the task as done."""
    segment, ledger, last = spec.segments[number], Ledger(), number == len(spec.segments) - 1
    next_rule = None if last else spec.segments[number + 1].first
    kept_parts: list[Part] = []
    keys: list[KeyTable] = []
    for piece in batches(part.texts):
        texts = Texts(part.texts[piece])
        words = texts.words.counts if part.words is None else part.words[piece]
        batch = Batch(texts, part.documents[piece], part.sites[piece], np.ones(len(texts), bool), words)
        rules: Sequence[Rule] = segment.rules
        if segment.first and marked is not None:
            rules = (MarkedRule(segment.first, _marks_of_batch(marked, batch.documents)), *rules)
        batch = run_rules(batch, rules, ledger)
        if next_rule:
            keys.append(_keys(next_rule, batch))
        kept_parts.append(_survivors(batch))
    if next_rule:
        storage.write_marks(_keys_file(spec, number + 1, name), concat_tables(keys).sorted_by_key())
    storage.write_ledger(_ledger_file(spec, number, name), ledger, spec.sources)
    remaining = Part(
        [t for p in kept_parts for t in p.texts],
        np.concatenate([np.zeros(0, np.uint64), *(p.documents for p in kept_parts)]),
        [s for p in kept_parts for s in p.sites],
        np.concatenate([np.zeros(0, np.int64), *(p.words for p in kept_parts if p.words is not None)]),
    )
    outputs = [_ledger_file(spec, number, name)]
    if last:
        extension = "parquet" if spec.output == "parquet" else "jsonl.zst"
        outputs.append(Path(spec.directory) / "shards" / f"{name}.{extension}")
        storage.write_shard(outputs[-1], remaining, spec.sources, spec.output)
    else:
        storage.write_part(_part_file(spec, number, name), remaining)
    storage.write_tallies(tallies_file(spec, number, name), ledger, files=_digests(spec, outputs))


def _digests(spec: CleaningSpec, files: Sequence[Path]) -> dict[str, Any]:
    """Return the digests of output files, by which the end of the run, perhaps days later, finds damaged ones."""
    return {file.relative_to(spec.directory).as_posix(): digest(file) for file in files}


def _marks_of_batch(marked: KeyTable, documents: np.ndarray) -> KeyTable:
    """Return the marks of these documents, which are sorted, with indices into them instead of document numbers."""
    rows = np.flatnonzero((marked.document >= documents[0]) & (marked.document <= documents[-1]))
    selected = marked[rows]
    return KeyTable(selected.key, np.searchsorted(documents, selected.document).astype(np.uint64), selected.line)


def _keys(rule: CollectionRule, batch: Batch) -> KeyTable:
    """Return the keys of the documents that are kept in a batch."""
    keys = rule.keys(batch.texts, np.arange(len(batch.documents), dtype=np.uint64), batch.sites)
    keys = keys[np.flatnonzero(batch.keep_mask[keys.document.astype(np.int64)])]
    return KeyTable(keys.key, batch.documents[keys.document.astype(np.int64)], keys.line)


def _survivors(batch: Batch) -> Part:
    rows = np.flatnonzero(batch.keep_mask).tolist()
    texts, sites = ([values[i] for i in rows] for values in (batch.texts.texts, batch.sites))
    return Part(texts, batch.documents[rows], sites, batch.words[rows])


def _reduce(spec: CleaningSpec, segment: int, bucket: int) -> None:
    """Collect the keys of a bucket from all parts and reduce them to marks."""
    file, rule = marks_file(spec, segment, bucket), spec.segments[segment].first
    if storage.marks_exist(file) or rule is None:
        return
    width = 2**64 // spec.buckets
    high = 2**64 if bucket == spec.buckets - 1 else (bucket + 1) * width
    files = [_keys_file(spec, segment, name) for name in storage.read_list(parts_file(spec))]
    marked = rule.reduce(storage.read_marks_between(files, "key", bucket * width, high))
    storage.write_marks(file, marked[np.lexsort((marked.line, marked.document))])


def finalize(spec: CleaningSpec, segment: int) -> None:
    """Compute the final marks of a segment's collection rule, if it defines `finalize`."""
    rule, file = spec.segments[segment].first, finalized_marks_file(spec, segment)
    if rule is None or storage.marks_exist(file) or type(rule).finalize is CollectionRule.finalize:
        return
    buckets = [storage.read_marks(marks_file(spec, segment, b)) for b in range(spec.buckets)]
    marked = rule.finalize(concat_tables(buckets))
    storage.write_marks(file, marked[np.lexsort((marked.line, marked.document))])


def part_files(spec: CleaningSpec) -> list[Path]:
    """Return the intermediate files of documents, in the order of segments."""
    return [f for n in range(len(spec.segments) - 1) for f in sorted((spec.work / str(n)).glob("*.parquet"))]


def _part_file(spec: CleaningSpec, segment: int, name: str) -> Path:
    return spec.work / str(segment) / f"{name}.parquet"


def _keys_file(spec: CleaningSpec, segment: int, name: str) -> Path:
    return spec.work / str(segment) / f"keys-{name}"


def _ledger_file(spec: CleaningSpec, segment: int, name: str) -> Path:
    return Path(spec.directory) / "ledger" / f"{segment}-{name}.parquet"
