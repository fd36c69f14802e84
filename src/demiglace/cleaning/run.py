"""Execute a cleaning run: run its tasks, and collect tallies, clusters and shards."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demiglace.cleaning import storage
from demiglace.cleaning.daft_executor import run_tasks
from demiglace.cleaning.registry import from_config
from demiglace.cleaning.rules.decontamination import Decontamination
from demiglace.cleaning.statistics import RuleTally, sampling_hash
from demiglace.cleaning.tasks import (
    CleaningSpec,
    finalize,
    finalized_marks_file,
    group_name,
    groups,
    parts_file,
    reference_file,
    tallies_file,
)
from demiglace.console import progress
from demiglace.runs.files import atomic_write, partial_files
from demiglace.runs.integrity import check

_BUCKET = 64_000_000  # bytes of sources, compressed or not, per bucket of keys
_CLUSTERS = 20  # for the page
_FEW_BUCKETS = 16  # up to here one process is faster than starting several


def bucket_count(size: int) -> int:
    """Return the number of buckets for sources of this many bytes. The marks do not depend on it."""
    return max(1, min(4096, -(-size // _BUCKET)))


def prepare(spec: CleaningSpec, reference: Iterable[str]) -> None:
    """Write the spec, and the hashes of the n-grams of `reference` if there is a decontamination rule."""
    for draft in partial_files(Path(spec.directory)):
        draft.unlink(missing_ok=True)
    spec.write()
    for rule in from_config(spec.rules):
        if isinstance(rule, Decontamination) and not reference_file(spec.work).exists():
            with atomic_write(reference_file(spec.work)) as draft, draft.open("wb") as stream:
                np.save(stream, rule.with_texts(reference).reference_hashes)


def run(spec: CleaningSpec, workers: int) -> dict[str, Any]:
    """Run the tasks of a run that are not done.

    Raises `RunError` for a shard or ledger that is not as its task wrote it.

    Returns:
        rules: rule -> tally; clusters: some clusters of near-duplicates, as document numbers; parts: their number.
    """
    source_groups, count = groups(spec), len(spec.segments)
    read_tasks = [{"kind": "read", "first": group.start, "end": group.stop} for group in source_groups]
    _run_all(spec, f"cleaning 1/{count}", read_tasks, workers)
    names = [group_name(spec, group.start) for group in source_groups]
    parts = [part for name in names for part in storage.read_tallies(tallies_file(spec, 0, name))["parts"]]
    storage.write_list(parts_file(spec), parts)
    for number in range(1, count):
        reduce_tasks = [{"kind": "reduce", "segment": number, "bucket": bucket} for bucket in range(spec.buckets)]
        _run_all(spec, f"comparing {number}", reduce_tasks, workers if spec.buckets > _FEW_BUCKETS else 1)
        finalize(spec, number)
        clean_tasks = [{"kind": "clean", "segment": number, "part": part} for part in parts]
        _run_all(spec, f"cleaning {number + 1}/{count}", clean_tasks, workers)
    _check_outputs(spec, [(0, name) for name in names] + [(i, part) for i in range(count) for part in parts])
    return {"rules": _tallies(spec, names, parts), "clusters": _clusters(spec), "parts": len(parts)}


def _check_outputs(spec: CleaningSpec, tasks: Sequence[tuple[int, str]]) -> None:
    """Raise `RunError` for a shard or ledger that changed since its task wrote it, perhaps in an earlier process."""
    for segment, name in tasks:
        written = storage.read_tallies(tallies_file(spec, segment, name))["files"]
        check(Path(spec.directory), written, lambda _: True)


def clear(spec: CleaningSpec) -> None:
    """Remove the intermediate files."""
    shutil.rmtree(spec.work, ignore_errors=True)


def _run_all(spec: CleaningSpec, name: str, tasks: list[dict[str, Any]], workers: int) -> None:
    with progress(name, len(tasks), "parts") as bar:
        for _ in run_tasks(spec.directory, tasks, workers):
            bar.advance(1)


def _tallies(spec: CleaningSpec, read: Sequence[str], parts: Sequence[str]) -> dict[str, Any]:
    """Return rule -> tally over all parts, in the order of the rules; `read`: the names of the groups of sources."""
    total: dict[str, RuleTally] = {}
    names = [(0, name) for name in read]
    names += [(segment, part) for segment in range(len(spec.segments)) for part in parts]
    for segment, name in names:
        for rule, tally in storage.read_tallies(tallies_file(spec, segment, name))["rules"].items():
            total.setdefault(rule, RuleTally()).add(tally)
    order = ["read", *(row["rule"] for row in spec.rules)]
    return {rule: total[rule].as_json() for rule in order if rule in total}


def _clusters(spec: CleaningSpec) -> list[list[int]]:
    """Return some clusters of near-duplicates as document numbers; the first of each is the one that was kept."""
    clusters: list[list[int]] = []
    for number, segment in enumerate(spec.segments):
        if segment.first is None or not storage.marks_exist(finalized_marks_file(spec, number)):
            continue
        marked = storage.read_marks(finalized_marks_file(spec, number))
        firsts = sorted(np.unique(marked.key).tolist(), key=lambda d: sampling_hash(d, "clusters"))[:_CLUSTERS]
        clusters += [[first, *marked.document[marked.key == first].tolist()] for first in firsts]
    return clusters


def summary(tallies: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return documents, characters and words of the first rule's input and of the last rule's output."""
    rules = [t for name, t in tallies.items() if name != "read"]
    names = ("documents", "characters", "words")
    return {name: [rules[0][name][0], rules[-1][name][1]] if rules else [0, 0] for name in names}


def shard_files(directory: Path) -> list[Path]:
    """Return the shards of a run, in order."""
    return sorted((directory / "shards").glob("*.parquet")) + sorted((directory / "shards").glob("*.jsonl.zst"))
